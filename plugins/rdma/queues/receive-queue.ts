/** Receive queues: a queue pair's own ring, and the linked lists of shared ones. */
import type { Dma } from 'ghostbus';
import { Ring } from 'ghostbus/kit';
import { wqeDataSeg, wqeSrqNextSeg } from '../layouts/entries.js';
import { subview } from '../layouts/layout.js';
import { SPECIAL_KEY } from '../memory/access.js';
import type { GuestBuffer } from '../memory/guest-buffer.js';
import { COUNTER_RANGE } from './doorbell-record.js';
import { type DataSegment, parseDataSegment } from './work-queue-entry.js';

const SEGMENT_BYTES = 16;
/** rmpc/xrc_srqc strides and qpc.log_rq_stride allow more than any software asks for; 2 KiB is 128 segments. */
export const MAX_STRIDE_BYTES = 4096;

/** A taken receive: where its data goes, and how its completion names it. */
export interface Receive {
  /** cqe.wqe_counter: position for a ring, index of the entry for a shared queue. */
  readonly counter: number;
  readonly segments: readonly DataSegment[];
}

/** Where receives come from. Methods that look into guest memory throw DmaError. */
interface ReceiveQueue {
  /** Takes the next posted receive; undefined when there is none. */
  take(): Receive | undefined;
  /** Whether one is posted. */
  hasPosted(): boolean;
}

/** `struct mlx5_wqe_data_seg` until the list ends. */
function parseScatterList(view: DataView, start: number): DataSegment[] {
  const segments: DataSegment[] = [];
  for (let at = start; at + SEGMENT_BYTES <= view.byteLength; at += SEGMENT_BYTES) {
    const part = subview(view, at, SEGMENT_BYTES);
    if (wqeDataSeg.get(part, 'lkey') === SPECIAL_KEY.TERMINATE) break;
    const segment = parseDataSegment(part);
    if (segment === undefined) break;
    segments.push(segment);
  }
  return segments;
}

interface RingPlace {
  readonly buffer: GuestBuffer;
  /** Where the ring starts in the buffer. */
  readonly start: number;
  readonly logSize: number;
  readonly strideBytes: number;
  /** Address of the record with the 16-bit producer counter in its low half. */
  readonly doorbellRecord: number;
}

/** A queue of its own: a circle of entries; posting only moves the counter in the doorbell record. */
export class ReceiveRing implements ReceiveQueue {
  readonly #dma: Dma;
  readonly #place: RingPlace;
  readonly #ring: Ring;
  #consumer = 0;

  constructor(dma: Dma, place: RingPlace) {
    this.#dma = dma;
    this.#place = place;
    this.#ring = new Ring({ entries: 2 ** place.logSize, counterRange: COUNTER_RANGE });
  }

  hasPosted(): boolean {
    return this.#producer() !== this.#consumer;
  }

  reset(): void {
    this.#consumer = 0;
  }

  take(): Receive | undefined {
    if (!this.hasPosted()) return undefined;
    const { buffer, start, strideBytes } = this.#place;
    const entry = new Uint8Array(strideBytes);
    buffer.read(start + this.#ring.slot(this.#consumer) * strideBytes, entry);
    const counter = this.#consumer;
    this.#consumer = this.#ring.advance(counter);
    return { counter, segments: parseScatterList(new DataView(entry.buffer), 0) };
  }

  #producer(): number {
    return this.#dma.readU32BE(this.#place.doorbellRecord) % COUNTER_RANGE;
  }
}

/** A shared queue: entries form a list, `struct mlx5_wqe_srq_next_seg` at the start of each. */
export class ReceiveList implements ReceiveQueue {
  readonly number: number;
  readonly protectionDomain: number;
  readonly #dma: Dma;
  readonly #place: RingPlace;
  readonly #ring: Ring;
  readonly #onLimit: () => void;
  #head = 0;
  #taken = 0;
  #limit = 0;

  constructor(dma: Dma, number: number, protectionDomain: number, place: RingPlace, onLimit: () => void) {
    this.#dma = dma;
    this.number = number;
    this.protectionDomain = protectionDomain;
    this.#place = place;
    this.#ring = new Ring({ entries: 2 ** place.logSize, counterRange: COUNTER_RANGE });
    this.#onLimit = onLimit;
  }

  get limit(): number {
    return this.#limit;
  }

  /** One event when fewer than `limit` receives are posted; 0 disarms. */
  armLimit(limit: number): void {
    this.#limit = limit;
    this.#checkLimit();
  }

  hasPosted(): boolean {
    return this.#posted() > 0;
  }

  take(): Receive | undefined {
    if (!this.hasPosted()) return undefined;
    const { buffer, start, strideBytes } = this.#place;
    const entry = new Uint8Array(strideBytes);
    const index = this.#ring.slot(this.#head);
    buffer.read(start + index * strideBytes, entry);
    const view = new DataView(entry.buffer);
    this.#head = wqeSrqNextSeg.get(view, 'next_wqe_index');
    this.#taken = this.#ring.advance(this.#taken);
    this.#checkLimit();
    return { counter: index, segments: parseScatterList(view, SEGMENT_BYTES) };
  }

  release(): void {
    this.#place.buffer.release();
  }

  inspect(): unknown {
    return { number: this.number, taken: this.#taken, limit: this.#limit };
  }

  #checkLimit(): void {
    if (this.#limit === 0 || this.#posted() >= this.#limit) return;
    this.#limit = 0;
    this.#onLimit();
  }

  #posted(): number {
    return this.#ring.used(this.#dma.readU32BE(this.#place.doorbellRecord) % COUNTER_RANGE, this.#taken);
  }
}
