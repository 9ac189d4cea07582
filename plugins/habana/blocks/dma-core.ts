import { type BlockLayout, PAGE_BYTES, unimplemented } from '../block.js';

/** L/include/gaudi/asic_reg/dma0_core_regs.h. */
const registers = unimplemented({
  CFG_0: 0x000,
  CFG_1: 0x004,
  SRC_BASE_LO: 0x014,
  SRC_BASE_HI: 0x018,
  DST_BASE_LO: 0x01c,
  DST_BASE_HI: 0x020,
  DST_TSIZE_0: 0x074,
  COMMIT: 0x078,
  WR_COMP_WDATA: 0x07c,
  WR_COMP_ADDR_LO: 0x080,
  WR_COMP_ADDR_HI: 0x084,
  PROT: 0x0b8,
  SECURE_PROPS: 0x0f0,
  NON_SECURE_PROPS: 0x0f4,
  RD_MAX_OUTSTAND: 0x100,
  RD_MAX_SIZE: 0x104,
  WR_MAX_OUTSTAND: 0x120,
  WR_AWUSER_31_11: 0x130,
  ERR_CFG: 0x160,
  ERR_CAUSE: 0x164,
  ERRMSG_ADDR_LO: 0x170,
  ERRMSG_ADDR_HI: 0x174,
  ERRMSG_WDATA: 0x178,
  STS0: 0x190,
});

/** L/include/gaudi/asic_reg/gaudi_blocks.h mmDMAn_CORE_BASE. */
export const dmaCores: readonly BlockLayout[] = Array.from({ length: 8 }, (_, index) => ({
  name: `DMA${index}_CORE`,
  base: 0x500000 + index * 0x20000,
  sizeBytes: PAGE_BYTES,
  registers,
}));
