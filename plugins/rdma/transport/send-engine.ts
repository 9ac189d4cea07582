/**
 * The sending half of a queue pair: executes sends in order, a slice per turn; flushes them when the queue pair is in
 * error.
 */
import { type Clock, DmaError, type FunctionPort } from 'ghostbus';
import { type Runnable, type Scheduler, type TurnResult, WorkBudget } from 'ghostbus/kit';
import { reportDmaError } from '../memory/dma-report.js';
import type { Counters } from '../port/counters.js';
import {
  CQE,
  CQE_OPCODE,
  completionEntry,
  SYNDROME,
  type Syndrome,
  setError,
  setOutcome,
} from '../queues/completion-entry.js';
import { EVENT } from '../queues/event-queue.js';
import { QP_STATE, type QueuePair, type QueuePairHalf } from '../queues/queue-pair.js';
import { REQUEST_UNITS } from '../queues/turns.js';
import { OPCODE, type SendEntry } from '../queues/work-queue-entry.js';
import { Requester, type RequesterHost } from './requester.js';
import { type Origin, RequestFailed } from './sending.js';
import type { Waiter, Work } from './transfer.js';

/** States in which a doorbell means nothing yet. */
const DEAF_STATES: readonly number[] = [QP_STATE.RESET, QP_STATE.INIT, QP_STATE.RTR];

/** What a sending half needs of its adapter. */
export interface SendEngineHost extends RequesterHost {
  readonly port: Pick<FunctionPort, 'clock' | 'log'>;
  readonly scheduler: Pick<Scheduler, 'wake' | 'remove'>;
  readonly counters: Pick<Counters, 'add' | 'countRequesterError'>;
  readonly vport: Origin;
}

export class SendEngine implements QueuePairHalf, Runnable, Waiter {
  readonly clock: Clock;
  readonly #host: SendEngineHost;
  readonly #qp: QueuePair;
  readonly #requester: Requester;
  #work: Work | undefined;
  #paused = false;
  #forget: (() => void) | undefined;
  /** Of the present turn, or the last. */
  #budget = new WorkBudget(0);

  constructor(host: SendEngineHost, qp: QueuePair) {
    this.#host = host;
    this.clock = host.port.clock;
    this.#qp = qp;
    this.#requester = new Requester(host);
    qp.addHalf(this);
  }

  /** Waits for a page, a receive of the other side, or a timer. */
  get isPaused(): boolean {
    return this.#paused;
  }

  /** The driver rang: what is posted now is executed in turns that follow. */
  ring(): void {
    if (DEAF_STATES.includes(this.#qp.state)) return;
    try {
      this.#qp.sendQueue?.announce();
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#reportLostRing(error);
      return;
    }
    this.wake();
  }

  get budget(): WorkBudget {
    return this.#budget;
  }

  wake(): void {
    if (!this.#qp.isReleased) this.#host.scheduler.wake(this);
  }

  onAbandon(forget: (() => void) | undefined): void {
    this.#forget = forget;
  }

  reset(): void {
    this.#abandon();
    this.#qp.sendQueue?.reset();
  }

  enterError(): void {
    this.#abandon();
    this.#host.scheduler.wake(this);
  }

  release(): void {
    this.#abandon();
  }

  turn(budget: WorkBudget): TurnResult {
    this.#budget = budget;
    const { state, isReleased } = this.#qp;
    if (isReleased) return 'idle';
    try {
      if (state === QP_STATE.ERROR || state === QP_STATE.SQ_ERROR) return this.#flush(budget);
      return state === QP_STATE.RTS ? this.#advance(budget) : 'idle';
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#reportLostRing(error);
      return 'idle';
    }
  }

  /** Drops what is being executed: no completion, nothing more moves. */
  #abandon(): void {
    this.#forget?.();
    this.#forget = undefined;
    this.#work = undefined;
    this.#paused = false;
    this.#host.scheduler.remove(this);
  }

  #advance(budget: WorkBudget): TurnResult {
    while (!budget.isSpent) {
      if (this.#work === undefined) {
        const entry = this.#qp.sendQueue?.peek();
        if (entry === undefined) return 'idle';
        this.#work = this.#execute(entry);
      }
      this.#paused = false;
      const work = this.#work;
      const step = work.next();
      budget.charge(REQUEST_UNITS);
      // The work may have put the queue pair in error, which abandons it and asks for turns to flush.
      if (this.#work !== work) return 'idle';
      if (step.done) {
        this.#work = undefined;
      } else if (step.value === 'wait') {
        this.#paused = true;
        return 'idle';
      } else {
        return 'ready';
      }
    }
    return 'ready';
  }

  *#execute(entry: SendEntry): Work {
    try {
      if (entry.isMalformed) {
        throw new RequestFailed(SYNDROME.LOCAL_QP_OPERATION, 'the entry is longer than what is posted');
      }
      const sending = { qp: this.#qp, origin: this.#host.vport, waiter: this, entry };
      const lengthBytes = yield* this.#requester.perform(sending);
      this.#complete(entry, lengthBytes);
    } catch (error) {
      if (!(error instanceof RequestFailed)) throw error;
      this.#fail(entry, error);
    }
  }

  #complete(entry: SendEntry, lengthBytes: number): void {
    this.#qp.sendQueue!.retire(entry);
    if (!entry.completes) return;
    const cqe = this.#entry(entry);
    if (returnsData(entry.opcode)) cqe.setUint32(CQE.BYTE_COUNT, lengthBytes);
    setOutcome(cqe, CQE_OPCODE.REQUESTER, false);
    this.#qp.sendCompletionQueue?.push(cqe, entry.solicited);
  }

  #fail(entry: SendEntry, { syndrome, message }: RequestFailed): void {
    const qp = this.#qp;
    this.#host.port.log.info('a send failed', { qpn: qp.number, opcode: entry.opcode, syndrome, reason: message });
    this.#host.counters.countRequesterError(qp, syndrome);
    qp.sendQueue!.retire(entry);
    this.#pushError(entry, syndrome);
    if (qp.isReliable || qp.state !== QP_STATE.RTS) {
      qp.enterError();
    } else {
      // IB volume 1 §10.3.1.5: unreliable services can go on after the driver has cleaned up.
      this.#abandon();
      qp.setState(QP_STATE.SQ_ERROR);
      this.#host.scheduler.wake(this);
    }
  }

  #pushError(entry: SendEntry, syndrome: Syndrome): void {
    const cqe = this.#entry(entry);
    setError(cqe, 'requester', syndrome);
    this.#qp.sendCompletionQueue?.push(cqe, true);
  }

  #entry({ opcode, index }: SendEntry): DataView {
    const { userIndex, number } = this.#qp;
    return completionEntry({ userIndex, queue: number, sendOpcode: opcode, counter: index });
  }

  /** Completes what is posted as flushed. */
  #flush(budget: WorkBudget): TurnResult {
    const queue = this.#qp.sendQueue;
    while (!budget.isSpent) {
      const entry = queue?.peek();
      if (queue === undefined || entry === undefined) return 'idle';
      queue.retire(entry);
      this.#host.counters.add(this.#qp, 'req_cqe_flush_error');
      this.#pushError(entry, SYNDROME.FLUSHED);
      budget.charge(REQUEST_UNITS);
    }
    return 'ready';
  }

  #reportLostRing(error: DmaError): void {
    const qp = this.#qp;
    reportDmaError(this.#host.port.log, 'a queue pair cannot reach its rings', { qpn: qp.number }, error);
    this.#abandon();
    if (qp.state === QP_STATE.ERROR) return;
    qp.setState(QP_STATE.ERROR);
    qp.postEvent(EVENT.WQ_CATASTROPHIC);
  }
}

function returnsData(opcode: number): boolean {
  return opcode === OPCODE.RDMA_READ || opcode === OPCODE.ATOMIC_COMPARE_SWAP || opcode === OPCODE.ATOMIC_FETCH_ADD;
}
