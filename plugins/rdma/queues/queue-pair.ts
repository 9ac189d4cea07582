/** Queue pairs: context, states and their transitions, errors and flushing. What they send is in requester.ts. */
import type { Timer } from 'ghostbus';
import type { Adapter } from '../adapter.js';
import { CommandError, STATUS } from '../firmware/command.js';
import { ads, qpc } from '../layouts/contexts.js';
import { bytesOf, subview } from '../layouts/layout.js';
import type { GuestBuffer } from '../memory/guest-buffer.js';
import { SendEngine } from '../transport/send-engine.js';
import { type CompletionQueue, CQE, CQE_OPCODE, doorbellAddress, operationByte } from './completion-queue.js';
import { EVENT, EVENT_DATA_BYTES } from './event-queue.js';
import { type Receive, type ReceiveList, type ReceiveQueue, ReceiveRing } from './receive-queue.js';
import { SendQueue } from './send-queue.js';
import { BLOCK_BYTES } from './work-queue-entry.js';

/** qpc.state (include/linux/mlx5/qp.h `enum mlx5_qp_state`). */
export const QP_STATE = { RESET: 0, INIT: 1, RTR: 2, RTS: 3, SQ_ERROR: 4, SQ_DRAIN: 5, ERROR: 6 } as const;
/** qpc.st (include/linux/mlx5/qp.h `MLX5_QP_ST_*`). */
export const SERVICE = { RC: 0, UC: 1, UD: 2, XRC: 3, QP0: 7, QP1: 8, REG_UMR: 0xc } as const;
/** qpc.rq_type: a ring of its own, a shared queue, none. */
const RQ_TYPE = { RING: 0, SHARED: 1, NONE: 3 } as const;

/** Error syndromes of completions (include/linux/mlx5/cq.h `MLX5_CQE_SYNDROME_*`). */
export const SYNDROME = {
  LOCAL_LENGTH: 0x01,
  LOCAL_QP_OPERATION: 0x02,
  LOCAL_PROTECTION: 0x04,
  FLUSHED: 0x05,
  MW_BIND: 0x06,
  BAD_RESPONSE: 0x10,
  LOCAL_ACCESS: 0x11,
  REMOTE_INVALID_REQUEST: 0x12,
  REMOTE_ACCESS: 0x13,
  REMOTE_OPERATION: 0x14,
  TRANSPORT_RETRIES: 0x15,
  RNR_RETRIES: 0x16,
  REMOTE_ABORTED: 0x22,
} as const;

/** Flushed entries per turn. */
const FLUSH_BATCH = 64;
/** A ring in error has no doorbell: receives posted late are looked for with growing pauses. */
const FLUSH_POLL_MS = { FIRST: 1, LAST: 64 } as const;

export class QueuePair {
  readonly kind = 'queue pair';
  readonly number: number;
  readonly context: DataView;
  readonly adapter: Adapter;
  readonly sendQueue: SendQueue | undefined;
  readonly engine: SendEngine;
  readonly #buffer: GuestBuffer | undefined;
  readonly #ring: ReceiveRing | undefined;
  /** Receives whose messages have begun to arrive. */
  readonly unfinished = new Set<Receive>();
  #announced = false;
  #flushPoll: Timer | undefined;
  #flushPause: number = FLUSH_POLL_MS.FIRST;
  #released = false;

  /** `context`: our own copy. */
  constructor(adapter: Adapter, number: number, context: DataView, buffer: GuestBuffer | undefined) {
    this.adapter = adapter;
    this.number = number;
    this.context = context;
    this.#buffer = buffer;
    const record = doorbellAddress(qpc.get64(context, 'dbr_addr'));
    const receiveBytes = receiveRingBytes(context);
    const dma = adapter.port.dma;
    if (buffer !== undefined && receiveBytes > 0) {
      this.#ring = new ReceiveRing(dma, {
        buffer,
        start: 0,
        logSize: qpc.get(context, 'log_rq_size'),
        strideBytes: 16 << qpc.get(context, 'log_rq_stride'),
        doorbellRecord: record,
      });
    }
    if (buffer !== undefined && sendRingBytes(context) > 0) {
      this.sendQueue = new SendQueue(dma, buffer, receiveBytes, qpc.get(context, 'log_sq_size'), record + 4);
    }
    this.engine = new SendEngine(this);
  }

  get state(): number {
    return qpc.get(this.context, 'state');
  }

  get service(): number {
    return qpc.get(this.context, 'st');
  }

  get isDatagram(): boolean {
    const service = this.service;
    return service === SERVICE.UD || service === SERVICE.QP0 || service === SERVICE.QP1;
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

  /** Primary address path. */
  get path(): DataView {
    return subview(this.context, qpc.byteOf('primary_address_path'), ads.sizeBytes);
  }

  /** Bytes per packet: 128 << mtu (IB_MTU_256 is 1). */
  get mtuBytes(): number {
    const code = qpc.get(this.context, 'mtu');
    return this.isDatagram || code === 0 || code > 5 ? this.adapter.vport.activeMtuBytes : 128 << code;
  }

  /** Ready for messages of others. */
  get canReceive(): boolean {
    const state = this.state;
    return (
      state === QP_STATE.RTR || state === QP_STATE.RTS || state === QP_STATE.SQ_DRAIN || state === QP_STATE.SQ_ERROR
    );
  }

  get sendCompletionQueue(): CompletionQueue | undefined {
    return this.adapter.completionQueues.find(qpc.get(this.context, 'cqn_snd'));
  }

  get receiveCompletionQueue(): CompletionQueue | undefined {
    return this.adapter.completionQueues.find(qpc.get(this.context, 'cqn_rcv'));
  }

  get sharedReceiveQueue(): ReceiveList | undefined {
    if (qpc.get(this.context, 'rq_type') !== RQ_TYPE.SHARED) return undefined;
    return this.adapter.sharedReceiveQueues.find(qpc.get(this.context, 'srqn_rmpn_xrqn'))?.list;
  }

  get receiveQueue(): ReceiveQueue | undefined {
    return this.sharedReceiveQueue ?? this.#ring;
  }

  /** The driver rang the doorbell of the send queue. */
  ring(): void {
    const state = this.state;
    if (state === QP_STATE.RESET || state === QP_STATE.INIT || state === QP_STATE.RTR) return;
    this.engine.ring();
  }

  setState(state: number): void {
    qpc.set(this.context, 'state', state);
  }

  /** First message of a connection that is only ready to receive (IB volume 1 §11.6.3.2). */
  announceCommunication(): void {
    if (this.#announced || this.state !== QP_STATE.RTR) return;
    this.#announced = true;
    this.postEvent(EVENT.COMMUNICATION_ESTABLISHED);
  }

  postEvent(event: number): void {
    const data = new Uint8Array(EVENT_DATA_BYTES);
    new DataView(data.buffer).setUint32(24, this.number);
    this.adapter.eventQueues.post(event, 0, data);
  }

  /** Back to the beginning: nothing completes any more, both rings start at 0. */
  resetState(): void {
    this.engine.abandon();
    this.#cancelFlushPoll();
    this.unfinished.clear();
    this.#announced = false;
    this.sendQueue?.reset();
    this.#ring?.reset();
    this.setState(QP_STATE.RESET);
  }

  /** Everything outstanding completes as flushed, and everything posted later too. */
  enterError(): void {
    if (this.state === QP_STATE.ERROR) return;
    this.engine.abandon();
    this.setState(QP_STATE.ERROR);
    if (this.sharedReceiveQueue !== undefined) this.postEvent(EVENT.SRQ_LAST_WQE);
    this.#flushPause = FLUSH_POLL_MS.FIRST;
    this.adapter.scheduler.kick(this.engine);
  }

  /** A part of the receive queue; true when there is more. For a queue pair in error. */
  flushReceives(): boolean {
    for (const receive of this.unfinished) this.#flushReceive(receive);
    this.unfinished.clear();
    const ring = this.#ring;
    if (ring === undefined || this.sharedReceiveQueue !== undefined) return false;
    for (let count = 0; count < FLUSH_BATCH; count++) {
      const receive = ring.take();
      if (receive === undefined) {
        this.#pollFlush();
        return false;
      }
      this.#flushPause = FLUSH_POLL_MS.FIRST;
      this.#flushReceive(receive);
    }
    return true;
  }

  #flushReceive(receive: Receive): void {
    this.adapter.counters.add(this, 'resp_cqe_flush_error');
    this.completeReceiveError(receive, SYNDROME.FLUSHED);
  }

  completeReceiveError(receive: Receive, syndrome: number): void {
    const entry = this.receiveEntry(receive);
    entry[CQE.SYNDROME] = syndrome;
    entry[CQE.OP_OWN] = operationByte(CQE_OPCODE.RESPONDER_ERROR, false);
    this.receiveCompletionQueue?.push(entry, true);
  }

  /** The fields of a receive's completion that do not depend on the message. */
  receiveEntry(receive: Receive): Uint8Array {
    const entry = new Uint8Array(CQE.BYTES);
    const view = new DataView(entry.buffer);
    view.setUint32(CQE.SRQN_USER_INDEX, qpc.get(this.context, 'user_index'));
    view.setUint32(CQE.OPCODE_QPN, this.number);
    view.setUint16(CQE.WQE_COUNTER, receive.counter);
    return entry;
  }

  release(): void {
    this.#released = true;
    this.engine.abandon();
    this.#cancelFlushPoll();
    this.#buffer?.release();
  }

  get isReleased(): boolean {
    return this.#released;
  }

  inspect(): unknown {
    return {
      qpn: this.number,
      service: this.service,
      state: this.state,
      remote: qpc.get(this.context, 'remote_qpn'),
      sent: this.sendQueue?.consumer,
      paused: this.engine.isPaused,
    };
  }

  #pollFlush(): void {
    this.#cancelFlushPoll();
    this.#flushPoll = this.adapter.port.clock.after(this.#flushPause, () => {
      this.#flushPoll = undefined;
      if (this.state === QP_STATE.ERROR && !this.#released) this.adapter.scheduler.kick(this.engine);
    });
    this.#flushPause = Math.min(2 * this.#flushPause, FLUSH_POLL_MS.LAST);
  }

  #cancelFlushPoll(): void {
    this.#flushPoll?.cancel();
    this.#flushPoll = undefined;
  }
}

/** Size of the receive ring of a context; 0 without one. */
export function receiveRingBytes(context: DataView): number {
  if (qpc.get(context, 'rq_type') !== RQ_TYPE.RING) return 0;
  return 2 ** qpc.get(context, 'log_rq_size') * (16 << qpc.get(context, 'log_rq_stride'));
}

/** Size of the send ring of a context; 0 without one. */
export function sendRingBytes(context: DataView): number {
  return qpc.get(context, 'no_sq') === 1 ? 0 : 2 ** qpc.get(context, 'log_sq_size') * BLOCK_BYTES;
}

type QpcField = keyof typeof qpc.fields;
type AdsField = keyof typeof ads.fields;

interface Transition {
  readonly from: readonly number[];
  readonly to: number;
  readonly fields: readonly QpcField[];
  readonly path: readonly AdsField[] | 'all';
}

/** What each command takes from the context it brings (mlx5 reference §5.4); the rest stays as it was. */
export const TRANSITIONS = {
  RST2INIT_QP: {
    from: [QP_STATE.RESET],
    to: QP_STATE.INIT,
    fields: ['pm_state', 'pd', 'rre', 'rwe', 'rae', 'atomic_mode', 'q_key', 'counter_set_id', 'min_rnr_nak'],
    path: ['pkey_index', 'vhca_port_num'],
  },
  INIT2INIT_QP: { from: [QP_STATE.INIT], to: QP_STATE.INIT, fields: [], path: [] },
  INIT2RTR_QP: {
    from: [QP_STATE.INIT],
    to: QP_STATE.RTR,
    fields: ['mtu', 'log_msg_max', 'remote_qpn', 'next_rcv_psn', 'log_rra_max', 'min_rnr_nak'],
    path: 'all',
  },
  RTR2RTS_QP: {
    from: [QP_STATE.RTR],
    to: QP_STATE.RTS,
    fields: ['next_send_psn', 'log_sra_max', 'retry_count', 'rnr_retry', 'log_ack_req_freq'],
    path: ['ack_timeout'],
  },
  RTS2RTS_QP: { from: [QP_STATE.RTS], to: QP_STATE.RTS, fields: [], path: [] },
  SQERR2RTS_QP: { from: [QP_STATE.SQ_ERROR], to: QP_STATE.RTS, fields: [], path: [] },
} as const satisfies Record<string, Transition>;

/** opt_param_mask (include/linux/mlx5/qp.h `MLX5_QP_OPTPAR_*`): fields that a transition may carry in addition. */
const OPTIONAL_FIELDS: readonly (readonly [bit: number, fields: readonly QpcField[]])[] = [
  [1, ['rre']],
  [2, ['rae', 'atomic_mode']],
  [3, ['rwe']],
  [5, ['q_key']],
  [6, ['min_rnr_nak']],
  [8, ['log_sra_max']],
  [9, ['log_rra_max']],
  [10, ['pm_state']],
  [12, ['retry_count']],
  [13, ['rnr_retry']],
  [18, ['srqn_rmpn_xrqn']],
  [19, ['cqn_rcv']],
  [25, ['counter_set_id']],
];
const OPTIONAL_PATH: readonly (readonly [bit: number, fields: readonly AdsField[]])[] = [
  [4, ['pkey_index']],
  [14, ['ack_timeout']],
  [16, ['vhca_port_num']],
];
const OPTIONAL_WHOLE_PATH = 7;

/** What the driver may fill in late, at any transition; zero means that it did not (qp.c `__mlx5_ib_modify_qp`). */
const FILLED_LATE: readonly QpcField[] = ['cqn_snd', 'cqn_rcv', 'rlky'];

/** Applies a transition. Throws {@link CommandError} from a state where it is not legal. */
export function applyTransition(
  qp: QueuePair,
  name: keyof typeof TRANSITIONS,
  given: DataView,
  optional: number,
): void {
  const transition: Transition = TRANSITIONS[name];
  if (!transition.from.includes(qp.state)) {
    throw new CommandError(STATUS.BAD_QP_STATE, `${name} of queue pair ${qp.number} in state ${qp.state}`);
  }
  const givenPath = subview(given, qpc.byteOf('primary_address_path'), ads.sizeBytes);
  for (const field of transition.fields) copyContextField(qp.context, given, field);
  for (const field of FILLED_LATE) if (qpc.get(given, field) !== 0) copyContextField(qp.context, given, field);
  if (transition.path === 'all' || (optional >>> OPTIONAL_WHOLE_PATH) & 1) copyPath(qp, givenPath);
  if (transition.path !== 'all') for (const field of transition.path) copyPathField(qp.path, givenPath, field);
  for (const [bit, fields] of OPTIONAL_FIELDS) {
    if ((optional >>> bit) & 1) for (const field of fields) copyContextField(qp.context, given, field);
  }
  for (const [bit, fields] of OPTIONAL_PATH) {
    if ((optional >>> bit) & 1) for (const field of fields) copyPathField(qp.path, givenPath, field);
  }
  qp.setState(transition.to);
}

/** The whole path but for the acknowledge timeout, which a command brings by itself. */
function copyPath(qp: QueuePair, given: DataView): void {
  const timeout = ads.get(qp.path, 'ack_timeout');
  bytesOf(qp.path).set(bytesOf(given));
  ads.set(qp.path, 'ack_timeout', timeout);
}

function copyContextField(target: DataView, source: DataView, field: QpcField): void {
  qpc.set(target, field, qpc.get(source, field));
}

function copyPathField(target: DataView, source: DataView, field: AdsField): void {
  ads.set(target, field, ads.get(source, field));
}
