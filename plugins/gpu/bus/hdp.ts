import type { Mmio } from './mmio.js';

/**
 * Host data path (HDP 4.4). The CPU and the engines share one memory here, so flushing and invalidating has nothing to
 * do: the registers are storage, the flush page swallows writes. Numbers: asic_reg/hdp/hdp_4_0_offset.h.
 */
export function declareHdp(mmio: Mmio): void {
  mmio.declare('hdp', {
    HDP_NONSURFACE_BASE: { dw: 0xf60 },
    HDP_NONSURFACE_INFO: { dw: 0xf61 },
    HDP_NONSURFACE_BASE_HI: { dw: 0xf62 },
    HDP_READ_CACHE_INVALIDATE: { dw: 0xff1 },
    HDP_MISC_CNTL: { dw: 0xff3 },
    HDP_MEM_POWER_LS: { dw: 0xff4 },
    // REMAP_HDP_MEM_FLUSH_CNTL and _REG_ point to byte 0x7f000 and 0x7f004 (soc15.c soc15_common_early_init).
    REMAPPED_FLUSH: { dw: 0x1fc00, count: 2, onWrite: () => 0 },
  });
}

/** SMUIO 13: SMUIO_MCM_CONFIG bit 0 clear says that no XGMI link leads to the CPU (smuio_v13_0.c). */
export function declareSmuio(mmio: Mmio): void {
  mmio.declare('smuio', { SMUIO_MCM_CONFIG: { dw: 0x16824, writable: 0 } });
}
