/** The pattern that `plugins/gpu/guest/amdgpu-p2p.c` writes, and where it lies in a GPU's memory on the host. */
import type { Emulator } from '../emulator/emulator.js';

export const PAGE_BYTES = 4096;
const PAGE_DWORDS = PAGE_BYTES / 4;
const SCAN_BYTES = 16 * 2 ** 20;

/** The 32-bit finalizer of MurmurHash3, and what keeps passes apart: amdgpu-kit.h has the same. */
const PASS_STEP = 0x9e3779b9;
const FIRST_FACTOR = 0x85ebca6b;
const SECOND_FACTOR = 0xc2b2ae35;

/** Dword `index` of pattern `pass` of `seed`. */
function patternDword(seed: number, pass: number, index: number): number {
  let value = (seed + Math.imul(pass, PASS_STEP) + index) | 0;
  value = Math.imul(value ^ (value >>> 16), FIRST_FACTOR);
  value = Math.imul(value ^ (value >>> 13), SECOND_FACTOR);
  return (value ^ (value >>> 16)) >>> 0;
}

export function patternBytes(seed: number, pass: number, lengthBytes: number): Uint8Array {
  const dwords = new Uint32Array(lengthBytes / 4);
  for (let index = 0; index < dwords.length; index++) dwords[index] = patternDword(seed, pass, index);
  return new Uint8Array(dwords.buffer);
}

/**
 * How many of the pattern's pages lie, byte for byte, in the memory behind a BAR. The guest's driver chose their
 * places, so all of the memory is looked through: each page of it is compared with the pattern's page that starts with
 * the same dword.
 */
export async function findPatternPages(
  emulator: Emulator,
  functionName: string,
  bar: number,
  memoryBytes: number,
  pattern: Uint8Array,
): Promise<number> {
  const dwords = new Uint32Array(pattern.buffer, pattern.byteOffset, pattern.length / 4);
  const pageOf = new Map<number, number>();
  for (let page = 0; page < pattern.length / PAGE_BYTES; page++) pageOf.set(dwords[page * PAGE_DWORDS]!, page);
  const found = new Set<number>();
  for (let offset = 0; offset < memoryBytes; offset += SCAN_BYTES) {
    const bytes = await emulator.readBar(functionName, bar, offset, Math.min(SCAN_BYTES, memoryBytes - offset));
    for (let start = 0; start < bytes.length; start += PAGE_BYTES) {
      const memory = Buffer.from(bytes.buffer, bytes.byteOffset + start, PAGE_BYTES);
      const page = pageOf.get(memory.readUInt32LE(0));
      if (page === undefined) continue;
      if (memory.equals(pattern.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES))) found.add(page);
    }
  }
  return found.size;
}
