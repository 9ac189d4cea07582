/**
 * Shared memory: files mapped into this process.
 *
 * V8 cannot be told that mapped memory has gone: Node marks external ArrayBuffers untransferable, so they cannot be
 * detached (structuredClone with transfer copies them without a word), and a Uint8Array kept by mistake would touch
 * whatever is mapped there next. Hence two steps: `unmap()` puts private zero pages in place of the file at the same
 * addresses, so the file is released at once and a stale view reads zeros and writes to nowhere; the addresses are
 * given back when the garbage collector has taken the last view. That second step needs a turn of the event loop now
 * and then; a thread that never takes one only spends address space (of which there are 128 TiB), no memory.
 */
import { ERRNO, lastError, SystemError } from './errors.js';
import { closeFd, duplicateFd, statFd } from './fd.js';
import { mmap, munmap, viewMemory } from './libc.js';

/** include/uapi/asm-generic/mman-common.h, include/uapi/linux/mman.h */
const PROT_READ = 0x1;
const PROT_WRITE = 0x2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;

const PAGE_BYTES = 4096;

/** Largest single mapping: V8 aborts the process on far larger buffers (64 GiB seen), just under 4 GiB works. */
export const WINDOW_LIMIT_BYTES = 0x1_0000_0000 - PAGE_BYTES;

interface AddressRange {
  readonly address: number;
  readonly lengthBytes: number;
}

const abandoned = new FinalizationRegistry<AddressRange>(({ address, lengthBytes }) => {
  if (munmap(address, lengthBytes) < 0) throw lastError(`munmap of ${lengthBytes} bytes at 0x${address.toString(16)}`);
});

/** A range of a file as bytes. Made by `mapShared`. */
export class Mapping {
  /** The memory itself. After `unmap()` it reads as zero and writes to it have no effect on any file. */
  readonly bytes: Uint8Array;
  readonly lengthBytes: number;
  readonly #address: number;
  #mapped = true;

  constructor(address: number, lengthBytes: number) {
    this.#address = address;
    this.lengthBytes = lengthBytes;
    const buffer = viewMemory(address, lengthBytes);
    abandoned.register(buffer, { address, lengthBytes });
    this.bytes = new Uint8Array(buffer);
  }

  /** Lets go of the file. Doing it twice is harmless. @throws SystemError */
  unmap(): void {
    if (!this.#mapped) return;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    if (mmap(this.#address, this.lengthBytes, PROT_READ | PROT_WRITE, flags, -1, 0) === -1) {
      throw lastError(`unmapping ${this.lengthBytes} bytes at 0x${this.#address.toString(16)}`);
    }
    this.#mapped = false;
  }
}

/**
 * Maps a range of a regular file. `offsetBytes` is a multiple of the page size.
 *
 * With `writable: false` a write to `bytes` is a programming error, but one that a guest might be able to provoke, so
 * it must not end the process: such a mapping follows the file like any other, but a page written by mistake becomes a
 * private copy and the file stays as it is.
 * @throws RangeError for a bad range or more than WINDOW_LIMIT_BYTES (use MappedFile)
 * @throws SystemError ENODEV when the descriptor is not a regular file; mmap's own errors
 */
export function mapShared(
  fd: number,
  offsetBytes: number,
  lengthBytes: number,
  { writable }: { writable: boolean },
): Mapping {
  if (!Number.isSafeInteger(lengthBytes) || lengthBytes <= 0 || lengthBytes > WINDOW_LIMIT_BYTES) {
    throw new RangeError(
      `cannot map ${lengthBytes} bytes of fd ${fd} at once: 1 to ${WINDOW_LIMIT_BYTES} are possible; use MappedFile for more`,
    );
  }
  if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || offsetBytes % PAGE_BYTES !== 0) {
    throw new RangeError(`cannot map fd ${fd} at offset ${offsetBytes}: it must be a multiple of ${PAGE_BYTES}`);
  }
  requireSize(fd, offsetBytes + lengthBytes);
  const flags = writable ? MAP_SHARED : MAP_PRIVATE;
  const address = mmap(0, lengthBytes, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, offsetBytes);
  if (address === -1) throw lastError(`mapping ${lengthBytes} bytes at offset ${offsetBytes} of fd ${fd}`);
  return new Mapping(address, lengthBytes);
}

/** Memory beyond a file's end can be mapped, but touching it is SIGBUS: the end of this process. */
function requireSize(fd: number, neededBytes: number): void {
  const stat = statFd(fd);
  if (!stat.isFile())
    throw new SystemError(`mapping fd ${fd}`, ERRNO.ENODEV, 'only memfds and regular files are mapped');
  if (stat.size < BigInt(neededBytes)) {
    throw new RangeError(`cannot map fd ${fd} up to byte ${neededBytes}: the file has ${stat.size} bytes`);
  }
}

/** MappedFile maps this much at a time. */
export const WINDOW_BYTES = 0x4000_0000;

const NO_BYTES = new Uint8Array(0);
const NO_VIEW = new DataView(NO_BYTES.buffer);
const NO_WORDS = new Uint32Array(0);
const NO_LONGS = new BigUint64Array(0);

interface Window {
  readonly mapping: Mapping;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Until V8 has optimized the caller, a DataView stores byte by byte (seen torn by another thread); these do not. */
  readonly words: Uint32Array;
  readonly longs: BigUint64Array;
}

/**
 * The first `sizeBytes` bytes of a file as memory, however large: mapped 1 GiB at a time, on first use, little-endian.
 * It keeps a descriptor of its own. Every offset is checked against `sizeBytes` (RangeError with the values).
 * Naturally aligned 32-bit and 64-bit accesses are single loads and stores: a guest that polls a
 * fence sees the old value or the new.
 *
 * The file must not become shorter while it is mapped: see `sealAgainstShrinking`.
 */
export class MappedFile {
  readonly sizeBytes: number;
  readonly writable: boolean;
  readonly #fd: number;
  readonly #windows = new Map<number, Window>();
  #closed = false;
  // The window used last. `#length` is 0 when there is none, so that every quick check fails.
  #start = 0;
  #length = 0;
  #bytes: Uint8Array = NO_BYTES;
  #view: DataView = NO_VIEW;
  #words: Uint32Array = NO_WORDS;
  #longs: BigUint64Array = NO_LONGS;

  /** @throws RangeError when the file is shorter than `sizeBytes`; SystemError when it cannot be mapped */
  constructor(fd: number, sizeBytes: number, { writable }: { writable: boolean }) {
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
      throw new RangeError(`cannot map fd ${fd}: size ${sizeBytes} is not a positive whole number of bytes`);
    }
    requireSize(fd, sizeBytes);
    this.sizeBytes = sizeBytes;
    this.writable = writable;
    this.#fd = duplicateFd(fd);
  }

  /**
   * The memory from `offset` on, without a copy: `lengthMax` bytes, or fewer where a window or the file ends before.
   * Writing into a span of a read-only file is the caller's mistake, see `mapShared`.
   */
  span(offset: number, lengthMax: number): Uint8Array {
    this.#requireRange(offset, 1);
    const at = this.#select(offset);
    return this.#bytes.subarray(at, Math.min(at + lengthMax, this.#length));
  }

  /** Calls `fn` for each contiguous piece of a range, in order; `offsetInRange` counts from `offset`. */
  forEachSpan(offset: number, length: number, fn: (bytes: Uint8Array, offsetInRange: number) => void): void {
    this.#requireRange(offset, length);
    for (let done = 0; done < length; ) {
      const bytes = this.span(offset + done, length - done);
      fn(bytes, done);
      done += bytes.length;
    }
  }

  /** Fills `target` from the file. */
  read(offset: number, target: Uint8Array): void {
    this.forEachSpan(offset, target.length, (bytes, at) => target.set(bytes, at));
  }

  /** Copies `source` into the file. */
  write(offset: number, source: Uint8Array): void {
    this.#requireWritable();
    this.forEachSpan(offset, source.length, (bytes, at) => bytes.set(source.subarray(at, at + bytes.length)));
  }

  readU32(offset: number): number {
    const at = this.#locate(offset, 4);
    if (at >= 0 && at % 4 === 0) return this.#words[at / 4]!;
    return at >= 0 ? this.#view.getUint32(at, true) : this.#readAcross(offset, 4).getUint32(0, true);
  }

  writeU32(offset: number, value: number): void {
    if (!this.writable) this.#requireWritable();
    const at = this.#locate(offset, 4);
    if (at >= 0 && at % 4 === 0) {
      this.#words[at / 4] = value;
    } else if (at >= 0) {
      this.#view.setUint32(at, value, true);
    } else {
      const bytes = new DataView(new ArrayBuffer(4));
      bytes.setUint32(0, value, true);
      this.write(offset, new Uint8Array(bytes.buffer));
    }
  }

  readU64(offset: number): bigint {
    const at = this.#locate(offset, 8);
    if (at >= 0 && at % 8 === 0) return this.#longs[at / 8]!;
    return at >= 0 ? this.#view.getBigUint64(at, true) : this.#readAcross(offset, 8).getBigUint64(0, true);
  }

  writeU64(offset: number, value: bigint): void {
    if (!this.writable) this.#requireWritable();
    const at = this.#locate(offset, 8);
    if (at >= 0 && at % 8 === 0) {
      this.#longs[at / 8] = value;
    } else if (at >= 0) {
      this.#view.setBigUint64(at, value, true);
    } else {
      const bytes = new DataView(new ArrayBuffer(8));
      bytes.setBigUint64(0, value, true);
      this.write(offset, new Uint8Array(bytes.buffer));
    }
  }

  /** Releases memory and descriptor; any use afterwards throws. Spans still held read as zero. @throws SystemError */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#length = 0;
    for (const { mapping } of this.#windows.values()) mapping.unmap();
    this.#windows.clear();
    this.#bytes = NO_BYTES;
    this.#view = NO_VIEW;
    this.#words = NO_WORDS;
    this.#longs = NO_LONGS;
    closeFd(this.#fd);
  }

  /** Offset of an access in the window that is then current; -1 when it lies across two windows. */
  #locate(offset: number, length: number): number {
    const at = offset - this.#start;
    if (at >= 0 && at + length <= this.#length) return at;
    this.#requireRange(offset, length);
    const selected = this.#select(offset);
    return selected + length <= this.#length ? selected : -1;
  }

  /** Makes the window of `offset`, which must be in range, the current one; returns the offset in that window. */
  #select(offset: number): number {
    const at = offset - this.#start;
    if (at >= 0 && at < this.#length) return at;
    const index = Math.floor(offset / WINDOW_BYTES);
    const window = this.#windows.get(index) ?? this.#mapWindow(index);
    this.#start = index * WINDOW_BYTES;
    this.#length = window.bytes.length;
    this.#bytes = window.bytes;
    this.#view = window.view;
    this.#words = window.words;
    this.#longs = window.longs;
    return offset - this.#start;
  }

  #mapWindow(index: number): Window {
    const start = index * WINDOW_BYTES;
    const length = Math.min(WINDOW_BYTES, this.sizeBytes - start);
    const mapping = mapShared(this.#fd, start, length, { writable: this.writable });
    const { bytes } = mapping;
    const words = new Uint32Array(bytes.buffer, 0, Math.floor(length / 4));
    const longs = new BigUint64Array(bytes.buffer, 0, Math.floor(length / 8));
    const window = { mapping, bytes, view: new DataView(bytes.buffer), words, longs };
    this.#windows.set(index, window);
    return window;
  }

  #readAcross(offset: number, length: number): DataView {
    const bytes = new Uint8Array(length);
    this.read(offset, bytes);
    return new DataView(bytes.buffer);
  }

  #requireRange(offset: number, length: number): void {
    if (this.#closed) throw new Error('the mapped file has been closed');
    const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
    if (!valid || offset + length > this.sizeBytes) {
      throw new RangeError(
        `access of ${length} bytes at offset ${offset} is outside the ${this.sizeBytes} bytes mapped`,
      );
    }
  }

  #requireWritable(): void {
    if (!this.writable) throw new Error('the file is mapped read-only');
  }
}
