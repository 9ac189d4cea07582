/**
 * Work queue entries as libmlx5 and mlx5_ib write them. Source: include/linux/mlx5/qp.h and rdma-core's
 * providers/mlx5/wqe.h.
 */
import { mkc } from '../layouts/contexts.js';
import {
  wqeAtomicSeg,
  wqeAv,
  wqeCtrlSeg,
  wqeDataSeg,
  wqeRaddrSeg,
  wqeUmrCtrlSeg,
  wqeXrcSeg,
} from '../layouts/entries.js';
import { bytesOf, subview } from '../layouts/layout.js';
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
const COMPACT_ADDRESS_VECTOR_BYTES = 16;
/** Value of wqeCtrlSeg.ce (`MLX5_WQE_CTRL_CQ_UPDATE`); others complete only on error. */
const ALWAYS_COMPLETES = 2;
const SEGMENT_BYTES = 16;

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
  /** With an entry in any case; otherwise only on error. */
  readonly completes: boolean;
  readonly solicited: boolean;
  readonly immediate: number;
  /** The whole entry, unwrapped. */
  readonly view: DataView;
}

export function parseControl(view: DataView, index: number): { units: number; entry: SendEntry } {
  const units = wqeCtrlSeg.get(view, 'ds');
  return {
    units,
    entry: {
      index,
      opcode: wqeCtrlSeg.get(view, 'opcode'),
      blocks: Math.max(1, Math.ceil((units * SEGMENT_BYTES) / BLOCK_BYTES)),
      isMalformed: false,
      completes: wqeCtrlSeg.get(view, 'ce') === ALWAYS_COMPLETES,
      solicited: wqeCtrlSeg.get(view, 'se') === 1,
      immediate: wqeCtrlSeg.get(view, 'imm'),
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
    const view = this.#take(wqeRaddrSeg.sizeBytes);
    return { address: wqeRaddrSeg.get64(view, 'raddr'), key: wqeRaddrSeg.get(view, 'rkey') };
  }

  atomic(): { swapOrAdd: bigint; compare: bigint } {
    const view = this.#take(wqeAtomicSeg.sizeBytes);
    return { swapOrAdd: wqeAtomicSeg.get64(view, 'swap_add'), compare: wqeAtomicSeg.get64(view, 'compare') };
  }

  xrcSharedReceiveQueue(): number {
    return wqeXrcSeg.get(this.#take(wqeXrcSeg.sizeBytes), 'xrc_srqn');
  }

  addressVector(): AddressVector {
    const isWhole = wqeAv.get(this.#peek(COMPACT_ADDRESS_VECTOR_BYTES), 'extended') === 1;
    const taken = this.#take(isWhole ? wqeAv.sizeBytes : COMPACT_ADDRESS_VECTOR_BYTES);
    // What a compact one lacks is zero.
    const view = wqeAv.create();
    bytesOf(view).set(bytesOf(taken));
    const rmac = wqeAv.get(view, 'rmac_31_16') * 2 ** 16 + wqeAv.get(view, 'rmac_15_0');
    return {
      qkey: wqeAv.get(view, 'qkey'),
      queuePair: wqeAv.get(view, 'dqpn'),
      lid: wqeAv.get(view, 'rlid'),
      mac: wqeAv.get(view, 'rmac_47_32') * 2 ** 32 + rmac,
      trafficClass: wqeAv.get(view, 'tclass'),
      hopLimit: wqeAv.get(view, 'hop_limit'),
      hasGrh: wqeAv.get(view, 'grh') === 1,
      sourceGidIndex: wqeAv.get(view, 'sgid_index'),
      flowLabel: wqeAv.get(view, 'flow_label'),
      gid: bytesOf(wqeAv.part(view, 'rgid')),
    };
  }

  umr(): { control: DataView; mkey: DataView } {
    return { control: this.#take(wqeUmrCtrlSeg.sizeBytes), mkey: this.#take(mkc.sizeBytes) };
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
      if (wqeDataSeg.get(this.#view, 'inline', this.#at) === 1) {
        pieces.push(this.#inline(wqeDataSeg.get(this.#view, 'inline_byte_count', this.#at)));
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
  const lengthBytes = wqeDataSeg.get(view, 'byte_count');
  const key = wqeDataSeg.get(view, 'lkey');
  if (lengthBytes === 0 && (key === SPECIAL_KEY.TERMINATE || key === 0)) return undefined;
  return { key, address: wqeDataSeg.get64(view, 'addr'), lengthBytes: lengthBytes === 0 ? 2 ** 31 : lengthBytes };
}

export function totalBytes(pieces: readonly { readonly lengthBytes: number }[]): number {
  return pieces.reduce((sum, piece) => sum + piece.lengthBytes, 0);
}
