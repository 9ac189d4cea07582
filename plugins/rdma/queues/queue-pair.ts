/** Queue pairs: context and state. Their two halves are in transport/: what they send, and what they receive. */
import type { FunctionPort } from 'ghostbus';
import { ads, qpc } from '../layouts/contexts.js';
import { subview } from '../layouts/layout.js';
import type { GuestBuffer } from '../memory/guest-buffer.js';
import type { CompletionQueue, CompletionQueues } from './completion-queue.js';
import { doorbellAddress, SEND_RECORD_OFFSET } from './doorbell-record.js';
import type { EventQueues } from './event-queue.js';
import { type ReceiveList, ReceiveRing } from './receive-queue.js';
import { SendQueue } from './send-queue.js';
import type { SharedReceiveQueues } from './shared-receive-queue.js';
import { BLOCK_BYTES } from './work-queue-entry.js';

/** qpc.state (include/linux/mlx5/qp.h `enum mlx5_qp_state`). */
export const QP_STATE = { RESET: 0, INIT: 1, RTR: 2, RTS: 3, SQ_ERROR: 4, SQ_DRAIN: 5, ERROR: 6 } as const;
/** qpc.st (include/linux/mlx5/qp.h `MLX5_QP_ST_*`). */
export const SERVICE = { RC: 0, UC: 1, UD: 2, XRC: 3, QP0: 7, QP1: 8, REG_UMR: 0xc } as const;
/** qpc.rq_type: a ring of its own, a shared queue, none. */
const RQ_TYPE = { RING: 0, SHARED: 1 } as const;
/** qpc.log_rq_stride counts from 16 bytes. */
const STRIDE_UNIT_BYTES = 16;
/** qpc.mtu: IB_MTU_256 is 1, IB_MTU_4096 is 5. */
const MAX_MTU_CODE = 5;
const MTU_UNIT_BYTES = 128;

const RECEIVING_STATES: readonly number[] = [QP_STATE.RTR, QP_STATE.RTS, QP_STATE.SQ_DRAIN, QP_STATE.SQ_ERROR];
const DATAGRAM_SERVICES: readonly number[] = [SERVICE.UD, SERVICE.QP0, SERVICE.QP1];

/** What a queue pair needs of its adapter. */
export interface QueuePairHost {
  readonly port: Pick<FunctionPort, 'dma'>;
  readonly completionQueues: Pick<CompletionQueues, 'find'>;
  readonly sharedReceiveQueues: Pick<SharedReceiveQueues, 'find'>;
  readonly eventQueues: Pick<EventQueues, 'postNumber'>;
  readonly vport: { readonly activeMtuBytes: number };
}

/** One direction of a queue pair: what changes of the whole mean for it. */
export interface QueuePairHalf {
  /** Back to the beginning: nothing completes any more, the ring starts at 0. */
  reset(): void;
  /** Everything outstanding completes as flushed, and everything posted later too. */
  enterError(): void;
  /** The queue pair is destroyed. */
  release(): void;
}

export class QueuePair {
  readonly number: number;
  readonly context: DataView;
  readonly sendQueue: SendQueue | undefined;
  readonly receiveRing: ReceiveRing | undefined;
  readonly #host: QueuePairHost;
  readonly #buffer: GuestBuffer | undefined;
  readonly #halves: QueuePairHalf[] = [];
  #released = false;

  /** `context`: our own copy; `buffer`: both rings, receives first. */
  constructor(host: QueuePairHost, number: number, context: DataView, buffer: GuestBuffer | undefined) {
    this.#host = host;
    this.number = number;
    this.context = context;
    this.#buffer = buffer;
    const record = doorbellAddress(qpc.get64(context, 'dbr_addr'));
    if (buffer === undefined) return;
    const receiveBytes = receiveRingBytes(context);
    const { dma } = host.port;
    if (receiveBytes > 0) {
      this.receiveRing = new ReceiveRing(dma, {
        buffer,
        start: 0,
        logSize: qpc.get(context, 'log_rq_size'),
        strideBytes: receiveStrideBytes(context),
        doorbellRecord: record,
      });
    }
    if (sendRingBytes(context) > 0) {
      const logBlocks = qpc.get(context, 'log_sq_size');
      this.sendQueue = new SendQueue(dma, buffer, receiveBytes, logBlocks, record + SEND_RECORD_OFFSET);
    }
  }

  /** A half hears of changes from now on; the one that was added first hears first. */
  addHalf(half: QueuePairHalf): void {
    this.#halves.push(half);
  }

  get state(): number {
    return qpc.get(this.context, 'state');
  }

  get service(): number {
    return qpc.get(this.context, 'st');
  }

  get isDatagram(): boolean {
    return DATAGRAM_SERVICES.includes(this.service);
  }

  get isReliable(): boolean {
    return this.service === SERVICE.RC || this.service === SERVICE.XRC;
  }

  get protectionDomain(): number {
    return qpc.get(this.context, 'pd');
  }

  get usesReservedKey(): boolean {
    return qpc.get(this.context, 'rlky') === 1;
  }

  get userIndex(): number {
    return qpc.get(this.context, 'user_index');
  }

  get counterSet(): number {
    return qpc.get(this.context, 'counter_set_id');
  }

  /** Primary address path. */
  get path(): DataView {
    return subview(this.context, qpc.byteOf('primary_address_path'), ads.sizeBytes);
  }

  /** Bytes per packet. */
  get mtuBytes(): number {
    const code = qpc.get(this.context, 'mtu');
    const isKnown = !this.isDatagram && code > 0 && code <= MAX_MTU_CODE;
    return isKnown ? MTU_UNIT_BYTES << code : this.#host.vport.activeMtuBytes;
  }

  /** Ready for messages of others. */
  get canReceive(): boolean {
    return !this.#released && RECEIVING_STATES.includes(this.state);
  }

  get sendCompletionQueue(): CompletionQueue | undefined {
    return this.#host.completionQueues.find(qpc.get(this.context, 'cqn_snd'));
  }

  get receiveCompletionQueue(): CompletionQueue | undefined {
    return this.#host.completionQueues.find(qpc.get(this.context, 'cqn_rcv'));
  }

  get sharedReceiveQueue(): ReceiveList | undefined {
    if (qpc.get(this.context, 'rq_type') !== RQ_TYPE.SHARED) return undefined;
    return this.#host.sharedReceiveQueues.find(qpc.get(this.context, 'srqn_rmpn_xrqn'))?.list;
  }

  setState(state: number): void {
    qpc.set(this.context, 'state', state);
  }

  /** Packets were sent or received. */
  advancePsn(field: 'next_send_psn' | 'next_rcv_psn', packets: number): void {
    qpc.set(this.context, field, qpc.get(this.context, field) + packets);
  }

  postEvent(event: number): void {
    this.#host.eventQueues.postNumber(event, this.number);
  }

  resetState(): void {
    for (const half of this.#halves) half.reset();
    this.setState(QP_STATE.RESET);
  }

  enterError(): void {
    if (this.state === QP_STATE.ERROR) return;
    this.setState(QP_STATE.ERROR);
    for (const half of this.#halves) half.enterError();
  }

  release(): void {
    this.#released = true;
    for (const half of this.#halves) half.release();
    this.#buffer?.release();
  }

  get isReleased(): boolean {
    return this.#released;
  }
}

function receiveStrideBytes(context: DataView): number {
  return STRIDE_UNIT_BYTES << qpc.get(context, 'log_rq_stride');
}

/** Size of the receive ring of a context; 0 without one. */
export function receiveRingBytes(context: DataView): number {
  if (qpc.get(context, 'rq_type') !== RQ_TYPE.RING) return 0;
  return 2 ** qpc.get(context, 'log_rq_size') * receiveStrideBytes(context);
}

/** Size of the send ring of a context; 0 without one. */
export function sendRingBytes(context: DataView): number {
  return qpc.get(context, 'no_sq') === 1 ? 0 : 2 ** qpc.get(context, 'log_sq_size') * BLOCK_BYTES;
}
