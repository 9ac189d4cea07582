/** Executes a queue pair's sends in order, a slice per turn; flushes them when the queue pair is in error. */

import { DmaError } from 'ghostbus';
import { qpc } from '../layouts/contexts.js';
import { reportDmaError } from '../memory/dma-report.js';
import { CQE, CQE_OPCODE, operationByte } from '../queues/completion-queue.js';
import { EVENT } from '../queues/event-queue.js';
import { QP_STATE, type QueuePair, SYNDROME } from '../queues/queue-pair.js';
import type { Runnable } from '../queues/scheduler.js';
import { OPCODE, type SendEntry } from '../queues/work-queue-entry.js';
import { perform, RequestFailed } from './requester.js';
import { TURN_BYTES, type Waiter, type Work } from './transfer.js';

/** Sends, or flushed entries, per turn. */
const BATCH = 64;

export class SendEngine implements Runnable, Waiter {
  readonly #qp: QueuePair;
  #work: Work | undefined;
  #paused = false;
  #forget: (() => void) | undefined;
  /** Bytes moved in this turn. */
  #movedBytes = 0;

  constructor(qp: QueuePair) {
    this.#qp = qp;
  }

  /** Waits for a page, a receive of the other side, or a timer. */
  get isPaused(): boolean {
    return this.#paused;
  }

  /** The driver rang: what is posted now is executed in turns that follow. */
  ring(): void {
    try {
      this.#qp.sendQueue?.announce();
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#reportLostRing(error);
      return;
    }
    this.wake();
  }

  wake(): void {
    if (!this.#qp.isReleased) this.#qp.adapter.scheduler.kick(this);
  }

  onAbandon(forget: (() => void) | undefined): void {
    this.#forget = forget;
  }

  /** Drops what is being executed: no completion, nothing more moves. */
  abandon(): void {
    this.#forget?.();
    this.#forget = undefined;
    this.#work = undefined;
    this.#paused = false;
    this.#qp.adapter.scheduler.remove(this);
  }

  turn(): boolean {
    const qp = this.#qp;
    if (qp.isReleased) return false;
    try {
      if (qp.state === QP_STATE.ERROR) {
        const more = this.#flushSends();
        return qp.flushReceives() || more;
      }
      if (qp.state === QP_STATE.SQ_ERROR) return this.#flushSends();
      return qp.state === QP_STATE.RTS ? this.#advance() : false;
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#reportLostRing(error);
      return false;
    }
  }

  #advance(): boolean {
    this.#movedBytes = 0;
    for (let count = 0; count < BATCH && this.#movedBytes < TURN_BYTES; count++) {
      if (this.#work === undefined) {
        const entry = this.#qp.sendQueue?.peek();
        if (entry === undefined) return false;
        this.#work = this.#execute(entry);
      }
      this.#paused = false;
      const work = this.#work;
      const step = work.next();
      // The work may have put the queue pair in error, which abandons it.
      if (this.#work !== work) return this.#qp.state === QP_STATE.ERROR || this.#qp.state === QP_STATE.SQ_ERROR;
      if (step.done) {
        this.#work = undefined;
      } else if (step.value === 'wait') {
        this.#paused = true;
        return false;
      } else {
        return true;
      }
    }
    return true;
  }

  *#execute(entry: SendEntry): Work {
    try {
      if (entry.isMalformed)
        throw new RequestFailed(SYNDROME.LOCAL_QP_OPERATION, 'the entry is longer than what is posted');
      const lengthBytes = yield* perform({ qp: this.#qp, waiter: this, entry });
      this.#movedBytes += lengthBytes;
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
    const view = new DataView(cqe.buffer);
    if (returnsData(entry.opcode)) view.setUint32(CQE.BYTE_COUNT, lengthBytes);
    cqe[CQE.OP_OWN] = operationByte(CQE_OPCODE.REQUESTER, false);
    this.#qp.sendCompletionQueue?.push(cqe, entry.solicited);
  }

  #fail(entry: SendEntry, { syndrome, message }: RequestFailed): void {
    const qp = this.#qp;
    qp.adapter.port.log.info('a send failed', { qpn: qp.number, opcode: entry.opcode, syndrome, reason: message });
    qp.adapter.counters.countRequesterError(qp, syndrome);
    qp.sendQueue!.retire(entry);
    this.#pushError(entry, syndrome);
    if (qp.isReliable || qp.state !== QP_STATE.RTS) {
      qp.enterError();
    } else {
      // IB volume 1 §10.3.1.5: unreliable services can go on after the driver has cleaned up.
      this.abandon();
      qp.setState(QP_STATE.SQ_ERROR);
      qp.adapter.scheduler.kick(this);
    }
  }

  #pushError(entry: SendEntry, syndrome: number): void {
    const cqe = this.#entry(entry);
    cqe[CQE.SYNDROME] = syndrome;
    cqe[CQE.OP_OWN] = operationByte(CQE_OPCODE.REQUESTER_ERROR, false);
    this.#qp.sendCompletionQueue?.push(cqe, true);
  }

  #entry(entry: SendEntry): Uint8Array {
    const cqe = new Uint8Array(CQE.BYTES);
    const view = new DataView(cqe.buffer);
    view.setUint32(CQE.SRQN_USER_INDEX, qpc.get(this.#qp.context, 'user_index'));
    view.setUint32(CQE.OPCODE_QPN, ((entry.opcode << 24) | this.#qp.number) >>> 0);
    view.setUint16(CQE.WQE_COUNTER, entry.index);
    return cqe;
  }

  /** Completes a batch of what is posted as flushed; true when there is more. */
  #flushSends(): boolean {
    const queue = this.#qp.sendQueue;
    if (queue === undefined) return false;
    for (let count = 0; count < BATCH; count++) {
      const entry = queue.peek();
      if (entry === undefined) return false;
      queue.retire(entry);
      this.#qp.adapter.counters.add(this.#qp, 'req_cqe_flush_error');
      this.#pushError(entry, SYNDROME.FLUSHED);
    }
    return true;
  }

  #reportLostRing(error: DmaError): void {
    const qp = this.#qp;
    reportDmaError(qp.adapter.port.log, 'a queue pair cannot reach its rings', { qpn: qp.number }, error);
    this.abandon();
    if (qp.state === QP_STATE.ERROR) return;
    qp.setState(QP_STATE.ERROR);
    qp.postEvent(EVENT.WQ_CATASTROPHIC);
  }
}

function returnsData(opcode: number): boolean {
  return opcode === OPCODE.RDMA_READ || opcode === OPCODE.ATOMIC_COMPARE_SWAP || opcode === OPCODE.ATOMIC_FETCH_ADD;
}
