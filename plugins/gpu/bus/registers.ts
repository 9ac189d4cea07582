/**
 * Registers beyond a single block: the aperture, and the ranges that are plain storage. A block's registers stand at
 * the top of the block's own file.
 *
 * Registers are named by dword number ("dw", as in the kernel's headers and traces); BAR5 byte offset = 4 * dw.
 */

/** BAR5 (adev->rmmio): 512 KiB, so that the HDP flush page at 0x7f000 is inside (soc15.c, MMIO_REG_HOLE_OFFSET). */
export const MMIO_BYTES = 0x80000;

/** A range of registers that the driver programs and that change nothing in this model: remembered, counted, listed. */
export interface StorageRange {
  readonly name: string;
  readonly firstDword: number;
  readonly lastDword: number;
}

const SDMA_RANGES: readonly StorageRange[] = [
  { name: 'sdma0 (sdma0_4_2_offset.h)', firstDword: 0x1260, lastDword: 0x16ff },
  { name: 'sdma1 (sdma1_4_2_offset.h)', firstDword: 0x1860, lastDword: 0x1cff },
  { name: 'sdma2 (sdma2_4_2_2_offset.h)', firstDword: 0x1e000, lastDword: 0x1e3ff },
  { name: 'sdma3 (sdma3_4_2_2_offset.h)', firstDword: 0x1e400, lastDword: 0x1e7ff },
  { name: 'sdma4 (sdma4_4_2_2_offset.h)', firstDword: 0x1e800, lastDword: 0x1ebff },
];

const COMMON_RANGES: readonly StorageRange[] = [
  { name: 'gc segment 0 (gc_9_4_2_offset.h)', firstDword: 0x2000, lastDword: 0x3fff },
  { name: 'gc segment 1 (gc_9_4_2_offset.h)', firstDword: 0xa000, lastDword: 0xffff },
  { name: 'mmhub (mmhub_1_7_offset.h)', firstDword: 0x1a000, lastDword: 0x1afff },
];

/** Extents from the asic_reg headers named; a declared register inside a range keeps its own behaviour. */
export function storageRanges(sdmaEngines: number): readonly StorageRange[] {
  return [...SDMA_RANGES.slice(0, sdmaEngines), ...COMMON_RANGES];
}

/** A 48-bit GPU virtual or bus address from two registers or packet dwords; higher bits are sign extension. */
export function address48(low: number, high: number): number {
  return (low >>> 0) + (high & 0xffff) * 0x1_0000_0000;
}

/** First byte of a ring or table that a register pair gives in units of 256 bytes, 40 bits of them. */
export function address256(base: number, baseHigh: number): number {
  return base * 256 + (baseHigh & 0xff) * 2 ** 40;
}

/** `0x` and at least eight digits, for logs. */
export function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
