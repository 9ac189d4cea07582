/** What one client has given one function to reach by DMA: the table of its DMA_MAPs. */
import { closeFd, ERRNO, type FileIdentity, fileIdentity, type MappedFile, SystemError } from '../host/index.js';
import { type SharedFile, SharedFiles } from './shared-files.js';

/**
 * QEMU does not keep to the `max_dma_maps` (65535) of the version reply (vfio-user.md §1.6), and a vIOMMU makes one
 * map per 4 KiB page; this many pages are 1 GiB in flight.
 */
const DEFAULT_MAP_LIMIT = 262_144;
/** libvfio-user lib/dma.h MAX_DMA_SIZE: 8 TiB. */
const MAX_MAP_BYTES = 8 * 2 ** 40;
/** Maps with a file are whole pages (`pgsizes` of the version reply). */
const PAGE_BYTES = 4096;

/** A client offers a range of bus addresses, with or without a file behind it. */
export interface DmaMapRequest {
  readonly address: number;
  readonly sizeBytes: number;
  /** From the device's point of view. */
  readonly readable: boolean;
  readonly writable: boolean;
  /** Offset of the range inside the file. */
  readonly offset: number;
}

/**
 * One DMA_MAP with a file: `address` + n is byte `memoryOffset` + n of `memory`, from `start` up
 * to, not including, `end`.
 */
export interface MemoryMap {
  readonly kind: 'guest-memory';
  readonly start: number;
  readonly end: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly memory: MappedFile;
  readonly memoryOffset: number;
  readonly file: SharedFile;
}

/** One DMA_MAP without a file: reachable by DMA messages only. */
export interface MessageMap {
  readonly kind: 'messages';
  readonly start: number;
  readonly end: number;
  readonly readable: boolean;
  readonly writable: boolean;
}

export type DmaMap = MemoryMap | MessageMap;

export interface DmaSpaceOptions {
  /** More maps than this are refused. Default {@link DEFAULT_MAP_LIMIT}. */
  readonly mapLimit?: number;
  /** A file whose owner could shrink it has been mapped; doing so would end this process by SIGBUS. */
  readonly onShrinkableFile?: (identity: FileIdentity) => void;
}

/** A map grants exactly its own range with its own protection, whatever else of the same file is mapped. */
export class DmaSpace {
  readonly #maps: DmaMap[] = [];
  readonly #files: SharedFiles;
  readonly #mapLimit: number;
  readonly #keyListeners = new Set<() => void>();
  #last: DmaMap | undefined;
  #guestMemory: FileIdentity | undefined;

  constructor({ mapLimit = DEFAULT_MAP_LIMIT, onShrinkableFile = () => {} }: DmaSpaceOptions = {}) {
    this.#mapLimit = mapLimit;
    this.#files = new SharedFiles(onShrinkableFile);
  }

  get mapCount(): number {
    return this.#maps.length;
  }

  /**
   * Identity ("dev:ino") of the largest file mapped since the client connected; functions with the same one belong to
   * the same virtual machine. It outlives unmapping, because a translating vIOMMU unmaps all RAM of a function and maps
   * pages of it later; {@link close} forgets it. Undefined until a map comes with a file.
   */
  get guestMemoryKey(): string | undefined {
    return this.#guestMemory?.key;
  }

  /**
   * Whether the client shows guest memory as it lies, its first byte at address 0, as QEMU does for a function whose
   * requests no IOMMU translates. No translated space looks like that: Linux hands the first page to nobody
   * (arch/x86/kernel/setup.c reserves it), so whatever is mapped at IOVA 0 is another one.
   */
  get isUntranslated(): boolean {
    const first = this.#maps[0];
    return first !== undefined && first.start === 0 && first.kind === 'guest-memory' && first.memoryOffset === 0;
  }

  /** Calls `listener` whenever {@link guestMemoryKey} changed. Returns the end of it. */
  onGuestMemoryChange(listener: () => void): () => void {
    this.#keyListeners.add(listener);
    return () => this.#keyListeners.delete(listener);
  }

  /**
   * Adds a map and takes ownership of `fd`. Mapping again what is mapped already, with the same file, offset and
   * protection, changes nothing.
   * @throws SystemError EINVAL for a bad range, an overlap, one map too many or a file that is too short; ENOSPC for
   *   more than 8 TiB; mmap's own errors. The table is unchanged then.
   */
  map(request: DmaMapRequest, fd: number | undefined): void {
    try {
      this.#insert(request, fd);
    } finally {
      if (fd !== undefined) closeFd(fd);
    }
  }

  /**
   * Removes every map inside [address, address + sizeBytes), as VFIO's type 1 does (linux/vfio.h VFIO_IOMMU_UNMAP_DMA):
   * a vIOMMU's page tables fill page by page and are invalidated by large ranges.
   * @throws SystemError ENOENT when no map is in the range, or one reaches beyond it; nothing is removed then
   */
  unmap(address: number, sizeBytes: number): void {
    const end = address + sizeBytes;
    const below = this.#indexAtOrBelow(address);
    const first = this.#maps[below]?.start === address ? below : below + 1;
    const last = this.#indexAtOrBelow(end - 1);
    const cut = (this.#maps[first - 1]?.end ?? 0) > address || (this.#maps[last]?.end ?? 0) > end;
    if (last < first || cut) {
      const reason = cut ? 'a map reaches beyond it' : 'no map is in this range';
      throw new SystemError(`unmapping DMA ${rangeText(address, sizeBytes)}`, ERRNO.ENOENT, reason);
    }
    this.#last = undefined;
    for (const map of this.#maps.splice(first, last - first + 1)) {
      if (map.kind === 'guest-memory') this.#files.release(map.file);
    }
  }

  unmapAll(): void {
    const maps = this.#maps.splice(0);
    this.#last = undefined;
    for (const map of maps) if (map.kind === 'guest-memory') this.#files.release(map.file);
    this.#files.closeIdle();
  }

  /** The client is gone: nothing stays mapped and the next client may be another machine. */
  close(): void {
    this.unmapAll();
    this.#setGuestMemory(undefined);
  }

  /** The map that contains `address`. Use it at once: an unmap invalidates it. */
  lookup(address: number): DmaMap | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.start && address < last.end) return last;
    const map = this.#maps[this.#indexAtOrBelow(address)];
    if (map === undefined || !(address < map.end)) return undefined;
    this.#last = map;
    return map;
  }

  #insert(request: DmaMapRequest, fd: number | undefined): void {
    checkRange(request, fd !== undefined);
    const { address, sizeBytes } = request;
    const identity = fd === undefined ? undefined : fileIdentity(fd);
    const below = this.#indexAtOrBelow(address);
    const neighbour = this.#maps[below];
    if (neighbour !== undefined && isSameMap(neighbour, request, identity)) return;
    const next = this.#maps[below + 1];
    if (
      (neighbour !== undefined && neighbour.end > address) ||
      (next !== undefined && next.start < address + sizeBytes)
    ) {
      throw refusal(request, 'it overlaps another map; unmap that first');
    }
    if (this.#maps.length >= this.#mapLimit) throw refusal(request, `the limit is ${this.#mapLimit} maps`);
    this.#maps.splice(below + 1, 0, this.#makeMap(request, fd, identity));
    if (identity !== undefined && identity.sizeBytes > (this.#guestMemory?.sizeBytes ?? 0)) {
      this.#setGuestMemory(identity);
    }
  }

  #makeMap(request: DmaMapRequest, fd: number | undefined, identity: FileIdentity | undefined): DmaMap {
    const { address: start, readable, writable, offset } = request;
    const end = start + request.sizeBytes;
    if (fd === undefined || identity === undefined) return { kind: 'messages', start, end, readable, writable };
    const file = this.#files.acquire(fd, identity, offset, request.sizeBytes, writable);
    return { kind: 'guest-memory', start, end, readable, writable, memory: file.memory, memoryOffset: offset, file };
  }

  #setGuestMemory(identity: FileIdentity | undefined): void {
    const changed = identity?.key !== this.#guestMemory?.key;
    this.#guestMemory = identity;
    if (changed) for (const listener of this.#keyListeners) listener();
  }

  /** Index of the last map that starts at or below `address`; -1 when there is none. */
  #indexAtOrBelow(address: number): number {
    let low = 0;
    let high = this.#maps.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#maps[middle]!.start <= address) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

function isSameMap(map: DmaMap, request: DmaMapRequest, identity: FileIdentity | undefined): boolean {
  const sameFile =
    map.kind === 'guest-memory'
      ? map.file.key === identity?.key && map.memoryOffset === request.offset
      : identity === undefined;
  return (
    sameFile &&
    map.start === request.address &&
    map.end === request.address + request.sizeBytes &&
    map.readable === request.readable &&
    map.writable === request.writable
  );
}

function checkRange(request: DmaMapRequest, hasFile: boolean): void {
  const { address, sizeBytes, offset } = request;
  if (sizeBytes > MAX_MAP_BYTES) {
    throw new SystemError(`mapping DMA ${rangeText(address, sizeBytes)}`, ERRNO.ENOSPC, 'a map has at most 8 TiB');
  }
  const exact = [address, sizeBytes, offset, address + sizeBytes, offset + sizeBytes].every(Number.isSafeInteger);
  if (!exact || address < 0 || sizeBytes <= 0 || offset < 0) throw refusal(request, 'the range is not valid');
  if (hasFile && (address % PAGE_BYTES !== 0 || sizeBytes % PAGE_BYTES !== 0 || offset % PAGE_BYTES !== 0)) {
    throw refusal(request, `address, size and offset of a map with a file are multiples of ${PAGE_BYTES}`);
  }
}

function refusal(request: DmaMapRequest, reason: string): SystemError {
  const operation = `mapping DMA ${rangeText(request.address, request.sizeBytes)} at file offset ${request.offset}`;
  return new SystemError(operation, ERRNO.EINVAL, reason);
}

function rangeText(address: number, sizeBytes: number): string {
  return `[0x${address.toString(16)}, 0x${(address + sizeBytes).toString(16)})`;
}
