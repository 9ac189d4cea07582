/** Receive queues of the netdev and of raw packet queues. */
import { DmaError, type FunctionPort } from 'ghostbus';
import { rqc, wq } from '../layouts/contexts.js';
import { AccessRefused, type KeyUser, PageMissing } from '../memory/access.js';
import { reportDmaError } from '../memory/dma-report.js';
import type { GuestBuffer } from '../memory/guest-buffer.js';
import type { Extent, KeyedMemory } from '../memory/keyed-memory.js';
import type { MemoryKeys } from '../memory/memory-keys.js';
import {
  CQE,
  CQE_OPCODE,
  completionEntry,
  SYNDROME,
  type Syndrome,
  setError,
  setOutcome,
} from '../queues/completion-entry.js';
import type { CompletionQueues } from '../queues/completion-queue.js';
import { doorbellAddress } from '../queues/doorbell-record.js';
import { type Receive, ReceiveRing } from '../queues/receive-queue.js';
import { totalBytes } from '../queues/work-queue-entry.js';
import type { WorkQueue } from '../queues/work-queues.js';
import { receiveChecksum } from './frame.js';
import { WQ_STATE } from './work-queue-state.js';

/** What a receive queue needs of its adapter. */
export interface ReceiveQueueHost {
  readonly port: Pick<FunctionPort, 'dma' | 'log'>;
  readonly memory: KeyedMemory;
  readonly memoryKeys: Pick<MemoryKeys, 'translate'>;
  readonly completionQueues: Pick<CompletionQueues, 'find'>;
}

const FLUSH_BATCH = 64;

/** What steering found out about a frame. */
interface FrameInfo {
  readonly hash: number;
  readonly hashed: boolean;
  readonly tag: number;
}

export class EthernetReceiveQueue implements WorkQueue {
  readonly number: number;
  readonly context: DataView;
  readonly #host: ReceiveQueueHost;
  readonly #buffer: GuestBuffer;
  readonly #ring: ReceiveRing;
  readonly #user: KeyUser;
  #dropped = 0;

  constructor(host: ReceiveQueueHost, number: number, context: DataView, buffer: GuestBuffer) {
    const queue = rqc.part(context, 'wq');
    this.#host = host;
    this.number = number;
    this.context = context;
    this.#buffer = buffer;
    this.#ring = new ReceiveRing(host.port.dma, {
      buffer,
      start: 0,
      logSize: wq.get(queue, 'log_wq_sz'),
      strideBytes: 2 ** wq.get(queue, 'log_wq_stride'),
      doorbellRecord: doorbellAddress(wq.get64(queue, 'dbr_addr')),
    });
    this.#user = {
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
      reportDmaError(this.#host.port.log, 'a receive queue cannot be reached', { rqn: this.number }, error);
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
        this.#host.memory.write(extent, 0, frame.subarray(done, done + extent.lengthBytes));
        done += extent.lengthBytes;
      }
    }
    this.#complete(receive, frame, info);
  }

  #translate(piece: { key: number; address: bigint; lengthBytes: number }): Extent[] | undefined {
    const extents: Extent[] = [];
    try {
      this.#host.memoryKeys.translate(this.#user, { ...piece, right: 'local-write' }, extents);
    } catch (error) {
      if (error instanceof AccessRefused || error instanceof PageMissing) {
        this.#host.port.log.warn('a frame could not be stored', { rqn: this.number, reason: error.message });
        return undefined;
      }
      throw error;
    }
    return extents;
  }

  #complete(receive: Receive, frame: Uint8Array, info: FrameInfo): void {
    const cqe = this.#entry(receive, info.tag);
    if (info.hashed) {
      cqe.setUint32(CQE.RSS_HASH_RESULT, info.hash);
      // Nonzero means that there is a hash.
      cqe.setUint8(CQE.RSS_HASH_TYPE, 1);
    }
    cqe.setUint16(CQE.CHECKSUM, receiveChecksum(frame));
    cqe.setUint32(CQE.BYTE_COUNT, frame.length);
    setOutcome(cqe, CQE_OPCODE.RESPONDER_SEND, false);
    this.#push(cqe, false);
  }

  #completeError(receive: Receive, syndrome: Syndrome): void {
    const cqe = this.#entry(receive, this.number);
    setError(cqe, 'responder', syndrome);
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

  #push(cqe: DataView, solicited: boolean): void {
    this.#host.completionQueues.find(rqc.get(this.context, 'cqn'))?.push(cqe, solicited);
  }

  /** `source`: the queue, or the tag of the rule that brought the frame here. */
  #entry({ counter }: Receive, source: number): DataView {
    return completionEntry({ userIndex: rqc.get(this.context, 'user_index'), queue: source, counter });
  }
}
