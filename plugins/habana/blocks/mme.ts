import { type BlockLayout, PAGE_BYTES, unimplemented } from '../block.js';

/** Distance between two matrix engines; L/include/gaudi/asic_reg/gaudi_blocks.h mmMMEn_CTRL_BASE. */
const STRIDE = 0x80000;

/** L/include/gaudi/asic_reg/gaudi_regs.h, of MME0_ACC and MME0_SBAB; mme0_ctrl_regs.h. */
const parts = [
  { suffix: 'ACC', base: 0x20000, registers: unimplemented({ ACC_STALL: 0x028, WBC: 0x038, PROT: 0x050 }) },
  {
    suffix: 'SBAB',
    base: 0x40000,
    registers: unimplemented({ SB_STALL: 0x02c, ARUSER0: 0x034, ARUSER1: 0x038, PROT: 0x050 }),
  },
  // Idle: L/include/gaudi/gaudi_masks.h MME_ARCH_IDLE_MASK.
  { suffix: 'CTRL', base: 0x60000, registers: unimplemented({ ARCH_STATUS: 0x000 }, { ARCH_STATUS: 0x1180 }) },
] as const;

export const matrixEngines: readonly BlockLayout[] = [0, 1, 2, 3].flatMap((index) =>
  parts.map(({ suffix, base, registers }) => ({
    name: `MME${index}_${suffix}`,
    base: base + index * STRIDE,
    sizeBytes: PAGE_BYTES,
    registers,
  })),
);
