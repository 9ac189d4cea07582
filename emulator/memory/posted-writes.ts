/** Writes by DMA into a function's registers: posted, executed later in order, ahead of any read. */
import type { FabricBar } from './windows.js';

/**
 * More waiting bytes than this are executed before another write is taken, as exhausted posted credits would stall the
 * sender (PCIe 6.0 §2.6).
 */
export const POSTED_LIMIT_BYTES = 64 * 1024;

interface PostedWrite {
  readonly bar: FabricBar;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/**
 * The registers of one function as its peers reach them. `post` and `read` return false when this function's own
 * handler, called from here, has to finish first: the access would need it to be re-entered.
 */
export class PostedWrites {
  readonly #schedule: (drain: () => void) => void;
  #queue: PostedWrite[] = [];
  #queuedBytes = 0;
  #scheduled = false;
  #busy = false;

  /**
   * @param schedule calls its argument soon, from outside any handler of the function, unless {@link drop} was called
   */
  constructor(schedule: (drain: () => void) => void) {
    this.#schedule = schedule;
  }

  /** Queues a copy of `source` for `offset` of `bar`. */
  post(bar: FabricBar, offset: number, source: Uint8Array): boolean {
    if (this.#queuedBytes + source.length > POSTED_LIMIT_BYTES && !this.drain()) return false;
    this.#queue.push({ bar, offset, bytes: source.slice() });
    this.#queuedBytes += source.length;
    this.#scheduleDrain();
    return true;
  }

  /** Executes what is queued, then reads. */
  read(bar: FabricBar, offset: number, target: Uint8Array): boolean {
    if (!this.drain()) return false;
    return this.#exclusively(() => forEachAlignedPiece(offset, target, (at, piece) => bar.read(at, piece)));
  }

  /** Executes the writes queued so far, in order; those that handlers add meanwhile wait for their own turn. */
  drain(): boolean {
    return this.#exclusively(() => {
      for (let left = this.#queue.length; left > 0; left--) {
        const write = this.#queue.shift();
        if (write === undefined) break;
        this.#queuedBytes -= write.bytes.length;
        forEachAlignedPiece(write.offset, write.bytes, (at, piece) => write.bar.write(at, piece));
      }
    });
  }

  /** The function has been reset or is gone: nothing of what waits is executed. */
  drop(): void {
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#scheduled = false;
  }

  #scheduleDrain(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#schedule(() => {
      this.#scheduled = false;
      if (!this.drain()) this.#scheduleDrain();
    });
  }

  #exclusively(work: () => void): boolean {
    if (this.#busy) return false;
    this.#busy = true;
    try {
      work();
    } finally {
      this.#busy = false;
    }
    return true;
  }
}

/** Splits an access into naturally aligned pieces of 1, 2, 4 or 8 bytes. Returns how many. */
export function forEachAlignedPiece(
  offset: number,
  bytes: Uint8Array,
  visit: (offset: number, piece: Uint8Array) => void,
): number {
  let count = 0;
  for (let done = 0; done < bytes.length; count++) {
    const size = alignedSize(offset + done, bytes.length - done);
    visit(offset + done, size === bytes.length ? bytes : bytes.subarray(done, done + size));
    done += size;
  }
  return count;
}

/** Into how many pieces {@link forEachAlignedPiece} splits. */
export function countAlignedPieces(offset: number, lengthBytes: number): number {
  let count = 0;
  for (let done = 0; done < lengthBytes; count++) done += alignedSize(offset + done, lengthBytes - done);
  return count;
}

function alignedSize(offset: number, left: number): number {
  for (const size of [8, 4, 2]) if (left >= size && offset % size === 0) return size;
  return 1;
}
