/** Send queues of the netdev: frames, checksums and segmentation on the way out. */
import { DmaError, type FunctionPort } from 'ghostbus';
import { COST, type Runnable, type Scheduler, type TurnResult, type WorkBudget } from 'ghostbus/kit';
import { sqc, wq } from '../layouts/contexts.js';
import { AccessRefused, type KeyUser, PageMissing } from '../memory/access.js';
import { reportDmaError } from '../memory/dma-report.js';
import type { GuestBuffer } from '../memory/guest-buffer.js';
import type { Extent, KeyedMemory } from '../memory/keyed-memory.js';
import type { MemoryKeys } from '../memory/memory-keys.js';
import {
  CQE_OPCODE,
  completionEntry,
  SYNDROME,
  type Syndrome,
  setError,
  setOutcome,
} from '../queues/completion-entry.js';
import type { CompletionQueues } from '../queues/completion-queue.js';
import { doorbellAddress, SEND_RECORD_OFFSET } from '../queues/doorbell-record.js';
import { SendQueue } from '../queues/send-queue.js';
import { REQUEST_UNITS } from '../queues/turns.js';
import {
  MalformedEntry,
  OPCODE,
  SegmentReader,
  type SendEntry,
  type SendPiece,
  totalBytes,
} from '../queues/work-queue-entry.js';
import type { WorkQueue } from '../queues/work-queues.js';
import { completeChecksums, ETHERNET_HEADER_BYTES, segment } from './frame.js';
import { WQ_STATE } from './work-queue-state.js';

/** What a send queue needs of its adapter. */
export interface SendQueueHost {
  readonly port: Pick<FunctionPort, 'dma' | 'log'>;
  readonly scheduler: Pick<Scheduler, 'wake' | 'remove'>;
  readonly memory: KeyedMemory;
  readonly memoryKeys: Pick<MemoryKeys, 'translate'>;
  readonly completionQueues: Pick<CompletionQueues, 'find'>;
  /** The way out. */
  sendFrame(frame: Uint8Array): void;
}

/** `struct mlx5_wqe_eth_seg`, from the start of the entry. */
const ETH_SEGMENT = { START: 16, BYTES: 16, FLAGS: 20, MSS: 22, INLINE_SIZE: 28, INLINE: 30 } as const;
/** First inline bytes that lie in the segment itself. */
const INLINE_IN_SEGMENT = 2;
/** cs_flags (include/linux/mlx5/qp.h `MLX5_ETH_WQE_L3_CSUM`, `_L4_CSUM`). */
const CHECKSUM = { L3: 0x40, L4: 0x80 } as const;
/** A segmented send: 64 KiB of IP packet and its headers; max_lso_cap is 16. */
const MAX_SEND_BYTES = 64 * 1024 + 512;
/** An entry that cannot be sent: it completes in error and the queue stops. */
class SendFailed extends Error {
  readonly syndrome: Syndrome;

  constructor(syndrome: Syndrome, reason: string) {
    super(reason);
    this.syndrome = syndrome;
  }
}

export class EthernetSendQueue implements WorkQueue, Runnable {
  readonly number: number;
  readonly context: DataView;
  readonly #host: SendQueueHost;
  readonly #buffer: GuestBuffer;
  readonly #queue: SendQueue;
  readonly #user: KeyUser;
  #released = false;
  /** What is left of a segmented send, and its entry. */
  #segments: { readonly frames: Iterator<Uint8Array>; readonly entry: SendEntry } | undefined;

  constructor(host: SendQueueHost, number: number, context: DataView, buffer: GuestBuffer) {
    const queue = sqc.part(context, 'wq');
    const record = doorbellAddress(wq.get64(queue, 'dbr_addr'));
    this.#host = host;
    this.number = number;
    this.context = context;
    this.#buffer = buffer;
    this.#queue = new SendQueue(host.port.dma, buffer, 0, wq.get(queue, 'log_wq_sz'), record + SEND_RECORD_OFFSET);
    this.#user = {
      number,
      protectionDomain: wq.get(queue, 'pd'),
      usesReservedKey: sqc.get(context, 'rlky') === 1,
    };
  }

  get state(): number {
    return sqc.get(this.context, 'state');
  }

  setState(state: number): void {
    sqc.set(this.context, 'state', state);
    if (state === WQ_STATE.RESET) {
      this.#segments = undefined;
      this.#queue.reset();
    }
    if (state === WQ_STATE.ERROR) this.ring();
  }

  ring(): void {
    if (this.state !== WQ_STATE.RESET) this.#host.scheduler.wake(this);
  }

  turn(budget: WorkBudget): TurnResult {
    if (this.#released) return 'idle';
    try {
      this.#queue.announce();
      while (!budget.isSpent) {
        const entry = this.#segments?.entry ?? this.#queue.peek();
        if (entry === undefined) return 'idle';
        if (this.#segments === undefined) this.#queue.retire(entry);
        budget.charge(REQUEST_UNITS);
        this.#perform(entry, budget);
      }
      return 'ready';
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      reportDmaError(this.#host.port.log, 'a send queue cannot reach its ring', { sqn: this.number }, error);
      sqc.set(this.context, 'state', WQ_STATE.ERROR);
      return 'idle';
    }
  }

  release(): void {
    this.#released = true;
    this.#host.scheduler.remove(this);
    this.#buffer.release();
  }

  #perform(entry: SendEntry, budget: WorkBudget): void {
    if (this.state === WQ_STATE.ERROR) {
      this.#segments = undefined;
      if (sqc.get(this.context, 'flush_in_error_en') === 1) this.#completeError(entry, SYNDROME.FLUSHED);
      return;
    }
    try {
      this.#send(entry, budget);
    } catch (error) {
      if (!(error instanceof SendFailed) && !(error instanceof MalformedEntry)) throw error;
      this.#host.port.log.warn('a frame could not be sent', { sqn: this.number, reason: error.message });
      this.#segments = undefined;
      sqc.set(this.context, 'state', WQ_STATE.ERROR);
      this.#completeError(entry, error instanceof SendFailed ? error.syndrome : SYNDROME.LOCAL_QP_OPERATION);
      return;
    }
    if (this.#segments === undefined && entry.completes) this.#complete(entry);
  }

  #send(entry: SendEntry, budget: WorkBudget): void {
    if (this.#segments !== undefined) {
      this.#sendSegments(this.#segments.frames, budget);
      return;
    }
    if (entry.isMalformed) throw new MalformedEntry('the entry is longer than what is posted');
    if (entry.opcode === OPCODE.NOP) return;
    if (entry.opcode !== OPCODE.SEND && entry.opcode !== OPCODE.LSO) {
      throw new MalformedEntry(`opcode 0x${entry.opcode.toString(16)} on a send queue`);
    }
    const { frame, inlineBytes } = this.#gather(entry);
    const flags = entry.view.getUint8(ETH_SEGMENT.FLAGS);
    const want = { l3: (flags & CHECKSUM.L3) !== 0, l4: (flags & CHECKSUM.L4) !== 0 };
    if (entry.opcode === OPCODE.SEND) {
      this.#transmit(frame, want);
      return;
    }
    const segmentBytes = entry.view.getUint16(ETH_SEGMENT.MSS) & 0x3fff;
    if (segmentBytes === 0 || inlineBytes < ETHERNET_HEADER_BYTES) {
      throw new MalformedEntry('segmentation without a segment size or without headers');
    }
    this.#segments = { frames: segment(frame, inlineBytes, segmentBytes), entry };
    this.#sendSegments(this.#segments.frames, budget);
  }

  /** As many as this turn's budget has room for. */
  #sendSegments(frames: Iterator<Uint8Array>, budget: WorkBudget): void {
    while (!budget.isSpent) {
      const next = frames.next();
      if (next.done) {
        this.#segments = undefined;
        return;
      }
      this.#transmit(next.value, { l3: true, l4: true });
      budget.charge(REQUEST_UNITS + next.value.length * COST.byte);
    }
  }

  #transmit(frame: Uint8Array, want: { readonly l3: boolean; readonly l4: boolean }): void {
    if (frame.length < ETHERNET_HEADER_BYTES) throw new MalformedEntry(`a frame of ${frame.length} bytes`);
    if (want.l3 || want.l4) completeChecksums(frame, want);
    this.#host.sendFrame(frame);
  }

  #gather(entry: SendEntry): { frame: Uint8Array; inlineBytes: number } {
    const { view } = entry;
    if (view.byteLength < ETH_SEGMENT.START + ETH_SEGMENT.BYTES) throw new MalformedEntry('no Ethernet segment');
    const inlineBytes = view.getUint16(ETH_SEGMENT.INLINE_SIZE) & 0x3ff;
    if (ETH_SEGMENT.INLINE + inlineBytes > view.byteLength) {
      throw new MalformedEntry('inline headers leave their entry');
    }
    const reader = new SegmentReader(view);
    const behind = Math.ceil(Math.max(0, inlineBytes - INLINE_IN_SEGMENT) / 16) * 16;
    reader.seek(ETH_SEGMENT.START + ETH_SEGMENT.BYTES + behind);
    const pieces = reader.pieces();
    const sizeBytes = inlineBytes + totalBytes(pieces);
    if (sizeBytes > MAX_SEND_BYTES) throw new SendFailed(SYNDROME.LOCAL_LENGTH, `a send of ${sizeBytes} bytes`);
    const frame = new Uint8Array(sizeBytes);
    frame.set(new Uint8Array(view.buffer, view.byteOffset + ETH_SEGMENT.INLINE, inlineBytes));
    this.#readPieces(pieces, frame.subarray(inlineBytes));
    return { frame, inlineBytes };
  }

  #readPieces(pieces: readonly SendPiece[], target: Uint8Array): void {
    let done = 0;
    for (const piece of pieces) {
      if ('inline' in piece) {
        target.set(piece.inline, done);
        done += piece.lengthBytes;
        continue;
      }
      for (const extent of this.#translate(piece)) {
        this.#host.memory.read(extent, 0, target.subarray(done, done + extent.lengthBytes));
        done += extent.lengthBytes;
      }
    }
  }

  #translate(piece: { key: number; address: bigint; lengthBytes: number }): Extent[] {
    const extents: Extent[] = [];
    try {
      this.#host.memoryKeys.translate(this.#user, { ...piece, right: 'local-read' }, extents);
    } catch (error) {
      if (error instanceof AccessRefused || error instanceof PageMissing) {
        throw new SendFailed(SYNDROME.LOCAL_PROTECTION, error.message);
      }
      throw error;
    }
    return extents;
  }

  #complete(entry: SendEntry): void {
    const cqe = this.#entry(entry);
    setOutcome(cqe, CQE_OPCODE.REQUESTER, false);
    this.#push(cqe, entry.solicited);
  }

  #completeError(entry: SendEntry, syndrome: Syndrome): void {
    const cqe = this.#entry(entry);
    setError(cqe, 'requester', syndrome);
    this.#push(cqe, true);
  }

  #push(cqe: DataView, solicited: boolean): void {
    this.#host.completionQueues.find(sqc.get(this.context, 'cqn'))?.push(cqe, solicited);
  }

  #entry({ opcode, index }: SendEntry): DataView {
    const userIndex = sqc.get(this.context, 'user_index');
    return completionEntry({ userIndex, queue: this.number, sendOpcode: opcode, counter: index });
  }
}
