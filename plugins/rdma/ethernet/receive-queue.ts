/** Receive queues of the netdev and of raw packet queues. */

import { DmaError } from 'ghostbus';
import type { Adapter } from '../adapter.js';
import { rqc, wq } from '../layouts/contexts.js';
import { reportDmaError } from '../memory/dma-report.js';
import type { GuestBuffer } from '../memory/guest-buffer.js';
import { AccessRefused, type Extent, PageMissing, type Requester } from '../memory/memory-key.js';
import { CQE, CQE_OPCODE, doorbellAddress, operationByte } from '../queues/completion-queue.js';
import { SYNDROME } from '../queues/queue-pair.js';
import { type Receive, ReceiveRing } from '../queues/receive-queue.js';
import { totalBytes } from '../queues/work-queue-entry.js';
import { receiveChecksum } from './frame.js';
import { WQ_STATE } from './send-queue.js';

/** cqe.rss_hash_result and the type behind it; nonzero means that there is a hash. */
const CQE_HASH = { RESULT: 12, TYPE: 16 } as const;
const FLUSH_BATCH = 64;

/** What steering found out about a frame. */
export interface FrameInfo {
  readonly hash: number;
  readonly hashed: boolean;
  readonly tag: number;
}

export class EthernetReceiveQueue {
  readonly kind = 'receive queue';
  readonly number: number;
  readonly context: DataView;
  readonly #adapter: Adapter;
  readonly #buffer: GuestBuffer;
  readonly #ring: ReceiveRing;
  readonly #owner: Requester;
  #dropped = 0;

  constructor(adapter: Adapter, number: number, context: DataView, buffer: GuestBuffer) {
    const queue = rqc.part(context, 'wq');
    this.#adapter = adapter;
    this.number = number;
    this.context = context;
    this.#buffer = buffer;
    this.#ring = new ReceiveRing(adapter.port.dma, {
      buffer,
      start: 0,
      logSize: wq.get(queue, 'log_wq_sz'),
      strideBytes: 2 ** wq.get(queue, 'log_wq_stride'),
      doorbellRecord: doorbellAddress(wq.get64(queue, 'dbr_addr')),
    });
    this.#owner = {
      number,
      protectionDomain: wq.get(queue, 'pd'),
      usesReservedKey: rqc.get(context, 'rlky') === 1,
    };
  }

  get state(): number {
    return rqc.get(this.context, 'state');
  }

  setState(state: number): void {
    rqc.set(this.context, 'state', state);
    if (state === WQ_STATE.RESET) this.#ring.reset();
    if (state === WQ_STATE.ERROR && rqc.get(this.context, 'flush_in_error_en') === 1) this.#flush();
  }

  /** Doorbells name send queues only. */
  ring(): void {}

  /** Takes a frame; one that finds no room is dropped. */
  receive(frame: Uint8Array, info: FrameInfo): void {
    if (this.state !== WQ_STATE.READY) return;
    try {
      const receive = this.#ring.take();
      if (receive === undefined) {
        this.#dropped++;
        return;
      }
      this.#scatter(receive, frame, info);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      reportDmaError(this.#adapter.port.log, 'a receive queue cannot be reached', { rqn: this.number }, error);
      rqc.set(this.context, 'state', WQ_STATE.ERROR);
    }
  }

  release(): void {
    this.#buffer.release();
  }

  inspect(): unknown {
    return { rqn: this.number, state: this.state, dropped: this.#dropped };
  }

  #scatter(receive: Receive, frame: Uint8Array, info: FrameInfo): void {
    if (totalBytes(receive.segments) < frame.length) {
      this.#completeError(receive, SYNDROME.LOCAL_LENGTH);
      return;
    }
    let done = 0;
    for (const segment of receive.segments) {
      const lengthBytes = Math.min(segment.lengthBytes, frame.length - done);
      if (lengthBytes === 0) break;
      const extents = this.#translate({ ...segment, lengthBytes });
      if (extents === undefined) {
        this.#completeError(receive, SYNDROME.LOCAL_PROTECTION);
        return;
      }
      for (const extent of extents) {
        const part = frame.subarray(done, done + extent.lengthBytes);
        if (extent.address >= 0) this.#adapter.dma.write(extent.address, part);
        done += extent.lengthBytes;
      }
    }
    this.#complete(receive, frame, info);
  }

  #translate(piece: { key: number; address: bigint; lengthBytes: number }): Extent[] | undefined {
    const extents: Extent[] = [];
    try {
      this.#adapter.memoryKeys.translate(this.#owner, { ...piece, right: 'local-write' }, extents);
    } catch (error) {
      if (error instanceof AccessRefused || error instanceof PageMissing) {
        this.#adapter.port.log.warn('a frame could not be stored', { rqn: this.number, reason: error.message });
        return undefined;
      }
      throw error;
    }
    return extents;
  }

  #complete(receive: Receive, frame: Uint8Array, info: FrameInfo): void {
    const cqe = this.#entry(receive);
    const view = new DataView(cqe.buffer);
    if (info.hashed) {
      view.setUint32(CQE_HASH.RESULT, info.hash);
      view.setUint8(CQE_HASH.TYPE, 1);
    }
    view.setUint16(CQE.CHECKSUM, receiveChecksum(frame));
    view.setUint32(CQE.BYTE_COUNT, frame.length);
    view.setUint32(CQE.OPCODE_QPN, info.tag);
    cqe[CQE.OP_OWN] = operationByte(CQE_OPCODE.RESPONDER_SEND, false);
    this.#push(cqe, false);
  }

  #completeError(receive: Receive, syndrome: number): void {
    const cqe = this.#entry(receive);
    cqe[CQE.SYNDROME] = syndrome;
    cqe[CQE.OP_OWN] = operationByte(CQE_OPCODE.RESPONDER_ERROR, false);
    rqc.set(this.context, 'state', WQ_STATE.ERROR);
    this.#push(cqe, true);
  }

  #flush(): void {
    for (let count = 0; count < FLUSH_BATCH; count++) {
      const receive = this.#ring.take();
      if (receive === undefined) return;
      this.#completeError(receive, SYNDROME.FLUSHED);
    }
  }

  #push(cqe: Uint8Array, solicited: boolean): void {
    this.#adapter.completionQueues.find(rqc.get(this.context, 'cqn'))?.push(cqe, solicited);
  }

  #entry(receive: Receive): Uint8Array {
    const cqe = new Uint8Array(CQE.BYTES);
    const view = new DataView(cqe.buffer);
    view.setUint32(CQE.SRQN_USER_INDEX, rqc.get(this.context, 'user_index'));
    view.setUint32(CQE.OPCODE_QPN, this.number);
    view.setUint16(CQE.WQE_COUNTER, receive.counter);
    return cqe;
  }
}
