import { type BlockLayout, PAGE_BYTES, unimplemented } from '../block.js';

/**
 * L/include/gaudi/asic_reg/psoc_global_conf_regs.h; the names of scratchpads (0x100 + 4 * n) and cold-reset flops are those
 * of L/include/gaudi/gaudi_reg_map.h.
 */
const globalConf: BlockLayout = {
  name: 'PSOC_GLOBAL_CONF',
  base: 0xc4b000,
  sizeBytes: PAGE_BYTES,
  registers: unimplemented({
    BOOT_SEQ_RE_START: 0x024,
    BTM_FSM: 0x028,
    PREBOOT_PCIE_EN: 0x074,
    HW_STATE: 0x100,
    CPU_BOOT_DEV_STS0: 0x150,
    CPU_BOOT_DEV_STS1: 0x154,
    CPU_CMD_STATUS_TO_HOST: 0x15c,
    CPU_BOOT_ERR0: 0x160,
    CPU_BOOT_ERR1: 0x164,
    PREBOOT_VER_OFFSET: 0x170,
    UBOOT_VER_OFFSET: 0x174,
    CPU_BOOT_STATUS: 0x300,
    KMD_MSG_TO_CPU: 0x304,
    TRACE_AWUSER: 0x338,
    TRACE_ARUSER: 0x33c,
    SW_ALL_RST_CFG_L: 0x490,
    SW_ALL_RST_CFG_H: 0x494,
    SW_ALL_RST: 0x498,
    SOFT_RST_CFG_L: 0x4a4,
    SOFT_RST_CFG_H: 0x4a8,
  }),
};

/** L/include/gaudi/asic_reg/psoc_timestamp_regs.h. */
const timestamp: BlockLayout = {
  name: 'PSOC_TIMESTAMP',
  base: 0xc49000,
  sizeBytes: PAGE_BYTES,
  registers: unimplemented({ CNTCR: 0x000, CNTSR: 0x004, CNTCVL: 0x008, CNTCVU: 0x00c }),
};

/** L/include/gaudi/asic_reg/psoc_cpu_pll_regs.h. */
const cpuPll: BlockLayout = {
  name: 'PSOC_CPU_PLL',
  base: 0xc70000,
  sizeBytes: PAGE_BYTES,
  registers: unimplemented({
    NR: 0x100,
    NF: 0x104,
    OD: 0x108,
    DIV_FACTOR: { offset: 0x200, count: 4 },
    DIV_SEL: { offset: 0x280, count: 4 },
  }),
};

/** The system-on-chip part: boot status, scratchpads, resets, clock. */
export const psocBlocks: readonly BlockLayout[] = [globalConf, timestamp, cpuPll];
