/** Memory keys: what a key lets a queue pair reach, and its translation to bus addresses. */

import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { type Budget, ObjectTable } from '../firmware/object-table.js';
import { createMkeyIn, queryMkeyOut, querySpecialContextsOut } from '../layouts/commands.js';
import { mkc } from '../layouts/contexts.js';
import { bytesOf, copyOf } from '../layouts/layout.js';
import { DEVICE_MEMORY_BASE, type DeviceMemory } from './device-memory.js';

/** mkc.access_mode_4_2 and access_mode_1_0 (mlx5_ifc.h `MLX5_MKC_ACCESS_MODE_*`). */
const ACCESS_MODE = { PHYSICAL: 0, MTT: 1, KLM: 2, KSM: 3, DEVICE_MEMORY: 5 } as const;
const ACCESS_MODES: readonly number[] = Object.values(ACCESS_MODE);

/** Keys that exist without being created; QUERY_SPECIAL_CONTEXTS tells them to the driver. */
export const SPECIAL_KEY = {
  /** Ends a scatter list. */
  TERMINATE: 0x100,
  /** Reads as zero, swallows writes; in the table of another key: a page that is not there yet. */
  NULL: 0x200,
  /** All memory, for queue pairs of the kernel that say `rlky`. */
  RESERVED_LOCAL: 0x300,
} as const;
/** Indices below are the special keys. */
const FIRST_INDEX = 0x1000;
const LAST_INDEX = 0xffffff;
/** A key that any queue pair may use (mkc.qpn). */
const ANY_QP = 0xffffff;

/** Low bits of an MTT entry (drivers/infiniband/hw/mlx5/mlx5_ib.h `MLX5_IB_MTT_READ`, `MLX5_IB_MTT_WRITE`). */
const MTT_READ = 1;
const MTT_WRITE = 2;
const MTT_FLAG_BITS = 7;

const OCTOWORD_BYTES = 16;
/** Registrations write tables in units of this size and pad the last one (`MLX5_UMR_FLEX_ALIGNMENT`). */
const TABLE_UNIT_BYTES = 64;
const KLM_BYTES = 16;
const MTT_BYTES = 8;

/** What a length of 0 means: the driver gives implicit on-demand regions that one (odp.c `mlx5_ib_alloc_implicit_mr`). */
const WHOLE_ADDRESS_SPACE = 1n << 64n;

/** Keys inside keys inside keys: more than any driver makes, few enough to stop a circle. */
const MAX_DEPTH = 4;
/** Pieces that one request may fall into; a list of one-byte KLMs does not hold up the others for longer than this. */
const MAX_EXTENTS = 65_536;
/** Table entries that one translation may look at: tiny pages, or lists of empty pieces inside lists, end here. */
const MAX_STEPS = 131_072;

/** Where bytes are on the bus. A negative address is nowhere: reads give zero, writes vanish. */
export interface Extent {
  readonly address: number;
  readonly lengthBytes: number;
}
const NOWHERE = -1;

export type Right = 'local-read' | 'local-write' | 'remote-read' | 'remote-write' | 'remote-atomic';
const RIGHT_FIELD = {
  'local-read': 'lr',
  'local-write': 'lw',
  'remote-read': 'rr',
  'remote-write': 'rw',
  'remote-atomic': 'a',
} as const;

/** Who asks: rights of a key depend on it. */
export interface Requester {
  readonly number: number;
  readonly protectionDomain: number;
  /** May use {@link SPECIAL_KEY.RESERVED_LOCAL}. */
  readonly usesReservedKey: boolean;
}

export interface Access {
  readonly key: number;
  readonly address: bigint;
  readonly lengthBytes: number;
  readonly right: Right;
}

/** The key does not permit the access; `reason` is for logs. */
export class AccessRefused extends Error {
  readonly access: Access;

  constructor(access: Access, reason: string) {
    super(
      `${access.right} of ${access.lengthBytes} bytes at 0x${access.address.toString(16)} by key 0x${access.key.toString(16)}: ${reason}`,
    );
    this.name = 'AccessRefused';
    this.access = access;
  }
}

/** A page is not there: the driver must bring it and resume. `key` and `address` are what the event reports. */
export class PageMissing extends Error {
  readonly key: number;
  readonly address: bigint;
  readonly lengthBytes: number;

  constructor(key: number, address: bigint, lengthBytes: number) {
    super(`page fault of key 0x${key.toString(16)} at 0x${address.toString(16)}, ${lengthBytes} bytes`);
    this.name = 'PageMissing';
    this.key = key;
    this.address = address;
    this.lengthBytes = lengthBytes;
  }
}

/** What a fault deeper down reports instead of the key it happened in. */
interface FaultOrigin {
  readonly key: number;
  readonly address: bigint;
}

interface Walk {
  readonly access: Access;
  readonly extents: Extent[];
  /** Table entries it has looked at. */
  steps: number;
}

export class MemoryKey {
  readonly index: number;
  readonly context: DataView;
  readonly capacityBytes: number;
  readonly #budget: Budget;
  readonly #pageFaults: boolean;
  /** Grows as it is written; beyond is zero. */
  #table = new DataView(new ArrayBuffer(0));

  constructor(budget: Budget, index: number, context: DataView, pageFaults: boolean) {
    this.#budget = budget;
    this.index = index;
    this.context = context;
    const sizeBytes = mkc.get(context, 'translations_octword_size') * OCTOWORD_BYTES;
    this.capacityBytes = Math.ceil(sizeBytes / TABLE_UNIT_BYTES) * TABLE_UNIT_BYTES;
    this.#pageFaults = pageFaults || mkc.get(context, 'umr_en') === 1;
  }

  get key(): number {
    return ((this.index << 8) | mkc.get(this.context, 'mkey_7_0')) >>> 0;
  }

  get isFree(): boolean {
    return mkc.get(this.context, 'free') === 1;
  }

  get mode(): number {
    return (mkc.get(this.context, 'access_mode_4_2') << 2) | mkc.get(this.context, 'access_mode_1_0');
  }

  has(right: Right): boolean {
    return mkc.get(this.context, RIGHT_FIELD[right]) === 1;
  }

  /** Writes entries of the translation table. False when they do not fit its capacity or our means. */
  writeTable(offset: number, bytes: Uint8Array): boolean {
    const end = offset + bytes.length;
    if (end > this.capacityBytes) return false;
    if (end > this.#table.byteLength && !this.#grow(end)) return false;
    bytesOf(this.#table).set(bytes, offset);
    return true;
  }

  release(): void {
    this.#budget.give(this.#table.byteLength);
    this.#table = new DataView(new ArrayBuffer(0));
  }

  /** Takes the key out of use for a message that asks for it; false when the key does not allow that. */
  invalidateRemotely(owner: Requester): boolean {
    const bound = mkc.get(this.context, 'qpn');
    if (mkc.get(this.context, 'en_rinval') === 0 || mkc.get(this.context, 'pd') !== owner.protectionDomain)
      return false;
    if (bound !== ANY_QP && bound !== owner.number) return false;
    mkc.set(this.context, 'free', 1);
    return true;
  }

  /** Offset of an address in the key's range. Throws {@link AccessRefused} when the request leaves the range. */
  offsetOf(access: Access, address: bigint, lengthBytes: number): number {
    const start = mkc.get64(this.context, 'start_addr');
    const isEndless = mkc.get(this.context, 'length64') === 1;
    const length = (isEndless ? 0n : mkc.get64(this.context, 'len')) || WHOLE_ADDRESS_SPACE;
    const offset = address - start;
    if (offset < 0n || offset + BigInt(lengthBytes) > length || offset >= 1n << 53n) {
      throw new AccessRefused(access, `outside [0x${start.toString(16)}, +0x${length.toString(16)})`);
    }
    return Number(offset);
  }

  get pageBytes(): number {
    return 2 ** mkc.get(this.context, 'log_page_size');
  }

  /** Where byte `offset` of the range is in its table of pages: ranges may start inside their first page. */
  tableOffset(offset: number): number {
    const start = mkc.get64(this.context, 'start_addr');
    return offset + Number(start & (BigInt(this.pageBytes) - 1n));
  }

  /** An MTT entry: its bus address and whether it permits the access; undefined when its page is not there. */
  pageAddress(access: Access, page: number, write: boolean): number | undefined {
    const at = page * MTT_BYTES;
    if (at + MTT_BYTES > this.capacityBytes) {
      // The private null key of an implicit region has a few entries for all addresses (odp.c `alloc_implicit_mr_null_mkey`).
      if (this.#pageFaults) return undefined;
      throw new AccessRefused(access, 'beyond the translation table');
    }
    if (at + MTT_BYTES > this.#table.byteLength) return this.#pageFaults ? undefined : 0;
    const high = this.#table.getUint32(at);
    const low = this.#table.getUint32(at + 4);
    if (this.#pageFaults && (low & (write ? MTT_WRITE : MTT_READ)) === 0) return undefined;
    if (high * 2 ** 32 >= DEVICE_MEMORY_BASE) throw new AccessRefused(access, 'its page has an address beyond 2^52');
    return high * 2 ** 32 + ((low & ~MTT_FLAG_BITS) >>> 0);
  }

  /** A KLM or KSM entry; undefined behind the end of the table. */
  indirect(index: number): { byteCount: number; key: number; address: bigint } | undefined {
    const at = index * KLM_BYTES;
    if (at + KLM_BYTES > Math.min(this.#table.byteLength, this.capacityBytes)) return undefined;
    return {
      byteCount: this.#table.getUint32(at),
      key: this.#table.getUint32(at + 4),
      address: this.#table.getBigUint64(at + 8),
    };
  }

  #grow(neededBytes: number): boolean {
    const sizeBytes = Math.min(this.capacityBytes, Math.max(neededBytes, 2 * this.#table.byteLength));
    if (!this.#budget.take(sizeBytes - this.#table.byteLength)) return false;
    const grown = new Uint8Array(sizeBytes);
    grown.set(bytesOf(this.#table));
    this.#table = new DataView(grown.buffer);
    return true;
  }
}

export class MemoryKeys {
  readonly #budget: Budget;
  readonly #keys: ObjectTable<MemoryKey>;
  readonly #deviceMemory: Pick<DeviceMemory, 'addressOf'> | undefined;

  constructor(budget: Budget, limit: number, deviceMemory?: Pick<DeviceMemory, 'addressOf'>) {
    this.#budget = budget;
    this.#deviceMemory = deviceMemory;
    this.#keys = new ObjectTable('memory key', FIRST_INDEX, LAST_INDEX, limit);
  }

  get commands(): CommandTable {
    return {
      CREATE_MKEY: (call) => this.#create(call),
      DESTROY_MKEY: (call) => this.#keys.remove(call.number).release(),
      QUERY_MKEY: (call) => {
        const key = this.#keys.get(call.number);
        bytesOf(queryMkeyOut.part(call.output, 'memory_key_mkey_entry')).set(bytesOf(key.context));
      },
      QUERY_SPECIAL_CONTEXTS: (call) =>
        querySpecialContextsOut.fill(call.output, {
          resd_lkey: SPECIAL_KEY.RESERVED_LOCAL,
          null_mkey: SPECIAL_KEY.NULL,
          terminate_scatter_list_mkey: SPECIAL_KEY.TERMINATE,
        }),
    };
  }

  get count(): number {
    return this.#keys.size;
  }

  /** The key of that index, whatever its variant. */
  findIndex(index: number): MemoryKey | undefined {
    return this.#keys.find(index);
  }

  /** The key with exactly this value, if it is in use. */
  find(value: number): MemoryKey | undefined {
    const key = this.#keys.find(value >>> 8);
    return key !== undefined && key.key === value >>> 0 && !key.isFree ? key : undefined;
  }

  /**
   * Appends where the bytes of `access` are. Checks the key in the order of the InfiniBand specification (volume 1 §10.6.3):
   * existence, protection domain, rights, range, then each page. Throws {@link AccessRefused} or {@link PageMissing}.
   */
  translate(requester: Requester, access: Access, extents: Extent[]): void {
    if (access.lengthBytes === 0) return;
    if (access.key === SPECIAL_KEY.NULL) {
      extents.push({ address: NOWHERE, lengthBytes: access.lengthBytes });
      return;
    }
    if (access.key === SPECIAL_KEY.RESERVED_LOCAL && requester.usesReservedKey && access.right.startsWith('local')) {
      pushPhysical(access, access.address, access.lengthBytes, extents);
      return;
    }
    const key = this.#usable(requester, access);
    const walk: Walk = { access, extents, steps: 0 };
    this.#walk(walk, key, access.address, access.lengthBytes, 0, undefined);
  }

  #usable(requester: Requester, access: Access): MemoryKey {
    const key = this.find(access.key);
    if (key === undefined) throw new AccessRefused(access, 'there is no such key, or it is free');
    const bound = mkc.get(key.context, 'qpn');
    if (bound !== ANY_QP && bound !== requester.number) {
      throw new AccessRefused(access, `the key is bound to queue pair ${bound}`);
    }
    if (mkc.get(key.context, 'pd') !== requester.protectionDomain) {
      throw new AccessRefused(access, 'the key belongs to another protection domain');
    }
    if (!key.has(access.right)) throw new AccessRefused(access, 'the key lacks that right');
    return key;
  }

  #walk(
    walk: Walk,
    key: MemoryKey,
    address: bigint,
    lengthBytes: number,
    depth: number,
    origin: FaultOrigin | undefined,
  ): void {
    if (key.mode === ACCESS_MODE.DEVICE_MEMORY) {
      this.#pushDeviceMemory(walk, key, address, lengthBytes);
      return;
    }
    const offset = key.offsetOf(walk.access, address, lengthBytes);
    if (depth > MAX_DEPTH) throw new AccessRefused(walk.access, `keys are nested more than ${MAX_DEPTH} deep`);
    if (key.mode === ACCESS_MODE.PHYSICAL) pushPhysical(walk.access, address, lengthBytes, walk.extents);
    else if (key.mode === ACCESS_MODE.MTT) this.#walkPages(walk, key, address, offset, lengthBytes, origin);
    else if (key.mode === ACCESS_MODE.KSM) this.#walkKsm(walk, key, address, offset, lengthBytes, depth, origin);
    else this.#walkKlm(walk, key, offset, lengthBytes, depth);
  }

  /** Addresses count from the start of the key (zero based); `start_addr` is where that is in BAR 0. */
  #pushDeviceMemory(walk: Walk, key: MemoryKey, address: bigint, lengthBytes: number): void {
    const start = mkc.get64(key.context, 'start_addr');
    const isInside = address + BigInt(lengthBytes) <= mkc.get64(key.context, 'len');
    const place = isInside ? this.#deviceMemory?.addressOf(start + address, lengthBytes) : undefined;
    if (place === undefined) throw new AccessRefused(walk.access, 'not in its part of the device memory');
    push(walk, place, lengthBytes);
  }

  #walkPages(
    walk: Walk,
    key: MemoryKey,
    address: bigint,
    offset: number,
    lengthBytes: number,
    origin: FaultOrigin | undefined,
  ): void {
    const pageBytes = key.pageBytes;
    const start = key.tableOffset(offset);
    for (let done = 0; done < lengthBytes; ) {
      step(walk);
      const page = Math.floor((start + done) / pageBytes);
      const inPage = start + done - page * pageBytes;
      const pageAddress = key.pageAddress(walk.access, page, isWrite(walk.access.right));
      if (pageAddress === undefined) {
        const key0 = origin?.key ?? key.key;
        throw new PageMissing(key0, (origin?.address ?? address) + BigInt(done), lengthBytes - done);
      }
      const length = Math.min(lengthBytes - done, pageBytes - inPage);
      push(walk, pageAddress + inPage, length);
      done += length;
    }
  }

  #walkKsm(
    walk: Walk,
    key: MemoryKey,
    address: bigint,
    offset: number,
    lengthBytes: number,
    depth: number,
    origin: FaultOrigin | undefined,
  ): void {
    const pageBytes = key.pageBytes;
    const start = key.tableOffset(offset);
    for (let done = 0; done < lengthBytes; ) {
      step(walk);
      const page = Math.floor((start + done) / pageBytes);
      const inPage = start + done - page * pageBytes;
      const length = Math.min(lengthBytes - done, pageBytes - inPage);
      const reported = { key: origin?.key ?? key.key, address: (origin?.address ?? address) + BigInt(done) };
      const entry = key.indirect(page);
      if (entry === undefined) throw new AccessRefused(walk.access, 'beyond the table of keys');
      if (entry.key === SPECIAL_KEY.NULL) throw new PageMissing(reported.key, reported.address, length);
      const child = this.#child(walk, entry.key);
      this.#walk(walk, child, entry.address + BigInt(inPage), length, depth + 1, reported);
      done += length;
    }
  }

  #walkKlm(walk: Walk, key: MemoryKey, offset: number, lengthBytes: number, depth: number): void {
    let skip = offset;
    let left = lengthBytes;
    for (let index = 0; left > 0; index++) {
      step(walk);
      const entry = key.indirect(index);
      if (entry === undefined) throw new AccessRefused(walk.access, 'beyond the list of keys');
      if (skip >= entry.byteCount) {
        skip -= entry.byteCount;
        continue;
      }
      const length = Math.min(left, entry.byteCount - skip);
      if (entry.key === SPECIAL_KEY.NULL) push(walk, NOWHERE, length);
      else this.#walk(walk, this.#child(walk, entry.key), entry.address + BigInt(skip), length, depth + 1, undefined);
      left -= length;
      skip = 0;
    }
  }

  /** Inside another key only the local right counts, and the domain was checked outside (mlx5 reference §6.7). */
  #child(walk: Walk, value: number): MemoryKey {
    const child = this.find(value);
    if (child === undefined) {
      throw new AccessRefused(walk.access, `it leads to key 0x${value.toString(16)}, which is not in use`);
    }
    if (!child.has(isWrite(walk.access.right) ? 'local-write' : 'local-read')) {
      throw new AccessRefused(walk.access, `it leads to key 0x${value.toString(16)}, which lacks the local right`);
    }
    return child;
  }

  #create(call: CommandCall): void {
    const context = copyOf(createMkeyIn.part(call.input, 'memory_key_mkey_entry'));
    const mode = (mkc.get(context, 'access_mode_4_2') << 2) | mkc.get(context, 'access_mode_1_0');
    if (!ACCESS_MODES.includes(mode))
      throw new CommandError(STATUS.BAD_PARAMETER, `memory keys of access mode ${mode}`);
    const octowords = createMkeyIn.get(call.input, 'translations_octword_actual_size');
    const entries = call.bytes(createMkeyIn.byteOf('klm_pas_mtt'), octowords * OCTOWORD_BYTES);
    const pageFaults = createMkeyIn.get(call.input, 'pg_access') === 1;
    const index = this.#keys.add((number) => {
      const key = new MemoryKey(this.#budget, number, context, pageFaults);
      if (!key.writeTable(0, entries)) {
        throw new CommandError(STATUS.LIMIT_EXCEEDED, `${entries.length} bytes of translations do not fit`);
      }
      return key;
    });
    call.answerNumber(index);
  }
}

export function isWrite(right: Right): boolean {
  return right === 'local-write' || right === 'remote-write' || right === 'remote-atomic';
}

function pushPhysical(access: Access, address: bigint, lengthBytes: number, extents: Extent[]): void {
  if (address + BigInt(lengthBytes) > DEVICE_MEMORY_BASE) {
    throw new AccessRefused(access, 'a physical address beyond 2^52');
  }
  extents.push({ address: Number(address), lengthBytes });
}

function step(walk: Walk): void {
  if (++walk.steps > MAX_STEPS) throw new AccessRefused(walk.access, `more than ${MAX_STEPS} table entries`);
}

/** Appends an extent, or lengthens the last one when the bytes follow on. */
function push(walk: Walk, address: number, lengthBytes: number): void {
  const { extents } = walk;
  const last = extents[extents.length - 1];
  if (last !== undefined && address !== NOWHERE && last.address + last.lengthBytes === address) {
    extents[extents.length - 1] = { address: last.address, lengthBytes: last.lengthBytes + lengthBytes };
    return;
  }
  if (extents.length >= MAX_EXTENTS) throw new AccessRefused(walk.access, `more than ${MAX_EXTENTS} pieces`);
  extents.push({ address, lengthBytes });
}
