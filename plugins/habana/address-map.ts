/**
 * Where things are on the card. Kernel sources are named below L/ = drivers/accel/habanalabs/.
 */
const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** L/include/gaudi/gaudi.h SRAM_BAR_SIZE, CFG_BAR_SIZE; gaudi_early_init insists on exactly these. */
export const SRAM_BAR_BYTES = 64 * MIB;
export const CFG_BAR_BYTES = 128 * MIB;
/** L/gaudi/gaudiP.h GAUDI_HBM_SIZE_32GB. */
export const HBM_BYTES = 32 * GIB;

/** L/include/gaudi/gaudi.h SRAM_BAR_ID, CFG_BAR_ID, HBM_BAR_ID. */
export const SRAM_BAR = 0;
export const CFG_BAR = 2;
export const HBM_BAR = 4;

/** Device address of the register space; L/include/gaudi/gaudi.h CFG_BASE, CFG_SIZE. */
export const CFG_BASE = 0x7ffc000000;
export const CFG_BYTES = 64 * MIB;
/** BAR2 shows device addresses from SPI_FLASH_BASE_ADDR (0x7FF8000000) on; registers come 64 MiB in. */
export const CFG_OFFSET_IN_BAR = 0x4000000;
