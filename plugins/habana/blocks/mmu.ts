import { type BlockLayout, PAGE_BYTES, unimplemented } from '../block.js';

/** L/include/gaudi/asic_reg/mmu_up_regs.h. */
const mmuUp: BlockLayout = {
  name: 'MMU_UP',
  base: 0xc11000,
  sizeBytes: PAGE_BYTES,
  registers: unimplemented({
    MMU_ENABLE: 0x00c,
    SPI_MASK: 0x02c,
    PAGE_ERROR_CAPTURE: 0x034,
    PAGE_ERROR_CAPTURE_VA: 0x038,
    ACCESS_ERROR_CAPTURE: 0x03c,
    ACCESS_ERROR_CAPTURE_VA: 0x040,
    RAZWI_WRITE_VLD: 0x05c,
    RAZWI_WRITE_ID: 0x060,
    RAZWI_READ_VLD: 0x064,
    RAZWI_READ_ID: 0x068,
  }),
};

/** L/include/gaudi/asic_reg/stlb_regs.h; the first four are L/include/hw_ip/mmu/mmu_v1_1.h MMU_BUSY and following. */
const stlb: BlockLayout = {
  name: 'STLB',
  base: 0xc12000,
  sizeBytes: PAGE_BYTES,
  registers: unimplemented({
    BUSY: 0x000,
    ASID: 0x004,
    HOP0_PA43_12: 0x008,
    HOP0_PA49_44: 0x00c,
    CACHE_INV: 0x010,
    CACHE_INV_BASE_39_8: 0x014,
    CACHE_INV_BASE_49_40: 0x018,
    HOP_CONFIGURATION: 0x024,
    INV_PS: 0x03c,
    INV_SET: 0x048,
    MEM_CACHE_INVALIDATION: 0x050,
  }),
};

export const mmuBlocks: readonly BlockLayout[] = [mmuUp, stlb];
