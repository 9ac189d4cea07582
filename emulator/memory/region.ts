/** A function's own memory, backed by a sparse memfd. */
import { allocatedBytes, closeFd, createMemfd, MappedFile, punchHole } from '../host/index.js';

/**
 * Marks what {@link createMemoryRegion} made. It exists for the compiler only: an object that looks like a region does
 * not pass for one, because it has no file that a guest could map.
 */
declare const BACKED: unique symbol;

/**
 * A function's own memory (VRAM, HBM, SRAM), backed by a sparse memfd that QEMU maps into the guest. Pages cost nothing
 * until touched; a large zero fill gives them back. Offsets out of range throw RangeError.
 */
export interface MemoryRegion {
  readonly [BACKED]: true;
  readonly name: string;
  readonly sizeBytes: number;
  read(offset: number, target: Uint8Array): void;
  write(offset: number, source: Uint8Array): void;
  /** Fills with one byte. Whole pages of a zero fill are punched out of the file. */
  fill(offset: number, value: number, lengthBytes: number): void;
  /** Copies inside this region; overlapping ranges behave like memmove. */
  copy(destination: number, source: number, lengthBytes: number): void;
  /**
   * Calls `visit` with views of the memory itself, in order, covering the range. Views are valid during the call only.
   */
  forEachSpan(offset: number, lengthBytes: number, visit: (bytes: Uint8Array, offsetInRange: number) => void): void;
  readU32(offset: number): number;
  readU64(offset: number): bigint;
  writeU32(offset: number, value: number): void;
  writeU64(offset: number, value: bigint): void;
  /** Bytes of host memory that the region really occupies. */
  allocatedBytes(): number;
}

/** A region with the means to share it; `fd` stays owned by the region. */
export interface BackedMemoryRegion extends MemoryRegion {
  readonly fd: number;
  /** Releases memory and descriptor; any use afterwards throws. Doing it twice is harmless. */
  close(): void;
}

/** A hole can only be punched in whole pages. */
const PAGE_BYTES = 4096;
/** Below this a store loop is cheaper than a system call plus the page faults that follow it. */
const PUNCH_THRESHOLD_BYTES = 64 * 1024;
/** Overlapping copies towards higher offsets go backwards through a buffer of this size. */
const BACKWARD_CHUNK_BYTES = 1024 * 1024;

/** A zero-filled region of `sizeBytes`. @throws RangeError for a bad size, SystemError when the memfd cannot be made */
export function createMemoryRegion(name: string, sizeBytes: number): BackedMemoryRegion {
  return new MemfdRegion(name, sizeBytes);
}

/** `memory` with its file. @throws Error that says `where` it is, when {@link createMemoryRegion} did not make it */
export function requireBacked(memory: MemoryRegion, where: string): BackedMemoryRegion {
  if (MemfdRegion.isOne(memory)) return memory;
  const name = (memory as MemoryRegion | undefined)?.name;
  throw new Error(
    `${where} is ${JSON.stringify(name)}, which context.createMemory did not make; only memory that it made has a file ` +
      'to share with a guest',
  );
}

class MemfdRegion implements BackedMemoryRegion {
  declare readonly [BACKED]: true;
  readonly name: string;
  readonly sizeBytes: number;
  readonly fd: number;
  readonly #file: MappedFile;
  #closed = false;

  constructor(name: string, sizeBytes: number) {
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.fd = createMemfd(name, sizeBytes);
    try {
      this.#file = new MappedFile(this.fd, sizeBytes, { writable: true });
    } catch (error) {
      closeFd(this.fd);
      throw error;
    }
  }

  /** Nobody else can make an object with this private field. */
  static isOne(memory: MemoryRegion): memory is MemfdRegion {
    return typeof memory === 'object' && memory !== null && #file in memory;
  }

  read(offset: number, target: Uint8Array): void {
    this.#file.read(offset, target);
  }

  write(offset: number, source: Uint8Array): void {
    this.#file.write(offset, source);
  }

  fill(offset: number, value: number, lengthBytes: number): void {
    this.#requireRange('fill', offset, lengthBytes);
    const firstPage = Math.ceil(offset / PAGE_BYTES) * PAGE_BYTES;
    const pastPages = Math.floor((offset + lengthBytes) / PAGE_BYTES) * PAGE_BYTES;
    if ((value & 0xff) !== 0 || pastPages - firstPage < PUNCH_THRESHOLD_BYTES) {
      this.#store(offset, value, lengthBytes);
      return;
    }
    this.#store(offset, 0, firstPage - offset);
    punchHole(this.fd, firstPage, pastPages - firstPage);
    this.#store(pastPages, 0, offset + lengthBytes - pastPages);
  }

  copy(destination: number, source: number, lengthBytes: number): void {
    this.#requireRange('copy to', destination, lengthBytes);
    this.#requireRange('copy from', source, lengthBytes);
    if (destination > source && destination < source + lengthBytes) {
      this.#copyBackwards(destination, source, lengthBytes);
      return;
    }
    // Each piece is written below every source byte that is still to be read, or away from all of them.
    this.#file.forEachSpan(source, lengthBytes, (bytes, at) => this.#file.write(destination + at, bytes));
  }

  forEachSpan(offset: number, lengthBytes: number, visit: (bytes: Uint8Array, offsetInRange: number) => void): void {
    this.#file.forEachSpan(offset, lengthBytes, visit);
  }

  readU32(offset: number): number {
    return this.#file.readU32(offset);
  }

  readU64(offset: number): bigint {
    return this.#file.readU64(offset);
  }

  writeU32(offset: number, value: number): void {
    this.#file.writeU32(offset, value);
  }

  writeU64(offset: number, value: bigint): void {
    this.#file.writeU64(offset, value);
  }

  allocatedBytes(): number {
    return allocatedBytes(this.fd);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#file.close();
    closeFd(this.fd);
  }

  #store(offset: number, value: number, lengthBytes: number): void {
    this.#file.forEachSpan(offset, lengthBytes, (bytes) => bytes.fill(value));
  }

  #copyBackwards(destination: number, source: number, lengthBytes: number): void {
    const buffer = new Uint8Array(Math.min(lengthBytes, BACKWARD_CHUNK_BYTES));
    for (let left = lengthBytes; left > 0; ) {
      const chunk = buffer.subarray(0, Math.min(left, buffer.length));
      left -= chunk.length;
      this.#file.read(source + left, chunk);
      this.#file.write(destination + left, chunk);
    }
  }

  #requireRange(action: string, offset: number, lengthBytes: number): void {
    const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(lengthBytes) && offset >= 0 && lengthBytes >= 0;
    if (!valid || offset + lengthBytes > this.sizeBytes) {
      throw new RangeError(
        `${action} ${lengthBytes} bytes at offset ${offset} of memory ${this.name}, which has ${this.sizeBytes} bytes`,
      );
    }
  }
}
