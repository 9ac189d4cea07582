/** What an engine does to memory through page tables: reads, writes, fills and copies, and the faults of those. */
import { type Dma, DmaError, type MemoryRegion } from 'ghostbus';
import { type AccessKind, type Extent, nothing, PageTables, type TranslationSource } from './page-tables.js';

/** An access that failed, for whoever reports it. */
export interface VmFault {
  readonly vmid: number;
  readonly address: number;
  /** How much of the access is affected, from `address` on. */
  readonly lengthBytes: number;
  readonly kind: AccessKind;
  /** No valid page; a page whose flags forbid it; a request that the bus refused. */
  readonly cause: 'invalid' | 'permission' | 'bus';
  readonly reason: string;
  /** Which client of the hub asked (VM_L2_PROTECTION_FAULT_STATUS CID). */
  readonly client: number;
}

/** What a space needs of its GPU. */
interface SpaceSource extends TranslationSource {
  /** An access found no page, may not use it, or the bus refused it. The access itself goes on as read-zero or drop. */
  readonly fault: (fault: VmFault) => void;
}

/** Times a byte: a dword of nothing else. */
const EACH_BYTE = 0x0101_0101;
/** What a fill writes at once. */
const PATTERN_BYTES = 64 * 1024;

/** One VMID's view of memory through one hub, as one of the hub's clients has it. */
export class AddressSpace {
  readonly vmid: number;
  readonly #client: number;
  readonly #source: SpaceSource;
  readonly #tables: PageTables;

  constructor(vmid: number, source: SpaceSource, client = 0) {
    this.vmid = vmid;
    this.#client = client;
    this.#source = source;
    this.#tables = new PageTables(vmid, source);
  }

  /** See {@link PageTables.translate}. */
  translate(address: number, lengthBytes: number): Extent {
    return this.#tables.translate(address, lengthBytes);
  }

  /** See {@link PageTables.extent}. */
  extent(address: number, lengthBytes: number): Extent {
    return this.#tables.extent(address, lengthBytes);
  }

  /** Walks a range stretch by stretch. A bus error in one stretch is reported as a fault; the rest goes on. */
  #forEach(
    address: number,
    lengthBytes: number,
    kind: AccessKind,
    visit: (extent: Extent, done: number) => void,
  ): void {
    for (let done = 0; done < lengthBytes; ) {
      const extent = this.extent(address + done, lengthBytes - done);
      this.#guard(address + done, kind, extent, () => visit(extent, done));
      done += extent.lengthBytes;
    }
  }

  /** Runs one access; turns a missing page, a forbidden one or a refused DMA request into a reported fault. */
  #guard(address: number, kind: AccessKind, extent: Extent, access: () => void): boolean {
    const fault = (cause: VmFault['cause'], reason: string) => {
      const { vmid } = this;
      const { lengthBytes } = extent;
      this.#source.fault({ vmid, address, lengthBytes, kind, cause, reason, client: this.#client });
      return false;
    };
    if (extent.target === 'none') return fault('invalid', 'no valid page');
    if (extent.forbids === kind || extent.forbids === 'both') return fault('permission', `the page forbids to ${kind}`);
    try {
      access();
      return true;
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      return fault('bus', error.message);
    }
  }

  /** Reads; what no page backs reads as zero. */
  read(address: number, target: Uint8Array): void {
    target.fill(0);
    this.#forEach(address, target.length, 'read', (extent, done) => {
      const piece = target.subarray(done, done + extent.lengthBytes);
      if (isLocal(extent)) this.#local(extent, 'read', piece.length).read(extent.address, piece);
      else if (extent.target === 'bus') this.#source.dma.read(extent.address, piece);
    });
  }

  /** Writes; what no page backs is dropped. */
  write(address: number, source: Uint8Array): void {
    this.#forEach(address, source.length, 'write', (extent, done) => {
      const piece = source.subarray(done, done + extent.lengthBytes);
      if (isLocal(extent)) this.#local(extent, 'write', piece.length).write(extent.address, piece);
      else if (extent.target === 'bus') this.#source.dma.write(extent.address, piece);
    });
  }

  /** The VRAM, of whichever node, that an access of `lengthBytes` goes to. */
  #local({ node }: Extent, kind: AccessKind, lengthBytes: number): MemoryRegion {
    this.#source.frameBuffer.count(node, kind, lengthBytes);
    return this.#source.frameBuffer.memoryOf(node);
  }

  readU32(address: number): number {
    const bytes = new Uint8Array(4);
    this.read(address, bytes);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  readU64(address: number): bigint {
    const bytes = new Uint8Array(8);
    this.read(address, bytes);
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }

  writeU32(address: number, value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value >>> 0, true);
    this.write(address, bytes);
  }

  writeU64(address: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
    this.write(address, bytes);
  }

  /** Fills with a repeated 32-bit value; the first byte written is its lowest, also at an odd length. */
  fill(address: number, value: number, lengthBytes: number): void {
    const byte = value & 0xff;
    const uniform = value >>> 0 === byte * EACH_BYTE;
    this.#forEach(address, lengthBytes, 'write', (extent, done) => {
      if (extent.target === 'prt') return;
      if (uniform && isLocal(extent)) {
        this.#local(extent, 'write', extent.lengthBytes).fill(extent.address, byte, extent.lengthBytes);
      } else if (uniform) this.#source.dma.fill(extent.address, byte, extent.lengthBytes);
      else this.#fillPattern(extent, value, done);
    });
  }

  #fillPattern(extent: Extent, value: number, phase: number): void {
    const pattern = new Uint8Array(Math.min(extent.lengthBytes, PATTERN_BYTES));
    for (let index = 0; index < pattern.length; index++) pattern[index] = value >>> (8 * ((index + phase) & 3));
    for (let done = 0; done < extent.lengthBytes; done += pattern.length) {
      const piece = pattern.subarray(0, Math.min(pattern.length, extent.lengthBytes - done));
      if (isLocal(extent)) this.#local(extent, 'write', piece.length).write(extent.address + done, piece);
      else this.#source.dma.write(extent.address + done, piece);
    }
  }

  /**
   * Copies inside this space. Where the source has no page, zeros are written; where the destination has none, nothing.
   */
  copy(destination: number, source: number, lengthBytes: number): void {
    let from = nothing(0);
    let to = nothing(0);
    let readable = false;
    for (let done = 0; done < lengthBytes; ) {
      if (from.lengthBytes === 0) {
        from = this.extent(source + done, lengthBytes - done);
        readable = this.#guard(source + done, 'read', from, () => {});
      }
      if (to.lengthBytes === 0) to = this.extent(destination + done, lengthBytes - done);
      const length = Math.min(from.lengthBytes, to.lengthBytes);
      const [target, origin] = [to, readable ? from : undefined];
      this.#guard(destination + done, 'write', to, () => this.#move(target, origin, length));
      consume(from, length);
      consume(to, length);
      done += length;
    }
  }

  #move(to: Extent, from: Extent | undefined, length: number): void {
    const { dma } = this.#source;
    if (to.target === 'prt') return;
    const target = isLocal(to) ? this.#local(to, 'write', length) : undefined;
    if (from === undefined || from.target === 'prt') {
      if (target) target.fill(to.address, 0, length);
      else dma.fill(to.address, 0, length);
      return;
    }
    const origin = isLocal(from) ? this.#local(from, 'read', length) : undefined;
    if (target && origin) copyBetween(target, to.address, origin, from.address, length);
    else if (target) dma.readInto(from.address, target, to.address, length);
    else if (origin) dma.writeFrom(to.address, origin, from.address, length);
    else copyOnBus(dma, to.address, from.address, length);
  }
}

/** In somebody's VRAM: reached without the bus. */
function isLocal({ target }: Extent): boolean {
  return target === 'vram' || target === 'hive';
}

function copyBetween(target: MemoryRegion, to: number, origin: MemoryRegion, from: number, length: number): void {
  if (target === origin) target.copy(to, from, length);
  else origin.forEachSpan(from, length, (bytes, at) => target.write(to + at, bytes));
}

/** Ranges of one bus copy must not overlap; overlapping ones go through a buffer. */
function copyOnBus(dma: Dma, to: number, from: number, length: number): void {
  if (Math.abs(to - from) >= length) {
    dma.copy(to, from, length);
    return;
  }
  const bytes = new Uint8Array(length);
  dma.read(from, bytes);
  dma.write(to, bytes);
}

/** Drops the first bytes of a stretch. */
function consume(extent: Extent, lengthBytes: number): void {
  extent.lengthBytes -= lengthBytes;
  extent.address += lengthBytes;
}
