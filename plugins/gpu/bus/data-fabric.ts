import type { Mmio } from './mmio.js';

/** UCFatalEn of UMCCH0_0_EccCtrl (umc_6_7_0_sh_mask.h): an uncorrectable error ends things, it does not poison data. */
const UC_FATAL_EN = 1 << 8;

/**
 * Data fabric (DF 3.6, df_3_6_offset.h on segment 0x7000) and memory controllers (UMC 6.7, umc_6_7_0_offset.h on
 * 0x14000) of an MI210: no more than the driver asks both to learn that there is one channel and that errors do not
 * poison data (amdgpu_ras.c amdgpu_ras_query_poison_mode wants them to agree). The synthetic ASIC has neither.
 */
export function declareDataFabric(mmio: Mmio): void {
  mmio.declare('df', {
    DF_GCM_AON0_DramMegaBaseAddress0: { dw: 0x7064, writable: 0 },
    DF_CS_UMC_AON0_HardwareAssertMaskLow: { dw: 0x767e, writable: 0 },
    DF_NCS_PG0_HardwareAssertMaskHigh: { dw: 0x767f, writable: 0 },
  });
  mmio.declare('umc', { UMCCH0_0_EccCtrl: { dw: 0x14053, writable: 0, reset: UC_FATAL_EN } });
}
