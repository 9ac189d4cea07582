/** One memory key: its context, its rights and its translation table. */

import { mkc } from '../layouts/contexts.js';
import { bytesOf } from '../layouts/layout.js';
import { type Access, AccessRefused, type KeyUser, type Right } from './access.js';
import type { HeapBudget } from './heap-budget.js';

/** mkc.access_mode_4_2 and access_mode_1_0 (mlx5_ifc.h `MLX5_MKC_ACCESS_MODE_*`). */
export const ACCESS_MODE = { PHYSICAL: 0, MTT: 1, KLM: 2, KSM: 3, DEVICE_MEMORY: 5 } as const;

/** A key that any queue pair may use (mkc.qpn). */
export const ANY_QP = 0xffffff;

/** Low bits of an MTT entry (drivers/infiniband/hw/mlx5/mlx5_ib.h `MLX5_IB_MTT_READ`, `MLX5_IB_MTT_WRITE`). */
const MTT_READ = 1;
const MTT_WRITE = 2;
const MTT_FLAG_BITS = 7;
const MTT_BYTES = 8;
const KLM_BYTES = 16;

/** Translation tables are counted in units of this size (mkc.translations_octword_size). */
export const OCTOWORD_BYTES = 16;
/** Registrations write tables in units of this size and pad the last one (`MLX5_UMR_FLEX_ALIGNMENT`). */
const TABLE_UNIT_BYTES = 64;

/**
 * What a length of 0 means: the driver gives implicit on-demand regions that one (odp.c `mlx5_ib_alloc_implicit_mr`).
 */
const WHOLE_ADDRESS_SPACE = 1n << 64n;

/** Physical addresses have at most 52 bits (amd64). */
export const PHYSICAL_ADDRESS_LIMIT = 2 ** 52;

const RIGHT_FIELD = {
  'local-read': 'lr',
  'local-write': 'lw',
  'remote-read': 'rr',
  'remote-write': 'rw',
  'remote-atomic': 'a',
} as const;

/** The way a key leads to memory (`ACCESS_MODE`), as its context says it. */
export function accessModeOf(context: DataView): number {
  return (mkc.get(context, 'access_mode_4_2') << 2) | mkc.get(context, 'access_mode_1_0');
}

export class MemoryKey {
  readonly index: number;
  readonly context: DataView;
  readonly capacityBytes: number;
  readonly #budget: HeapBudget;
  readonly #pageFaults: boolean;
  /** Grows as it is written; beyond is zero. */
  #table = new DataView(new ArrayBuffer(0));

  constructor(budget: HeapBudget, index: number, context: DataView, pageFaults: boolean) {
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
    return accessModeOf(this.context);
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
  invalidateRemotely(owner: KeyUser): boolean {
    const bound = mkc.get(this.context, 'qpn');
    if (mkc.get(this.context, 'en_rinval') === 0 || mkc.get(this.context, 'pd') !== owner.protectionDomain) {
      return false;
    }
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
      // The private null key of an implicit region has a few entries for all addresses
      // (odp.c `alloc_implicit_mr_null_mkey`).
      if (this.#pageFaults) return undefined;
      throw new AccessRefused(access, 'beyond the translation table');
    }
    if (at + MTT_BYTES > this.#table.byteLength) return this.#pageFaults ? undefined : 0;
    const high = this.#table.getUint32(at);
    const low = this.#table.getUint32(at + 4);
    if (this.#pageFaults && (low & (write ? MTT_WRITE : MTT_READ)) === 0) return undefined;
    if (high * 2 ** 32 >= PHYSICAL_ADDRESS_LIMIT) {
      throw new AccessRefused(access, 'its page has an address beyond 2^52');
    }
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
