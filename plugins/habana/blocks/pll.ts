/**
 * Clocks. The driver reads the CPU PLL's registers itself (gaudi_fetch_psoc_frequency) and asks the firmware for the
 * others (CPUCP_PACKET_PLL_INFO_GET). Registers are plain memory: nobody changes a clock on this device.
 */

/** cfg offset and power-on value: reference clock divided by 1, 50 MHz (psoc_cpu_pll_regs.h). */
export const CPU_PLL_REGISTERS: readonly (readonly [number, number])[] = [
  [0xc70100, 0], // NR
  [0xc70104, 35], // NF
  [0xc70108, 0], // OD
  [0xc70208, 0], // DIV_FACTOR_2
  [0xc70288, 2], // DIV_SEL_2: divided reference
];

/**
 * The four outputs of each PLL in MHz, by `enum hl_gaudi_pll_index` (uapi/drm/habanalabs_accel.h): firmware without
 * CPU_BOOT_DEV_STS0_DYN_PLL_EN is asked by that number (get_used_pll_index). Made up, in the range of the real card.
 */
const OUTPUTS_MHZ: readonly (readonly [number, number, number, number])[] = [
  [1000, 500, 50, 250], // CPU
  [1000, 500, 250, 125], // PCI
  [1500, 750, 375, 188], // SRAM
  [1000, 500, 250, 125], // HBM
  [1000, 500, 250, 125], // NIC
  [1500, 750, 375, 188], // DMA
  [1500, 750, 375, 188], // MESH
  [2200, 1100, 550, 275], // MME
  [2200, 1100, 550, 275], // TPC
  [1500, 750, 375, 188], // IF
];

/** Undefined for a PLL that this device does not have. */
export function pllOutputsMhz(index: number): readonly [number, number, number, number] | undefined {
  return OUTPUTS_MHZ[index];
}
