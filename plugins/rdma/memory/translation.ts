/** From a key and an address to bytes: pages, lists of other keys, keys inside keys. */
import { mkc } from '../layouts/contexts.js';
import { type Access, AccessRefused, isWrite, PageMissing, SPECIAL_KEY } from './access.js';
import type { Extent } from './keyed-memory.js';
import { ACCESS_MODE, type MemoryKey, PHYSICAL_ADDRESS_LIMIT } from './memory-key.js';

/** Keys inside keys inside keys: more than any driver makes, few enough to stop a circle. */
const MAX_DEPTH = 4;
/** Pieces that one request may fall into; a list of one-byte KLMs does not hold up the others for longer than this. */
const MAX_EXTENTS = 65_536;
/** Table entries that one translation may look at: tiny pages, or lists of empty pieces inside lists, end here. */
const MAX_STEPS = 131_072;

/** What a translation needs to know beside the key it starts with. */
export interface TranslationSource {
  /** The key with exactly this value, if it is in use. */
  find(value: number): MemoryKey | undefined;
  /** Whether bytes of the adapter's own memory were handed out as one; `barAddress` is a place in BAR 0. */
  isDeviceMemory(barAddress: bigint, lengthBytes: number): boolean;
}

/** A part of a key's range. */
interface Span {
  readonly key: MemoryKey;
  readonly address: bigint;
  readonly lengthBytes: number;
  /** How many keys lie around this one. */
  readonly depth: number;
  /** What a fault in here reports instead of the key it happens in. */
  readonly origin: { readonly key: number; readonly address: bigint } | undefined;
}

/** One request on its way through the tables. */
export class Translation {
  readonly #source: TranslationSource;
  readonly #access: Access;
  readonly #extents: Extent[];
  /** Table entries that were looked at. */
  #steps = 0;

  /** Results are appended to `extents`. */
  constructor(source: TranslationSource, access: Access, extents: Extent[]) {
    this.#source = source;
    this.#access = access;
    this.#extents = extents;
  }

  /** The whole request, by a key whose rights were checked. Throws {@link AccessRefused} or {@link PageMissing}. */
  run(key: MemoryKey): void {
    const { address, lengthBytes } = this.#access;
    this.#walk({ key, address, lengthBytes, depth: 0, origin: undefined });
  }

  /** Addresses that are physical ones. */
  runPhysical(address: bigint, lengthBytes: number): void {
    if (address + BigInt(lengthBytes) > PHYSICAL_ADDRESS_LIMIT) this.#refuse('a physical address beyond 2^52');
    this.#extents.push({ kind: 'bus', address: Number(address), lengthBytes });
  }

  #walk(span: Span): void {
    const { key, address, lengthBytes } = span;
    if (key.mode === ACCESS_MODE.DEVICE_MEMORY) {
      this.#pushDeviceMemory(span);
      return;
    }
    const offset = key.offsetOf(this.#access, address, lengthBytes);
    if (span.depth > MAX_DEPTH) this.#refuse(`keys are nested more than ${MAX_DEPTH} deep`);
    if (key.mode === ACCESS_MODE.PHYSICAL) this.runPhysical(address, lengthBytes);
    else if (key.mode === ACCESS_MODE.MTT) this.#walkPages(span, offset);
    else if (key.mode === ACCESS_MODE.KSM) this.#walkKsm(span, offset);
    else this.#walkKlm(span, offset);
  }

  /** Addresses count from the start of the key (zero based); `start_addr` is where that is in BAR 0. */
  #pushDeviceMemory({ key, address, lengthBytes }: Span): void {
    const place = mkc.get64(key.context, 'start_addr') + address;
    const isInside = address + BigInt(lengthBytes) <= mkc.get64(key.context, 'len');
    if (!isInside || !this.#source.isDeviceMemory(place, lengthBytes)) {
      this.#refuse('not in its part of the device memory');
    }
    this.#push({ kind: 'device', address: Number(place), lengthBytes });
  }

  #walkPages({ key, address, lengthBytes, origin }: Span, offset: number): void {
    const start = key.tableOffset(offset);
    for (let done = 0; done < lengthBytes; ) {
      this.#step();
      const { page, inPage, length } = pageAt(key, start + done, lengthBytes - done);
      const pageAddress = key.pageAddress(this.#access, page, isWrite(this.#access.right));
      if (pageAddress === undefined) {
        const reported = origin ?? { key: key.key, address };
        throw new PageMissing(reported.key, reported.address + BigInt(done), lengthBytes - done);
      }
      this.#push({ kind: 'bus', address: pageAddress + inPage, lengthBytes: length });
      done += length;
    }
  }

  #walkKsm({ key, address, lengthBytes, depth, origin }: Span, offset: number): void {
    const start = key.tableOffset(offset);
    for (let done = 0; done < lengthBytes; ) {
      this.#step();
      const { page, inPage, length } = pageAt(key, start + done, lengthBytes - done);
      const reported = { key: origin?.key ?? key.key, address: (origin?.address ?? address) + BigInt(done) };
      const entry = key.indirect(page);
      if (entry === undefined) this.#refuse('beyond the table of keys');
      if (entry.key === SPECIAL_KEY.NULL) throw new PageMissing(reported.key, reported.address, length);
      const child = this.#child(entry.key);
      const inChild = entry.address + BigInt(inPage);
      this.#walk({ key: child, address: inChild, lengthBytes: length, depth: depth + 1, origin: reported });
      done += length;
    }
  }

  #walkKlm({ key, lengthBytes, depth }: Span, offset: number): void {
    let skip = offset;
    let left = lengthBytes;
    for (let index = 0; left > 0; index++) {
      this.#step();
      const entry = key.indirect(index);
      if (entry === undefined) this.#refuse('beyond the list of keys');
      if (skip >= entry.byteCount) {
        skip -= entry.byteCount;
        continue;
      }
      const length = Math.min(left, entry.byteCount - skip);
      if (entry.key === SPECIAL_KEY.NULL) {
        this.#push({ kind: 'nothing', lengthBytes: length });
      } else {
        const address = entry.address + BigInt(skip);
        const child = this.#child(entry.key);
        this.#walk({ key: child, address, lengthBytes: length, depth: depth + 1, origin: undefined });
      }
      left -= length;
      skip = 0;
    }
  }

  /** Inside another key only the local right counts, and the domain was checked outside (mlx5.md §6.7). */
  #child(value: number): MemoryKey {
    const child = this.#source.find(value);
    if (child === undefined) this.#refuse(`it leads to key 0x${value.toString(16)}, which is not in use`);
    if (!child.has(isWrite(this.#access.right) ? 'local-write' : 'local-read')) {
      this.#refuse(`it leads to key 0x${value.toString(16)}, which lacks the local right`);
    }
    return child;
  }

  #step(): void {
    if (++this.#steps > MAX_STEPS) this.#refuse(`more than ${MAX_STEPS} table entries`);
  }

  /** Appends an extent, or lengthens the last one when the bytes follow on. */
  #push(extent: Extent): void {
    const extents = this.#extents;
    const last = extents[extents.length - 1];
    if (last !== undefined && follows(last, extent)) {
      extents[extents.length - 1] = { ...last, lengthBytes: last.lengthBytes + extent.lengthBytes };
      return;
    }
    if (extents.length >= MAX_EXTENTS) this.#refuse(`more than ${MAX_EXTENTS} pieces`);
    extents.push(extent);
  }

  #refuse(reason: string): never {
    throw new AccessRefused(this.#access, reason);
  }
}

/** The page that holds byte `at` of a table, and how much of `lengthBytes` lies in it. */
function pageAt(key: MemoryKey, at: number, lengthBytes: number): { page: number; inPage: number; length: number } {
  const { pageBytes } = key;
  const page = Math.floor(at / pageBytes);
  const inPage = at - page * pageBytes;
  return { page, inPage, length: Math.min(lengthBytes, pageBytes - inPage) };
}

function follows(last: Extent, next: Extent): boolean {
  if (last.kind === 'nothing' || next.kind === 'nothing') return false;
  return last.kind === next.kind && last.address + last.lengthBytes === next.address;
}
