/**
 * A function's own memory (VRAM, HBM, SRAM), backed by a sparse memfd that QEMU maps into the guest. Pages cost nothing
 * until touched; a large zero fill gives them back. Offsets out of range throw RangeError.
 */
export interface MemoryRegion {
  readonly name: string;
  readonly sizeBytes: number;
  read(offset: number, target: Uint8Array): void;
  write(offset: number, source: Uint8Array): void;
  /** Fills with one byte. Whole pages of a zero fill are punched out of the file. */
  fill(offset: number, value: number, lengthBytes: number): void;
  /** Copies inside this region; overlapping ranges behave like memmove. */
  copy(destination: number, source: number, lengthBytes: number): void;
  /** Calls `visit` with views of the memory itself, in order, covering the range. Views are valid during the call only. */
  forEachSpan(offset: number, lengthBytes: number, visit: (bytes: Uint8Array, offsetInRange: number) => void): void;
  readU32(offset: number): number;
  readU64(offset: number): bigint;
  writeU32(offset: number, value: number): void;
  writeU64(offset: number, value: bigint): void;
  /** Bytes of host memory that the region really occupies. */
  allocatedBytes(): number;
}
