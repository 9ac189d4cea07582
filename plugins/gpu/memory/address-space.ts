/**
 * The GPU's address translation and the copies through it. Pure of registers: a {@link TranslationContext} says how one
 * VMID translates, `gmc.ts` fills it from the hub's registers.
 *
 * Nothing is cached beyond one call: the driver rewrites page tables by CPU, by SDMA and through peers at any time.
 */
import { DmaError, type FunctionPort, type MemoryRegion } from 'ghostbus';
import type { FrameBuffer } from './frame-buffer.js';

/** Page table entry bits (amdgpu_vm.h): low half and high half of the 64-bit entry. */
const ENTRY = {
  VALID: 1 << 0,
  SYSTEM: 1 << 1,
  READABLE: 1 << 5,
  WRITEABLE: 1 << 6,
  /** High half: AMDGPU_PTE_PRT, bit 51. */
  HIGH_PRT: 1 << 19,
  /** High half: AMDGPU_PDE_PTE, bit 54: this directory entry is a leaf. */
  HIGH_LEAF: 1 << 22,
  /** High half: AMDGPU_PTE_TF, bit 56: translate further. */
  HIGH_TRANSLATE_FURTHER: 1 << 24,
} as const;

export type AccessKind = 'read' | 'write';

/** What a leaf's flags make of pages whose stretches may be merged. */
const LEAF_KIND = ENTRY.VALID | ENTRY.SYSTEM | ENTRY.READABLE | ENTRY.WRITEABLE;

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

/** How one VMID's addresses become VRAM offsets and bus addresses. */
export interface TranslationContext {
  readonly enabled: boolean;
  /** Directory levels above the page table block; 0: `tableAddress` is one flat table (the GART). */
  readonly depth: number;
  /** log2 of the pages that one entry of the lowest directory covers: 9 + PAGE_TABLE_BLOCK_SIZE. */
  readonly blockBits: number;
  readonly tableAddress: number;
  readonly tableInSystem: boolean;
  /** First and last page number that translate. */
  readonly startPage: number;
  readonly endPage: number;
}

/**
 * Where a piece of a virtual range lies. `hive`: in the VRAM of another node of the hive. `none`: nothing there; `prt`: reads
 * zero and swallows writes by design.
 */
export interface Extent {
  target: 'vram' | 'hive' | 'bus' | 'prt' | 'none';
  /** Of the hive. */
  node?: number;
  /** Offset in the VRAM, or bus address. */
  address: number;
  lengthBytes: number;
  /** What the page's flags do not allow; absent: nothing is forbidden. */
  forbids?: AccessKind | 'both';
}

/** What a space needs of its GPU. */
export interface TranslationSource {
  readonly port: FunctionPort;
  readonly frameBuffer: FrameBuffer;
  /** VMID 0's window on the frame buffer: MC address of its first byte. */
  readonly frameBufferBase: () => number;
  readonly context: (vmid: number) => TranslationContext;
  /** An access found no page, may not use it, or the bus refused it. The access itself goes on as read-zero or drop. */
  readonly fault: (fault: VmFault) => void;
}

const ADDRESS_SPACE = 2 ** 48;
const PAGE_BYTES = 4096;
const PATTERN_BYTES = 64 * 1024;
/** Page table entries looked at ahead of a walk: at first, then at once. */
const FIRST_ENTRIES = 7;
const MOST_ENTRIES = 512;

/** A table whose entries are 4 KiB pages, and where in it a walk ended. */
interface LeafTable {
  readonly table: number;
  readonly index: number;
  readonly last: number;
  readonly inSystem: boolean;
  readonly entry: Entry;
}

/** One VMID's view of memory through one hub, as one of the hub's clients has it. */
export class AddressSpace {
  readonly vmid: number;
  readonly #client: number;
  readonly #source: TranslationSource;
  /** The table of 4 KiB pages that the last walk ended in. */
  #pages: LeafTable | undefined;

  constructor(vmid: number, source: TranslationSource, client = 0) {
    this.vmid = vmid;
    this.#client = client;
    this.#source = source;
  }

  /** Where `address` lies, and how many bytes follow it in the same leaf, at most `lengthBytes`. */
  translate(address: number, lengthBytes: number): Extent {
    const va = address % ADDRESS_SPACE;
    if (this.vmid === 0) {
      const offset = va - this.#source.frameBufferBase();
      if (offset >= 0 && offset < this.#source.frameBuffer.sizeBytes) return this.#inFrameBuffer(offset, lengthBytes);
    }
    return this.#walk(va, lengthBytes, this.#source.context(this.vmid));
  }

  #walk(va: number, lengthBytes: number, context: TranslationContext): Extent {
    this.#pages = undefined;
    const page = Math.floor(va / PAGE_BYTES);
    const toPageEnd = Math.min(lengthBytes, PAGE_BYTES - (va % PAGE_BYTES));
    if (!context.enabled || page < context.startPage || page > context.endPage) return nothing(toPageEnd);
    let table = context.tableAddress;
    let inSystem = context.tableInSystem;
    let fragmentBits = 0;
    let shift = 12 + context.blockBits + 9 * (context.depth - 1);
    for (let level = 0; level < context.depth; level++, shift -= 9) {
      const entry = this.#entry(table, Math.floor(va / 2 ** shift) % 512, inSystem);
      if (entry === undefined || (entry.low & ENTRY.VALID) === 0) return unmapped(entry, toPageEnd);
      if ((entry.high & ENTRY.HIGH_LEAF) !== 0) return this.#leaf(entry, va, shift, lengthBytes);
      table = tableAddress(entry);
      inSystem = (entry.low & ENTRY.SYSTEM) !== 0;
      // BFS, bits 63:59: granularity of the entries one level below (gmc_v9_0_get_vm_pde sets 9 at PDB1).
      fragmentBits = Math.min(entry.high >>> 27, context.blockBits);
    }
    shift = 12 + fragmentBits;
    const index =
      context.depth === 0
        ? page - context.startPage
        : Math.floor(va / 2 ** shift) % 2 ** (context.blockBits - fragmentBits);
    let entry = this.#entry(table, index, inSystem);
    const last =
      context.depth === 0 ? context.endPage - context.startPage : 2 ** (context.blockBits - fragmentBits) - 1;
    let leafTable = { table, index, last, inSystem };
    if (entry !== undefined && fragmentBits > 0 && isFurther(entry)) {
      const further = { table: tableAddress(entry), index: page % 2 ** fragmentBits };
      leafTable = { ...further, last: 2 ** fragmentBits - 1, inSystem: (entry.low & ENTRY.SYSTEM) !== 0 };
      entry = this.#entry(leafTable.table, leafTable.index, leafTable.inSystem);
      shift = 12;
    }
    if (entry === undefined || (entry.low & ENTRY.VALID) === 0) return unmapped(entry, toPageEnd);
    if (shift === 12) this.#pages = { ...leafTable, entry };
    return this.#leaf(entry, va, shift, lengthBytes);
  }

  /** The leaf's address is a base to add to: large pages of a buffer need not be aligned to their size. */
  #leaf(entry: Entry, va: number, shift: number, lengthBytes: number): Extent {
    const size = 2 ** shift;
    const inside = va % size;
    const address = pageAddress(entry) + inside;
    const length = Math.min(lengthBytes, size - inside);
    if ((entry.low & ENTRY.SYSTEM) !== 0) return restricted(entry, { target: 'bus', address, lengthBytes: length });
    return restricted(entry, this.#inFrameBuffer(address, length));
  }

  #inFrameBuffer(address: number, lengthBytes: number): Extent {
    const place = this.#source.frameBuffer.locate(address);
    if (place === undefined) return nothing(lengthBytes);
    const extent = { address: place.offset, lengthBytes: Math.min(lengthBytes, place.available) };
    return place.node === undefined ? { target: 'vram', ...extent } : { target: 'hive', node: place.node, ...extent };
  }

  #entry(table: number, index: number, inSystem: boolean): Entry | undefined {
    const address = table + index * 8;
    try {
      if (!inSystem) {
        const memory = this.#tableMemory(address, 8);
        return memory && { low: memory.vram.readU32(memory.offset), high: memory.vram.readU32(memory.offset + 4) };
      }
      return { low: this.#source.port.dma.readU32(address), high: this.#source.port.dma.readU32(address + 4) };
    } catch (error) {
      if (error instanceof DmaError) return undefined;
      throw error;
    }
  }

  /** Page tables lie in this GPU's own VRAM, or in system memory. */
  #tableMemory(address: number, lengthBytes: number): { vram: MemoryRegion; offset: number } | undefined {
    const place = this.#source.frameBuffer.locate(address);
    const own = place !== undefined && place.node === undefined && place.available >= lengthBytes;
    return own ? { vram: this.#source.frameBuffer.vram, offset: place.offset } : undefined;
  }

  /** The longest stretch from `address` that is contiguous where it lies: adjacent pages come as one. */
  extent(address: number, lengthBytes: number): Extent {
    const first = this.translate(address, lengthBytes);
    this.#extendByPages(first, lengthBytes);
    while (first.lengthBytes < lengthBytes) {
      const next = this.translate(address + first.lengthBytes, lengthBytes - first.lengthBytes);
      const adjacent = next.address === first.address + first.lengthBytes || first.target === 'none';
      if (!adjacent || !isSameKind(first, next)) break;
      first.lengthBytes += next.lengthBytes;
      this.#extendByPages(first, lengthBytes);
    }
    return first;
  }

  /** Adds the pages that follow in the same table as long as they lie behind one another: a few reads instead of walks. */
  #extendByPages(extent: Extent, lengthBytes: number): void {
    const pages = this.#pages;
    this.#pages = undefined;
    if (pages === undefined) return;
    const wanted = Math.ceil((lengthBytes - extent.lengthBytes) / PAGE_BYTES);
    const available = Math.min(pages.last - pages.index, wanted);
    // Scattered pages end it in the first few entries, long runs deserve long reads.
    for (let done = 0, count = FIRST_ENTRIES; done < available; done += count, count = MOST_ENTRIES) {
      count = Math.min(count, available - done);
      const following = this.#following(pages, done, count);
      extent.lengthBytes = Math.min(lengthBytes, extent.lengthBytes + following * PAGE_BYTES);
      if (following < count) return;
    }
  }

  /** How many of `count` entries, `done` after the one where the walk ended, lie behind one another. */
  #following(pages: LeafTable, done: number, count: number): number {
    const entries = this.#entries(pages, done, count);
    const kind = pages.entry.low & LEAF_KIND;
    const first = pageAddress(pages.entry);
    const available = this.#source.frameBuffer.locate(first)?.available ?? 0;
    const end = (kind & ENTRY.SYSTEM) === 0 ? first + available : ADDRESS_SPACE;
    let next = first + done * PAGE_BYTES;
    for (let index = 0; index < entries.length; index += 2) {
      const [low, high] = [entries[index]!, entries[index + 1]!];
      next += PAGE_BYTES;
      const same = (low & LEAF_KIND) === kind && pageAddress({ low, high }) === next;
      if (!same || next + PAGE_BYTES > end) return index / 2;
    }
    return entries.length / 2;
  }

  /** Entries after the one where the walk ended, as pairs of dwords; none if they cannot be read. */
  #entries({ table, index, inSystem }: LeafTable, done: number, count: number): Uint32Array {
    const entries = new Uint32Array(2 * count);
    const bytes = new Uint8Array(entries.buffer);
    const address = table + (index + 1 + done) * 8;
    try {
      if (inSystem) {
        this.#source.port.dma.read(address, bytes);
        return entries;
      }
      const memory = this.#tableMemory(address, bytes.length);
      if (memory === undefined) return new Uint32Array(0);
      memory.vram.read(memory.offset, bytes);
    } catch (error) {
      if (error instanceof DmaError) return new Uint32Array(0);
      throw error;
    }
    return entries;
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
      this.guard(address + done, kind, extent, () => visit(extent, done));
      done += extent.lengthBytes;
    }
  }

  /** Runs one access; turns a missing page, a forbidden one or a refused DMA request into a reported fault. */
  guard(address: number, kind: AccessKind, extent: Extent, access: () => void): boolean {
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
      else if (extent.target === 'bus') this.#source.port.dma.read(extent.address, piece);
    });
  }

  /** Writes; what no page backs is dropped. */
  write(address: number, source: Uint8Array): void {
    this.#forEach(address, source.length, 'write', (extent, done) => {
      const piece = source.subarray(done, done + extent.lengthBytes);
      if (isLocal(extent)) this.#local(extent, 'write', piece.length).write(extent.address, piece);
      else if (extent.target === 'bus') this.#source.port.dma.write(extent.address, piece);
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
    const uniform = value >>> 0 === byte * 0x0101_0101;
    this.#forEach(address, lengthBytes, 'write', (extent, done) => {
      if (extent.target === 'prt') return;
      if (uniform && isLocal(extent)) {
        this.#local(extent, 'write', extent.lengthBytes).fill(extent.address, byte, extent.lengthBytes);
      } else if (uniform) this.#source.port.dma.fill(extent.address, byte, extent.lengthBytes);
      else this.#fillPattern(extent, value, done);
    });
  }

  #fillPattern(extent: Extent, value: number, phase: number): void {
    const pattern = new Uint8Array(Math.min(extent.lengthBytes, PATTERN_BYTES));
    for (let index = 0; index < pattern.length; index++) pattern[index] = value >>> (8 * ((index + phase) & 3));
    for (let done = 0; done < extent.lengthBytes; done += pattern.length) {
      const piece = pattern.subarray(0, Math.min(pattern.length, extent.lengthBytes - done));
      if (isLocal(extent)) this.#local(extent, 'write', piece.length).write(extent.address + done, piece);
      else this.#source.port.dma.write(extent.address + done, piece);
    }
  }

  /** Copies inside this space. Where the source has no page, zeros are written; where the destination has none, nothing. */
  copy(destination: number, source: number, lengthBytes: number): void {
    let from = nothing(0);
    let to = nothing(0);
    let readable = false;
    for (let done = 0; done < lengthBytes; ) {
      if (from.lengthBytes === 0) {
        from = this.extent(source + done, lengthBytes - done);
        readable = this.guard(source + done, 'read', from, () => {});
      }
      if (to.lengthBytes === 0) to = this.extent(destination + done, lengthBytes - done);
      const length = Math.min(from.lengthBytes, to.lengthBytes);
      const [target, origin] = [to, readable ? from : undefined];
      this.guard(destination + done, 'write', to, () => this.#move(target, origin, length));
      consume(from, length);
      consume(to, length);
      done += length;
    }
  }

  #move(to: Extent, from: Extent | undefined, length: number): void {
    const { port } = this.#source;
    if (to.target === 'prt') return;
    const target = isLocal(to) ? this.#local(to, 'write', length) : undefined;
    if (from === undefined || from.target === 'prt') {
      if (target) target.fill(to.address, 0, length);
      else port.dma.fill(to.address, 0, length);
      return;
    }
    const origin = isLocal(from) ? this.#local(from, 'read', length) : undefined;
    if (target && origin) copyBetween(target, to.address, origin, from.address, length);
    else if (target) port.dma.readInto(from.address, target, to.address, length);
    else if (origin) port.dma.writeFrom(to.address, origin, from.address, length);
    else copyOnBus(port, to.address, from.address, length);
  }
}

function isSameKind(left: Extent, right: Extent): boolean {
  return left.target === right.target && left.node === right.node && left.forbids === right.forbids;
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
function copyOnBus(port: FunctionPort, to: number, from: number, length: number): void {
  if (Math.abs(to - from) >= length) {
    port.dma.copy(to, from, length);
    return;
  }
  const bytes = new Uint8Array(length);
  port.dma.read(from, bytes);
  port.dma.write(to, bytes);
}

interface Entry {
  readonly low: number;
  readonly high: number;
}

function pageAddress(entry: Entry): number {
  return ((entry.low & 0xffff_f000) >>> 0) + (entry.high & 0xffff) * 2 ** 32;
}

function tableAddress(entry: Entry): number {
  return ((entry.low & 0xffff_ffc0) >>> 0) + (entry.high & 0xffff) * 2 ** 32;
}

/** A leaf's stretch with what its flags do not allow. */
function restricted(entry: Entry, extent: Extent): Extent {
  const flags = entry.low & (ENTRY.READABLE | ENTRY.WRITEABLE);
  if (flags === 0) extent.forbids = 'both';
  else if (flags === ENTRY.READABLE) extent.forbids = 'write';
  else if (flags === ENTRY.WRITEABLE) extent.forbids = 'read';
  return extent;
}

function isFurther(entry: Entry): boolean {
  return (entry.low & ENTRY.VALID) !== 0 && (entry.high & ENTRY.HIGH_TRANSLATE_FURTHER) !== 0;
}

/** Drops the first bytes of a stretch. */
function consume(extent: Extent, lengthBytes: number): void {
  extent.lengthBytes -= lengthBytes;
  extent.address += lengthBytes;
}

function nothing(lengthBytes: number): Extent {
  return { target: 'none', address: 0, lengthBytes };
}

function unmapped(entry: Entry | undefined, lengthBytes: number): Extent {
  const partiallyResident = entry !== undefined && (entry.high & ENTRY.HIGH_PRT) !== 0;
  return partiallyResident ? { target: 'prt', address: 0, lengthBytes } : nothing(lengthBytes);
}
