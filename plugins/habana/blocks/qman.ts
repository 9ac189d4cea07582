import { type BlockLayout, PAGE_BYTES, unimplemented } from '../block.js';

/** Streams 0 to 3 have queues; index 4 is the lower command processor. */
const streams = (offset: number) => ({ offset, count: 4 });
const processors = (offset: number) => ({ offset, count: 5 });
/** CQ pointers of one stream lie together, 16 bytes apart from the next stream's. */
const perStream = (offset: number) => ({ offset, count: 5, strideBytes: 0x10 });

/** L/include/gaudi/asic_reg/dma0_qm_regs.h; every queue manager has this layout. */
const registers = unimplemented(
  {
    GLBL_CFG0: 0x000,
    GLBL_CFG1: 0x004,
    GLBL_PROT: 0x008,
    GLBL_ERR_CFG: 0x00c,
    GLBL_SECURE_PROPS: processors(0x010),
    GLBL_NON_SECURE_PROPS: processors(0x024),
    GLBL_STS0: 0x038,
    GLBL_STS1: processors(0x040),
    PQ_BASE_LO: streams(0x070),
    PQ_BASE_HI: streams(0x080),
    PQ_SIZE: streams(0x090),
    PQ_PI: streams(0x0a0),
    PQ_CI: streams(0x0b0),
    CQ_PTR_LO: perStream(0x174),
    CQ_PTR_HI: perStream(0x178),
    CQ_TSIZE: perStream(0x17c),
    CQ_CTL: perStream(0x180),
    CP_MSG_BASE0_ADDR_LO: processors(0x228),
    CP_MSG_BASE0_ADDR_HI: processors(0x23c),
    CP_MSG_BASE1_ADDR_LO: processors(0x250),
    CP_MSG_BASE1_ADDR_HI: processors(0x264),
    CP_MSG_BASE2_ADDR_LO: processors(0x278),
    CP_MSG_BASE2_ADDR_HI: processors(0x28c),
    CP_MSG_BASE3_ADDR_LO: processors(0x2a0),
    CP_MSG_BASE3_ADDR_HI: processors(0x2b4),
    CP_FENCE0_RDATA: processors(0x308),
    CP_FENCE1_RDATA: processors(0x31c),
    CP_FENCE2_RDATA: processors(0x330),
    CP_FENCE3_RDATA: processors(0x344),
    CP_FENCE0_CNT: processors(0x358),
    CP_FENCE1_CNT: processors(0x36c),
    CP_FENCE2_CNT: processors(0x380),
    CP_FENCE3_CNT: processors(0x394),
    CP_STS: processors(0x3a8),
    CP_CURRENT_INST_LO: processors(0x3bc),
    CP_CURRENT_INST_HI: processors(0x3d0),
    CP_BARRIER_CFG: processors(0x3f4),
    ARB_CFG_0: 0xa00,
    ARB_SLV_CHOISE_WDT: 0xb38,
    ARB_ERR_CAUSE: 0xb9c,
    ARB_ERR_MSG_EN: 0xba0,
    CGM_CFG: 0xc70,
    CGM_STS: 0xc74,
    CGM_CFG1: 0xc78,
  },
  // Idle: L/include/gaudi/gaudi_masks.h QM_IDLE_MASK, CGM_IDLE_MASK.
  { GLBL_STS0: 0x3fff, CGM_STS: 0x100 },
);

const range = (count: number) => Array.from({ length: count }, (_, index) => index);

/** L/include/gaudi/asic_reg/gaudi_blocks.h mmDMAn_QM_BASE, mmTPCn_QM_BASE, mmMMEn_QM_BASE, mmNICn_QMm_BASE. */
const places: readonly (readonly [string, number])[] = [
  ...range(8).map((index) => [`DMA${index}_QM`, 0x508000 + index * 0x20000] as const),
  ...range(8).map((index) => [`TPC${index}_QM`, 0xe08000 + index * 0x40000] as const),
  // MME1 and MME3 are slaves of 0 and 2: their queue managers are never used.
  ['MME0_QM', 0x068000],
  ['MME2_QM', 0x168000],
  ...range(10).map(
    (port) => [`NIC${port >> 1}_QM${port & 1}`, 0xce0000 + (port >> 1) * 0x40000 + (port & 1) * 0x2000] as const,
  ),
];

export const queueManagers: readonly BlockLayout[] = places.map(([name, base]) => ({
  name,
  base,
  sizeBytes: PAGE_BYTES,
  registers,
}));
