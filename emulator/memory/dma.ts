import type { MemoryRegion } from './region.js';

/**
 * DMA as this function's requests on the bus. Each request is checked against Bus Master Enable and routed by the
 * fabric: a peer's BAR, guest memory, DMA messages, else Unsupported Request.
 *
 * Every call either completes wholly or throws {@link DmaError} (possibly after moving a first part, as hardware
 * would). Addresses may cross guest pages and mappings freely. No call needs alignment; a write into a peer's registers
 * is split into naturally aligned pieces of at most 8 bytes.
 *
 * Calls are legal from posted work and from timers. From inside a register handler, only memory that is
 * mapped (guest RAM, peer memory) can be reached; memory that needs DMA messages throws {@link DmaError}
 * there, because QEMU cannot answer a message while it waits for the handler. While a message is awaited,
 * register accesses of this function are served.
 */
export interface Dma {
  read(address: number, target: Uint8Array): void;
  write(address: number, source: Uint8Array): void;
  /**
   * Moves bytes from one bus address to another without a detour where both ends are memory. Ranges must not overlap.
   */
  copy(destination: number, source: number, lengthBytes: number): void;
  /** Fills with one byte; a large fill with zero of a peer's memory region punches a hole. */
  fill(address: number, value: number, lengthBytes: number): void;
  /** Moves bytes from this function's own memory to the bus. */
  writeFrom(address: number, memory: MemoryRegion, memoryOffset: number, lengthBytes: number): void;
  /** Moves bytes from the bus into this function's own memory. */
  readInto(address: number, memory: MemoryRegion, memoryOffset: number, lengthBytes: number): void;
  readU8(address: number): number;
  readU16(address: number): number;
  readU32(address: number): number;
  readU64(address: number): bigint;
  readU16BE(address: number): number;
  readU32BE(address: number): number;
  readU64BE(address: number): bigint;
  writeU8(address: number, value: number): void;
  writeU16(address: number, value: number): void;
  writeU32(address: number, value: number): void;
  writeU64(address: number, value: bigint): void;
  writeU16BE(address: number, value: number): void;
  writeU32BE(address: number, value: number): void;
  writeU64BE(address: number, value: bigint): void;
}
