import { type BlockLayout, PAGE_BYTES, unimplemented } from '../block.js';

/** L/include/gaudi/asic_reg/tpc0_cfg_regs.h. */
const registers = unimplemented(
  {
    STATUS: 0x91c,
    TPC_CMD: 0x930,
    TPC_EXECUTE: 0x938,
    MSS_CONFIG: 0x954,
    TPC_INTR_CAUSE: 0x958,
    TPC_INTR_MASK: 0x95c,
    ARUSER_LO: 0x964,
    AWUSER_LO: 0x96c,
    WQ_INFLIGHT_CNTR: 0x9b8,
    QM_SYNC_OBJECT_ADDR: 0xd84,
  },
  // Idle: L/include/gaudi/gaudi_masks.h TPC_IDLE_MASK.
  { STATUS: 0xee },
);

/** L/include/gaudi/asic_reg/gaudi_blocks.h mmTPCn_CFG_BASE. */
export const tpcConfigurations: readonly BlockLayout[] = Array.from({ length: 8 }, (_, index) => ({
  name: `TPC${index}_CFG`,
  base: 0xe06000 + index * 0x40000,
  sizeBytes: PAGE_BYTES,
  registers,
}));
