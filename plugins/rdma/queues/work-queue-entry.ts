/**
 * Work queue entries as libmlx5 and mlx5_ib write them. Source: include/linux/mlx5/qp.h and rdma-core's
 * providers/mlx5/wqe.h.
 */
import { subview } from '../layouts/layout.js';
import { SPECIAL_KEY } from '../memory/access.js';

/** Sends are placed in blocks of this size, and addressed by their first block. */
export const BLOCK_BYTES = 64;

/** include/linux/mlx5/device.h `MLX5_OPCODE_*`. */
export const OPCODE = {
  NOP: 0x00,
  SEND_INVALIDATE: 0x01,
  RDMA_WRITE: 0x08,
  RDMA_WRITE_IMM: 0x09,
  SEND: 0x0a,
  SEND_IMM: 0x0b,
  LSO: 0x0e,
  RDMA_READ: 0x10,
  ATOMIC_COMPARE_SWAP: 0x11,
  ATOMIC_FETCH_ADD: 0x12,
  UMR: 0x25,
} as const;

const CONTROL_BYTES = 16;
const ADDRESS_VECTOR_BYTES = 48;
const COMPACT_ADDRESS_VECTOR_BYTES = 16;
/** Bit 31 of dqp_dct: the address vector has its full size. */
const EXTENDED_ADDRESS_VECTOR = 0x80000000;
const UMR_CONTROL_BYTES = 48;
const MKEY_SEGMENT_BYTES = 64;
const SEGMENT_BYTES = 16;
const INLINE_BIT = 0x80000000;

/** A place in memory that a work request names; `lengthBytes` may be 0. */
export interface DataSegment {
  readonly key: number;
  readonly address: bigint;
  readonly lengthBytes: number;
}

/** What a send gathers: memory, or bytes inside the entry. */
export type SendPiece = DataSegment | { readonly inline: Uint8Array; readonly lengthBytes: number };

/** Where a datagram goes (`struct mlx5_av`). */
export interface AddressVector {
  readonly qkey: number;
  readonly queuePair: number;
  readonly serviceLevel: number;
  readonly lid: number;
  readonly mac: number;
  readonly trafficClass: number;
  readonly hopLimit: number;
  readonly hasGrh: boolean;
  readonly sourceGidIndex: number;
  readonly flowLabel: number;
  readonly gid: Uint8Array;
}

export interface SendEntry {
  /** Index of its first block, 16 bits. */
  readonly index: number;
  readonly opcode: number;
  readonly blocks: number;
  /** Longer than what is posted, or more is posted than the ring holds. */
  readonly isMalformed: boolean;
  /** 2: always completes with an entry; 0: only on error (`MLX5_WQE_CTRL_CQ_UPDATE`). */
  readonly completes: boolean;
  readonly solicited: boolean;
  readonly immediate: number;
  /** The whole entry, unwrapped. */
  readonly view: DataView;
}

export function parseControl(view: DataView, index: number): { units: number; entry: SendEntry } {
  const first = view.getUint32(0);
  const units = view.getUint32(4) & 0x3f;
  const flags = view.getUint8(11);
  return {
    units,
    entry: {
      index,
      opcode: first & 0xff,
      blocks: Math.max(1, Math.ceil((units * SEGMENT_BYTES) / BLOCK_BYTES)),
      isMalformed: false,
      completes: ((flags >>> 2) & 3) === 2,
      solicited: (flags & 2) !== 0,
      immediate: view.getUint32(12),
      view,
    },
  };
}

/** An entry that does not follow the format: a queue pair operation error. */
export class MalformedEntry extends Error {}

export interface RemotePlace {
  readonly address: bigint;
  readonly key: number;
}

/** Reads segment after segment of one entry. */
export class SegmentReader {
  readonly #view: DataView;
  #at = CONTROL_BYTES;

  constructor(view: DataView) {
    this.#view = view;
  }

  remote(): RemotePlace {
    const view = this.#take(SEGMENT_BYTES);
    return { address: view.getBigUint64(0), key: view.getUint32(8) };
  }

  atomic(): { swapOrAdd: bigint; compare: bigint } {
    const view = this.#take(SEGMENT_BYTES);
    return { swapOrAdd: view.getBigUint64(0), compare: view.getBigUint64(8) };
  }

  /** `struct mlx5_wqe_xrc_seg`. */
  xrcSharedReceiveQueue(): number {
    return this.#take(SEGMENT_BYTES).getUint32(0) & 0xffffff;
  }

  addressVector(): AddressVector {
    const extended = (this.#peek(COMPACT_ADDRESS_VECTOR_BYTES).getUint32(8) & EXTENDED_ADDRESS_VECTOR) !== 0;
    const taken = this.#take(extended ? ADDRESS_VECTOR_BYTES : COMPACT_ADDRESS_VECTOR_BYTES);
    const bytes = new Uint8Array(ADDRESS_VECTOR_BYTES);
    bytes.set(new Uint8Array(taken.buffer, taken.byteOffset, taken.byteLength));
    const view = new DataView(bytes.buffer);
    const grh = view.getUint32(28);
    return {
      qkey: view.getUint32(0),
      queuePair: view.getUint32(8) & 0xffffff,
      serviceLevel: view.getUint8(12) & 0xf,
      lid: view.getUint16(14),
      mac: view.getUint16(20) * 2 ** 32 + view.getUint32(22),
      trafficClass: view.getUint8(26),
      hopLimit: view.getUint8(27),
      hasGrh: (grh & 0x40000000) !== 0,
      sourceGidIndex: (grh >>> 20) & 0xff,
      flowLabel: grh & 0xfffff,
      gid: bytes.slice(32, 48),
    };
  }

  umr(): { control: DataView; mkey: DataView } {
    return { control: this.#take(UMR_CONTROL_BYTES), mkey: this.#take(MKEY_SEGMENT_BYTES) };
  }

  /** The rest of the entry. */
  rest(): DataView {
    return subview(this.#view, this.#at);
  }

  /** Skips to an offset from the start of the entry. */
  seek(offset: number): void {
    this.#at = offset;
  }

  /** Everything that is left, as data segments. */
  pieces(): SendPiece[] {
    const pieces: SendPiece[] = [];
    while (this.#at + SEGMENT_BYTES <= this.#view.byteLength) {
      const first = this.#view.getUint32(this.#at);
      if ((first & INLINE_BIT) !== 0) {
        pieces.push(this.#inline(first & 0x3ff));
        continue;
      }
      const segment = parseDataSegment(this.#take(SEGMENT_BYTES));
      if (segment !== undefined) pieces.push(segment);
    }
    return pieces;
  }

  #inline(lengthBytes: number): SendPiece {
    const start = this.#at + 4;
    if (start + lengthBytes > this.#view.byteLength) throw new MalformedEntry('inline data leaves its entry');
    this.#at += Math.ceil((4 + lengthBytes) / SEGMENT_BYTES) * SEGMENT_BYTES;
    return { inline: new Uint8Array(this.#view.buffer, this.#view.byteOffset + start, lengthBytes), lengthBytes };
  }

  #peek(sizeBytes: number): DataView {
    if (this.#at + sizeBytes > this.#view.byteLength) throw new MalformedEntry('a segment leaves its entry');
    return subview(this.#view, this.#at, sizeBytes);
  }

  #take(sizeBytes: number): DataView {
    const view = this.#peek(sizeBytes);
    this.#at += sizeBytes;
    return view;
  }
}

/** `struct mlx5_wqe_data_seg`; undefined for one that only pads. A length of 0 with a real key means 2 GiB. */
export function parseDataSegment(view: DataView): DataSegment | undefined {
  const byteCount = view.getUint32(0) & 0x7fffffff;
  const key = view.getUint32(4);
  if (byteCount === 0 && (key === SPECIAL_KEY.TERMINATE || key === 0)) return undefined;
  return { key, address: view.getBigUint64(8), lengthBytes: byteCount === 0 ? 2 ** 31 : byteCount };
}

export function totalBytes(pieces: readonly { readonly lengthBytes: number }[]): number {
  return pieces.reduce((sum, piece) => sum + piece.lengthBytes, 0);
}
