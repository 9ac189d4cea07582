/** The pattern by which the guest's programs know their bytes: guest/amdgpu-kit.h computes the same. */

/** The 32-bit finalizer of MurmurHash3, and what keeps passes apart. */
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

/** The first `lengthBytes` of a pattern, a multiple of 4. */
export function patternBytes(seed: number, pass: number, lengthBytes: number): Uint8Array {
  const dwords = Uint32Array.from({ length: lengthBytes / 4 }, (_, index) => patternDword(seed, pass, index));
  return new Uint8Array(dwords.buffer);
}
