/**
 * The GPU's page tables: where a virtual address lies. Pure of registers: a {@link TranslationContext} says how one
 * VMID translates, `hub.ts` fills it from the hub's registers.
 *
 * Nothing is cached beyond one call: the driver rewrites page tables by CPU, by SDMA and through peers at any time.
 */
import { type Dma, DmaError, type MemoryRegion } from 'ghostbus';
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
 * Where a piece of a virtual range lies. `hive`: in the VRAM of another node of the hive. `none`: nothing there; `prt`:
 * reads zero and swallows writes by design.
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

/** What a walk needs of its GPU. */
export interface TranslationSource {
  readonly dma: Dma;
  readonly frameBuffer: FrameBuffer;
  /** VMID 0's window on the frame buffer: MC address of its first byte. */
  readonly frameBufferBase: number;
  readonly context: (vmid: number) => TranslationContext;
}

const ADDRESS_SPACE = 2 ** 48;
const PAGE_BITS = 12;
const PAGE_BYTES = 2 ** PAGE_BITS;
/** A directory has 512 entries. */
const DIRECTORY_BITS = 9;
/** Page table entries looked at ahead of a walk: at first, then at once. */
const FIRST_ENTRIES = 7;
const MOST_ENTRIES = 512;

/** An entry of a table, and where the table ends. */
interface TablePlace {
  readonly table: number;
  readonly index: number;
  readonly last: number;
  readonly inSystem: boolean;
}

/** Where a walk ended in a table whose entries are pages of 4 KiB. */
interface LeafTable extends TablePlace {
  readonly entry: Entry;
}

/** The page tables of one VMID. */
export class PageTables {
  readonly #vmid: number;
  readonly #source: TranslationSource;
  /** The table of 4 KiB pages that the last walk ended in. */
  #pages: LeafTable | undefined;

  constructor(vmid: number, source: TranslationSource) {
    this.#vmid = vmid;
    this.#source = source;
  }

  /** Where `address` lies, and how many bytes follow it in the same leaf, at most `lengthBytes`. */
  translate(address: number, lengthBytes: number): Extent {
    this.#pages = undefined;
    const va = address % ADDRESS_SPACE;
    if (this.#vmid === 0) {
      const offset = va - this.#source.frameBufferBase;
      if (offset >= 0 && offset < this.#source.frameBuffer.sizeBytes) return this.#inFrameBuffer(offset, lengthBytes);
    }
    const context = this.#source.context(this.#vmid);
    const page = Math.floor(va / PAGE_BYTES);
    if (!context.enabled || page < context.startPage || page > context.endPage)
      return nothing(toPageEnd(va, lengthBytes));
    return context.depth === 0 ? this.#walkFlatTable(va, lengthBytes, context) : this.#walk(va, lengthBytes, context);
  }

  /** One table from the context's first page to its last: the GART. */
  #walkFlatTable(va: number, lengthBytes: number, context: TranslationContext): Extent {
    const index = Math.floor(va / PAGE_BYTES) - context.startPage;
    const last = context.endPage - context.startPage;
    const place = { table: context.tableAddress, index, last, inSystem: context.tableInSystem };
    return this.#page(place, this.#entry(place), va, lengthBytes);
  }

  /** Directories from the root down; an entry of any of them may be a leaf. */
  #walk(va: number, lengthBytes: number, context: TranslationContext): Extent {
    let table = context.tableAddress;
    let inSystem = context.tableInSystem;
    let fragmentBits = 0;
    let shift = PAGE_BITS + context.blockBits + DIRECTORY_BITS * (context.depth - 1);
    for (let level = 0; level < context.depth; level++, shift -= DIRECTORY_BITS) {
      const entry = this.#entry({ table, index: Math.floor(va / 2 ** shift) % 2 ** DIRECTORY_BITS, inSystem });
      if (!isValid(entry)) return unmapped(entry, toPageEnd(va, lengthBytes));
      if ((entry.high & ENTRY.HIGH_LEAF) !== 0) return this.#leaf(entry, va, shift, lengthBytes);
      table = tableAddress(entry);
      inSystem = (entry.low & ENTRY.SYSTEM) !== 0;
      // BFS, bits 63:59: granularity of the entries one level below (gmc_v9_0_get_vm_pde sets 9 at PDB1).
      fragmentBits = Math.min(entry.high >>> 27, context.blockBits);
    }
    const last = 2 ** (context.blockBits - fragmentBits) - 1;
    const index = Math.floor(va / 2 ** (PAGE_BITS + fragmentBits)) % (last + 1);
    return this.#block({ table, index, last, inSystem }, fragmentBits, va, lengthBytes);
  }

  /** An entry of the last table of a walk: a page, a block of 2^`fragmentBits` of them, or a table for that block. */
  #block(place: TablePlace, fragmentBits: number, va: number, lengthBytes: number): Extent {
    const entry = this.#entry(place);
    if (fragmentBits === 0) return this.#page(place, entry, va, lengthBytes);
    if (entry === undefined || !isFurther(entry)) {
      if (!isValid(entry)) return unmapped(entry, toPageEnd(va, lengthBytes));
      return this.#leaf(entry, va, PAGE_BITS + fragmentBits, lengthBytes);
    }
    const pages = 2 ** fragmentBits;
    const index = Math.floor(va / PAGE_BYTES) % pages;
    const inSystem = (entry.low & ENTRY.SYSTEM) !== 0;
    const further = { table: tableAddress(entry), index, last: pages - 1, inSystem };
    return this.#page(further, this.#entry(further), va, lengthBytes);
  }

  /** A page of 4 KiB, whose neighbours in the table {@link extent} looks at. */
  #page(place: TablePlace, entry: Entry | undefined, va: number, lengthBytes: number): Extent {
    if (!isValid(entry)) return unmapped(entry, toPageEnd(va, lengthBytes));
    this.#pages = { ...place, entry };
    return this.#leaf(entry, va, PAGE_BITS, lengthBytes);
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

  #entry({ table, index, inSystem }: Omit<TablePlace, 'last'>): Entry | undefined {
    const address = table + index * 8;
    try {
      if (!inSystem) {
        const memory = this.#tableMemory(address, 8);
        return memory && { low: memory.vram.readU32(memory.offset), high: memory.vram.readU32(memory.offset + 4) };
      }
      return { low: this.#source.dma.readU32(address), high: this.#source.dma.readU32(address + 4) };
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

  /**
   * Adds the pages that follow in the same table as long as they lie behind one another: a few reads instead of walks.
   */
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
        this.#source.dma.read(address, bytes);
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
}

function isSameKind(left: Extent, right: Extent): boolean {
  return left.target === right.target && left.node === right.node && left.forbids === right.forbids;
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

export function nothing(lengthBytes: number): Extent {
  return { target: 'none', address: 0, lengthBytes };
}

function toPageEnd(va: number, lengthBytes: number): number {
  return Math.min(lengthBytes, PAGE_BYTES - (va % PAGE_BYTES));
}

function isValid(entry: Entry | undefined): entry is Entry {
  return entry !== undefined && (entry.low & ENTRY.VALID) !== 0;
}

function unmapped(entry: Entry | undefined, lengthBytes: number): Extent {
  const partiallyResident = entry !== undefined && (entry.high & ENTRY.HIGH_PRT) !== 0;
  return partiallyResident ? { target: 'prt', address: 0, lengthBytes } : nothing(lengthBytes);
}
