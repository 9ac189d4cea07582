/** A ring of sends, as software fills it: blocks of 64 bytes, a producer counter in the doorbell record. */
import type { Dma } from 'ghostbus';
import { Ring } from 'ghostbus/kit';
import type { GuestBuffer } from '../memory/guest-buffer.js';
import { COUNTER_RANGE } from './doorbell-record.js';
import { BLOCK_BYTES, parseControl, type SendEntry } from './work-queue-entry.js';

export class SendQueue {
  readonly #dma: Dma;
  readonly #buffer: GuestBuffer;
  readonly #start: number;
  readonly #ring: Ring;
  readonly #doorbellRecord: number;
  /** Index of the next block to execute, 16 bits. */
  #consumer = 0;
  /** The producer counter when it was last looked at. */
  #announced = 0;

  constructor(dma: Dma, buffer: GuestBuffer, start: number, logBlocks: number, doorbellRecord: number) {
    this.#dma = dma;
    this.#buffer = buffer;
    this.#start = start;
    this.#ring = new Ring({ entries: 2 ** logBlocks, counterRange: COUNTER_RANGE });
    this.#doorbellRecord = doorbellRecord;
  }

  get consumer(): number {
    return this.#consumer;
  }

  reset(): void {
    this.#consumer = 0;
    this.#announced = 0;
  }

  /**
   * Takes notice of what was posted so far. What is posted later waits for its own doorbell, though its entry may be
   * seen in memory before: whatever else the processor did before it posted, on other functions' sockets too, comes
   * first. Throws DmaError.
   */
  announce(): void {
    this.#announced = this.#dma.readU32BE(this.#doorbellRecord) % COUNTER_RANGE;
  }

  /** The next announced entry, left in the queue; undefined when there is none. Throws DmaError. */
  peek(): SendEntry | undefined {
    const posted = this.#ring.used(this.#announced, this.#consumer);
    if (posted === 0) return undefined;
    const first = this.#read(BLOCK_BYTES);
    const { units, entry } = parseControl(new DataView(first.buffer), this.#consumer);
    if (posted > this.#ring.capacity || entry.blocks > posted) {
      return { ...entry, blocks: posted, isMalformed: true, view: new DataView(first.buffer) };
    }
    const sizeBytes = Math.max(16, units * 16);
    if (sizeBytes <= BLOCK_BYTES) return { ...entry, view: new DataView(first.buffer, 0, sizeBytes) };
    return { ...entry, view: new DataView(this.#read(entry.blocks * BLOCK_BYTES).buffer, 0, sizeBytes) };
  }

  /** Leaves an entry behind. */
  retire(entry: SendEntry): void {
    this.#consumer = this.#ring.advance(this.#consumer, entry.blocks);
  }

  #read(sizeBytes: number): Uint8Array {
    const bytes = new Uint8Array(sizeBytes);
    const at = this.#ring.slot(this.#consumer) * BLOCK_BYTES;
    const beforeWrap = Math.min(sizeBytes, this.#ring.entries * BLOCK_BYTES - at);
    this.#buffer.read(this.#start + at, bytes.subarray(0, beforeWrap));
    if (beforeWrap < sizeBytes) this.#buffer.read(this.#start, bytes.subarray(beforeWrap));
    return bytes;
  }
}
