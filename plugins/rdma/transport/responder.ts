/** The receiving half of a queue pair: takes what others send it, and refuses what it must not take. */
import { DmaError, type FunctionPort, type Timer } from 'ghostbus';
import type { Runnable, Scheduler, TurnResult, WorkBudget } from 'ghostbus/kit';
import { qpc } from '../layouts/contexts.js';
import { type KeyUser, PageMissing, type Right } from '../memory/access.js';
import { reportDmaError } from '../memory/dma-report.js';
import type { MemoryKeys } from '../memory/memory-keys.js';
import type { Counters, QCounter, Traffic } from '../port/counters.js';
import type { Vport } from '../port/vport.js';
import { CQE, completionEntry, SYNDROME, type Syndrome, setError, setOutcome } from '../queues/completion-entry.js';
import type { CompletionQueues } from '../queues/completion-queue.js';
import { EVENT } from '../queues/event-queue.js';
import { QP_STATE, type QueuePair, type QueuePairHalf, SERVICE } from '../queues/queue-pair.js';
import type { Receive } from '../queues/receive-queue.js';
import type { SharedReceiveQueue, SharedReceiveQueues, XrcRole } from '../queues/shared-receive-queue.js';
import { REQUEST_UNITS } from '../queues/turns.js';
import { OPCODE, type RemotePlace, totalBytes } from '../queues/work-queue-entry.js';
import { Dropped, type MessageRecorder, type WireOperation } from './sending.js';
import { type Chunk, guarded, type MemoryAccess, PeerGone, type Side, type TransferFailed } from './transfer.js';

/** A ring in error has no doorbell: receives posted late are looked for with growing pauses. */
const FLUSH_POLL_MS = { FIRST: 1, LAST: 64 } as const;

/** RNR timer codes in milliseconds (IB volume 1 table 46). */
// biome-ignore format: a table
const RNR_TIMER_MS = [
  655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92, 2.56, 3.84, 5.12,
  7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76, 327.68, 491.52,
];

/** What a responder counts as it comes in. */
const RECEIVED_REQUESTS: Readonly<Partial<Record<WireOperation, QCounter>>> = {
  write: 'rx_write_requests',
  read: 'rx_read_requests',
  atomic: 'rx_atomic_requests',
};

/** Codes of negative acknowledgements (AETH syndromes 0x61 to 0x63, IB volume 1 §9.7.5.2). */
export type NakCode = 'invalid request' | 'remote access' | 'remote operation';

/** A reliable connection's refusal: the requester completes in error. `reason` is for logs. */
export class Nak extends Error {
  readonly code: NakCode;

  constructor(code: NakCode, reason: string) {
    super(reason);
    this.code = code;
  }
}

/** What a responder needs of its adapter. */
export interface ResponderHost extends MemoryAccess {
  readonly port: Pick<FunctionPort, 'clock' | 'log'>;
  readonly scheduler: Pick<Scheduler, 'wake' | 'remove'>;
  readonly memoryKeys: Pick<MemoryKeys, 'translate' | 'find'>;
  readonly counters: Pick<Counters, 'add' | 'countTraffic' | 'countResponderError'>;
  readonly completionQueues: Pick<CompletionQueues, 'find'>;
  readonly sharedReceiveQueues: Pick<SharedReceiveQueues, 'find'>;
  readonly vport: Pick<Vport, 'countQkeyViolation'>;
  /** Who records what this adapter receives. */
  readonly recorder: MessageRecorder | undefined;
}

/** The queue pairs of one adapter, as messages find them. */
export interface Responders {
  find(number: number): Responder | undefined;
  /** By the number in a datagram, which may be a well-known one. */
  findForDatagram(number: number): Responder | undefined;
  /** Those that joined a multicast group. */
  members(gid: Uint8Array): Responder[];
}

/** A receive that a message has taken, and on whose behalf memory is written. */
export interface Inbound {
  readonly receive: Receive;
  readonly user: KeyUser;
  /** XRC: completions belong to the shared queue. */
  readonly xrc: XrcRole | undefined;
}

/** What the completion of a receive tells about its message. */
interface Arrival {
  /** CQE_OPCODE of a responder. */
  readonly opcode: number;
  readonly lengthBytes: number;
  readonly sourceLid: number;
  /** cqe.flags_rqpn: the queue pair it comes from, and flags above. */
  readonly source: number;
  /** Immediate data, a key, or a partition key. */
  readonly immediate: number;
  readonly solicited: boolean;
}

export class Responder implements QueuePairHalf, Runnable {
  readonly qp: QueuePair;
  readonly #host: ResponderHost;
  /** Receives whose messages have begun to arrive. */
  readonly #unfinished = new Set<Receive>();
  #announced = false;
  #flushPoll: Timer | undefined;
  #flushPauseMs: number = FLUSH_POLL_MS.FIRST;

  constructor(host: ResponderHost, qp: QueuePair) {
    this.#host = host;
    this.qp = qp;
    qp.addHalf(this);
  }

  get number(): number {
    return this.qp.number;
  }

  get recorder(): MessageRecorder | undefined {
    return this.#host.recorder;
  }

  /** How long a requester must wait when no receive is posted. */
  get receiverNotReadyMs(): number {
    return RNR_TIMER_MS[qpc.get(this.qp.context, 'min_rnr_nak')]!;
  }

  /** Whether the connection of that queue pair ends here. */
  isConnectedTo({ number, service }: QueuePair): boolean {
    const { qp } = this;
    return qp.canReceive && qp.service === service && qpc.get(qp.context, 'remote_qpn') === number;
  }

  /** First message of a connection that is only ready to receive (IB volume 1 §11.6.3.2). */
  announceCommunication(): void {
    if (this.#announced || this.qp.state !== QP_STATE.RTR) return;
    this.#announced = true;
    this.qp.postEvent(EVENT.COMMUNICATION_ESTABLISHED);
  }

  /** Whether a datagram with that key is for this queue pair. */
  acceptsDatagram(qkey: number): boolean {
    const { qp } = this;
    if (!qp.isDatagram || !qp.canReceive) return false;
    if (qp.service === SERVICE.QP0) return true;
    const matches = qkey === qpc.get(qp.context, 'q_key') || qp.service === SERVICE.QP1;
    if (!matches) this.#host.vport.countQkeyViolation();
    return matches;
  }

  count(counter: QCounter): void {
    this.#host.counters.add(this.qp, counter);
  }

  countRequest(operation: WireOperation): void {
    const counter = RECEIVED_REQUESTS[operation];
    if (counter !== undefined) this.count(counter);
  }

  /** Packets that passed this end's port. */
  countTraffic(kind: Traffic, packets: number, octets: number): void {
    this.#host.counters.countTraffic(kind, packets, octets);
  }

  /**
   * Takes a receive for a message of a connection; `sharedNumber`: the queue that an XRC message names. Undefined when
   * none is posted. Throws {@link Nak}, and {@link PeerGone} when the queue pair takes nothing any more.
   */
  takeReceive(sharedNumber: number | undefined): Inbound | undefined {
    if (!this.qp.canReceive) throw new PeerGone();
    try {
      return sharedNumber === undefined ? this.#takeOwn() : this.#takeXrc(sharedNumber);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#reportLostQueue(error);
      this.qp.enterError();
      this.qp.postEvent(EVENT.WQ_CATASTROPHIC);
      throw new Nak('remote operation', error.message);
    }
  }

  /** The same for a datagram, which just gets lost when there is none. */
  takeForDatagram(): Inbound | undefined {
    try {
      const inbound = this.#takeOwn();
      if (inbound === undefined) this.count('out_of_buffer');
      return inbound;
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#reportLostQueue(error);
      this.count('out_of_buffer');
      return undefined;
    }
  }

  /** Where a message that took a receive goes. */
  receiveSide(inbound: Inbound): Side {
    return {
      access: this.#host,
      user: inbound.user,
      pieces: inbound.receive.segments,
      right: 'local-write',
      isAlive: () => this.qp.canReceive && this.#unfinished.has(inbound.receive),
    };
  }

  /** Memory here that a message names by itself. Throws {@link Nak} when it names an XRC queue that it must not use. */
  remoteSide(remote: RemotePlace, lengthBytes: number, right: Right, sharedNumber: number | undefined): Side {
    return {
      access: this.#host,
      user: this.#userFor(sharedNumber),
      pieces: [{ key: remote.key, address: remote.address, lengthBytes }],
      right,
      isAlive: () => this.qp.canReceive,
    };
  }

  /** The queue pair's own permission (qpc.rre, rwe, rae); a message of no bytes needs none. */
  requireRight(field: 'rre' | 'rwe' | 'rae', lengthBytes: number): void {
    if (lengthBytes === 0 || qpc.get(this.qp.context, field) === 1) return;
    throw this.refusal(`queue pair ${this.number} does not permit it`);
  }

  /** Refuses what a message names: an event here, an error there; both stop. On unreliable connections it is silent. */
  refusal(reason: string, failed?: TransferFailed): Nak | Dropped {
    if (!this.qp.isReliable) return new Dropped(reason);
    this.qp.enterError();
    if (failed?.cause instanceof PageMissing) return new Nak('remote operation', reason);
    this.qp.postEvent(EVENT.WQ_ACCESS_ERROR);
    this.count('resp_remote_access_errors');
    return new Nak('remote access', reason);
  }

  /** Refuses what no requester may ask. */
  invalidRequest(reason: string): Nak {
    this.qp.enterError();
    this.qp.postEvent(EVENT.WQ_INVALID_REQUEST);
    return new Nak('invalid request', reason);
  }

  /** A message must fit the receive that it took. Throws {@link Nak} or {@link Dropped}. */
  requireRoom(inbound: Inbound, lengthBytes: number): void {
    const capacity = totalBytes(inbound.receive.segments);
    if (lengthBytes <= capacity) return;
    const reason = `${lengthBytes} bytes for a receive of ${capacity}`;
    if (!this.qp.isReliable) {
      this.#unfinished.delete(inbound.receive);
      throw new Dropped(reason);
    }
    this.fail(inbound, SYNDROME.LOCAL_LENGTH);
    throw new Nak('invalid request', reason);
  }

  /** Ends a receive in error, and the queue pair with it. */
  fail({ receive, xrc }: Inbound, syndrome: Syndrome): void {
    this.#unfinished.delete(receive);
    this.#completeError(receive, xrc, syndrome);
    this.#host.counters.countResponderError(this.qp, syndrome);
    this.qp.enterError();
  }

  complete({ receive, xrc }: Inbound, arrival: Arrival): void {
    this.#unfinished.delete(receive);
    const entry = this.#entry(receive);
    entry.setUint16(CQE.SLID, arrival.sourceLid);
    entry.setUint32(CQE.FLAGS_RQPN, arrival.source);
    entry.setUint32(CQE.IMM_INVALIDATE_PKEY, arrival.immediate);
    entry.setUint32(CQE.BYTE_COUNT, arrival.lengthBytes);
    setOutcome(entry, arrival.opcode, arrival.solicited);
    this.#push(xrc, entry, arrival.solicited);
  }

  /** Takes a key out of use as a sender asked (IB volume 1 §9.4.1.1.3). Throws {@link Nak}. */
  invalidate(inbound: Inbound, keyValue: number): void {
    if (this.#host.memoryKeys.find(keyValue)?.invalidateRemotely(inbound.user) === true) return;
    this.fail(inbound, SYNDROME.REMOTE_ACCESS);
    throw new Nak('remote access', `key 0x${keyValue.toString(16)} cannot be invalidated`);
  }

  /**
   * An atomic operation; returns what was there. Operands are numbers in the entry; memory has the byte order of the
   * guest (atomic_req_8B_endianness_mode, mlx5.md §6.6). Throws TransferFailed.
   */
  exchange(place: Chunk, opcode: number, { swapOrAdd, compare }: { swapOrAdd: bigint; compare: bigint }): bigint {
    const { memory } = this.#host;
    if (place.kind === 'inline') throw new TypeError('remote memory is never inside an entry');
    return guarded('source', () => {
      const old = memory.readU64(place);
      if (opcode === OPCODE.ATOMIC_FETCH_ADD) memory.writeU64(place, BigInt.asUintN(64, old + swapOrAdd));
      else if (old === compare) memory.writeU64(place, swapOrAdd);
      return old;
    });
  }

  /** Flushes a part of the receive queue of a queue pair in error. */
  turn(budget: WorkBudget): TurnResult {
    if (this.qp.isReleased || this.qp.state !== QP_STATE.ERROR) return 'idle';
    try {
      return this.#flush(budget);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#reportLostQueue(error);
      return 'idle';
    }
  }

  reset(): void {
    this.#cancelFlushPoll();
    this.#unfinished.clear();
    this.#announced = false;
    this.qp.receiveRing?.reset();
  }

  enterError(): void {
    if (this.qp.sharedReceiveQueue !== undefined) this.qp.postEvent(EVENT.SRQ_LAST_WQE);
    this.#flushPauseMs = FLUSH_POLL_MS.FIRST;
    this.#host.scheduler.wake(this);
  }

  release(): void {
    this.#cancelFlushPoll();
    this.#host.scheduler.remove(this);
  }

  #takeOwn(): Inbound | undefined {
    const { qp } = this;
    const shared = qp.sharedReceiveQueue;
    const receive = (shared ?? qp.receiveRing)?.take();
    if (receive === undefined) return undefined;
    this.#unfinished.add(receive);
    const protectionDomain = shared?.protectionDomain ?? qp.protectionDomain;
    return {
      receive,
      user: { number: qp.number, protectionDomain, usesReservedKey: qp.usesReservedKey },
      xrc: undefined,
    };
  }

  #takeXrc(sharedNumber: number): Inbound | undefined {
    const { list, xrc } = this.#xrcQueue(sharedNumber);
    const receive = list.take();
    if (receive === undefined) return undefined;
    this.#unfinished.add(receive);
    return { receive, user: this.#xrcUser(list.protectionDomain), xrc };
  }

  /** On whose behalf remote memory is reached: an XRC message brings the domain of the shared queue it names. */
  #userFor(sharedNumber: number | undefined): KeyUser {
    if (sharedNumber === undefined) return this.qp;
    return this.#xrcUser(this.#xrcQueue(sharedNumber).list.protectionDomain);
  }

  #xrcUser(protectionDomain: number): KeyUser {
    return { number: this.number, protectionDomain, usesReservedKey: false };
  }

  /** The queue that an XRC message names. Throws {@link Nak} when this queue pair must not use it. */
  #xrcQueue(number: number): { list: SharedReceiveQueue['list']; xrc: XrcRole } {
    const shared = this.#host.sharedReceiveQueues.find(number);
    const xrc = shared?.xrc;
    if (shared !== undefined && xrc !== undefined && xrc.domain === qpc.get(this.qp.context, 'xrcd')) {
      return { list: shared.list, xrc };
    }
    throw this.invalidRequest(`there is no XRC shared receive queue ${number}`);
  }

  #flush(budget: WorkBudget): TurnResult {
    for (const receive of this.#unfinished) this.#flushReceive(receive);
    this.#unfinished.clear();
    const ring = this.qp.receiveRing;
    if (ring === undefined || this.qp.sharedReceiveQueue !== undefined) return 'idle';
    while (!budget.isSpent) {
      const receive = ring.take();
      if (receive === undefined) {
        this.#pollFlush();
        return 'idle';
      }
      this.#flushPauseMs = FLUSH_POLL_MS.FIRST;
      this.#flushReceive(receive);
      budget.charge(REQUEST_UNITS);
    }
    return 'ready';
  }

  #flushReceive(receive: Receive): void {
    this.count('resp_cqe_flush_error');
    this.#completeError(receive, undefined, SYNDROME.FLUSHED);
  }

  #completeError(receive: Receive, xrc: XrcRole | undefined, syndrome: Syndrome): void {
    const entry = this.#entry(receive);
    setError(entry, 'responder', syndrome);
    this.#push(xrc, entry, true);
  }

  /** The fields of a receive's completion that do not depend on the message. */
  #entry({ counter }: Receive): DataView {
    return completionEntry({ userIndex: this.qp.userIndex, queue: this.number, counter });
  }

  #push(xrc: XrcRole | undefined, entry: DataView, solicited: boolean): void {
    if (xrc === undefined) {
      this.qp.receiveCompletionQueue?.push(entry, solicited);
      return;
    }
    entry.setUint32(CQE.SRQN_USER_INDEX, xrc.userIndex);
    this.#host.completionQueues.find(xrc.completionQueue)?.push(entry, solicited);
  }

  #pollFlush(): void {
    this.#cancelFlushPoll();
    this.#flushPoll = this.#host.port.clock.after(this.#flushPauseMs, () => {
      this.#flushPoll = undefined;
      this.#host.scheduler.wake(this);
    });
    this.#flushPauseMs = Math.min(2 * this.#flushPauseMs, FLUSH_POLL_MS.LAST);
  }

  #cancelFlushPoll(): void {
    this.#flushPoll?.cancel();
    this.#flushPoll = undefined;
  }

  #reportLostQueue(error: DmaError): void {
    reportDmaError(this.#host.port.log, 'a receive queue cannot be reached', { qpn: this.number }, error);
  }
}
