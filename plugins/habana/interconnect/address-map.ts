/**
 * The device's own 50-bit address space, as its engines see it, and where each block sits in it. Offsets called `cfg`
 * count from {@link CFG_BASE}. Source of all: Linux drivers/accel/habanalabs/include/gaudi/gaudi.h, gaudi_reg_map.h and
 * asic_reg/gaudi_blocks.h.
 */

/** HBM starts at 0 (DRAM_PHYS_BASE) and the driver takes it for 32 GiB whatever the BAR says (GAUDI_HBM_SIZE_32GB). */
export const HBM_BYTES = 32 * 2 ** 30;
/** SRAM_BASE_ADDR, SRAM_SIZE. */
export const SRAM_BASE = 0x7ff0000000;
export const SRAM_BYTES = 0x1400000;
/** SPI_FLASH_BASE_ADDR: what BAR2 starts with. */
export const BAR2_BASE = 0x7ff8000000;
/** CFG_BASE, CFG_SIZE. */
export const CFG_BASE = 0x7ffc000000;
export const CFG_BYTES = 0x4000000;
/** HOST_PHYS_BASE: bus address 0 as the device's engines address it. */
export const HOST_BASE = 0x8000000000;
/** VA_HOST_SPACE_START: everything from here on is virtual and goes through the MMU. */
export const VIRTUAL_BASE = 2 ** 48;
/** The MMU translates 50 bits (gaudi_set_fixed_properties: hop0 takes VA bits 49:48). */
export const ADDRESS_END = 2 ** 50;

/** BAR sizes that gaudi_early_init() insists on; BAR4 may have any size. */
export const BAR0_BYTES = 0x4000000;
export const BAR2_BYTES = 0x8000000;
/** Where the configuration space lies in BAR2. */
export const CFG_IN_BAR2 = CFG_BASE - BAR2_BASE;

/** cfg offsets of the blocks with behaviour. */
export const CFG = {
  mmeControl: [0x60000, 0xe0000, 0x160000, 0x1e0000],
  cpuInterface: 0x442000,
  /** In the order W_S, E_S, W_N, E_N (SYNC_MNGR_x_OBJS). */
  syncManagers: [0x492000, 0x4b2000, 0x4d2000, 0x4f2000],
  dmaCores: Array.from({ length: 8 }, (_, index) => 0x500000 + index * 0x20000),
  gic: 0x800000,
  pcieCore: 0xc04000,
  mmuUp: 0xc11000,
  stlb: 0xc12000,
  timestamp: 0xc49000,
  psoc: 0xc4b000,
  cpuPll: 0xc70000,
  tpcConfig: Array.from({ length: 8 }, (_, index) => 0xe06000 + index * 0x40000),
} as const;

export const PAGE_BYTES = 0x1000;

/**
 * A queue manager lies 0x8000 above the base that its WREG packets count from (QMAN_LDMA_SRC_OFFSET and its
 * neighbours).
 */
export const QMAN_IN_WINDOW = 0x8000;

type EngineKind = 'dma' | 'tpc' | 'mme' | 'nic';

export interface EngineInstance {
  /** As the driver names it, for example `DMA0` or `NIC0_QM1`. */
  readonly name: string;
  readonly kind: EngineKind;
  /** DMA 0..7, TPC 0..7, MME 0 and 2, NIC 0..9. */
  readonly index: number;
  readonly qmanCfg: number;
}

const dma = Array.from(
  { length: 8 },
  (_, index): EngineInstance => ({ name: `DMA${index}`, kind: 'dma', index, qmanCfg: 0x508000 + index * 0x20000 }),
);
const tpc = Array.from(
  { length: 8 },
  (_, index): EngineInstance => ({ name: `TPC${index}`, kind: 'tpc', index, qmanCfg: 0xe08000 + index * 0x40000 }),
);
const mme = [0, 2].map(
  (index): EngineInstance => ({ name: `MME${index}`, kind: 'mme', index, qmanCfg: 0x68000 + index * 0x80000 }),
);
const nic = Array.from({ length: 10 }, (_, index): EngineInstance => {
  const macro = index >> 1;
  const port = index & 1;
  return { name: `NIC${macro}_QM${port}`, kind: 'nic', index, qmanCfg: 0xce0000 + macro * 0x40000 + port * 0x2000 };
});

/** Every queue manager of the device. */
export const ENGINES: readonly EngineInstance[] = [...dma, ...tpc, ...mme, ...nic];

/** Two register halves as an address; anything that is not exact in a double is beyond the device's space anyway. */
export function addressOf(low: number, high: number): number {
  return (high >>> 0) * 2 ** 32 + (low >>> 0);
}
