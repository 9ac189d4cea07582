import { type BlockLayout, PAGE_BYTES, unimplemented } from '../block.js';

/** Queues of the card's management processor; L/include/gaudi/asic_reg/cpu_if_regs.h. */
const cpuIf: BlockLayout = {
  name: 'CPU_IF',
  base: 0x442000,
  sizeBytes: PAGE_BYTES,
  registers: unimplemented({
    CPU_MSB_ADDR: 0x12c,
    PF_PQ_PI: 0x200,
    PQ_BASE_ADDR_LOW: 0x204,
    PQ_BASE_ADDR_HIGH: 0x208,
    PQ_LENGTH: 0x20c,
    CQ_BASE_ADDR_LOW: 0x210,
    CQ_BASE_ADDR_HIGH: 0x214,
    CQ_LENGTH: 0x218,
    EQ_BASE_ADDR_LOW: 0x220,
    EQ_BASE_ADDR_HIGH: 0x224,
    EQ_LENGTH: 0x228,
    EQ_RD_OFFS: 0x22c,
    QUEUE_INIT: 0x230,
  }),
};

/** The doorbell of that processor: a write raises the interrupt of that number; L/include/gaudi/asic_reg/gaudi_regs.h. */
const gic: BlockLayout = {
  name: 'GIC_DISTRIBUTOR__5',
  base: 0x800000,
  sizeBytes: PAGE_BYTES,
  registers: unimplemented({ GICD_SETSPI_NSR: 0x040 }),
};

export const managementProcessor: readonly BlockLayout[] = [cpuIf, gic];
