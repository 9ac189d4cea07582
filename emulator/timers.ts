import type { Clock, Timer } from './ambient/clock.js';

const NS_PER_MS = 1_000_000n;

interface Entry {
  readonly dueNs: bigint;
  readonly order: number;
  readonly callback: () => void;
  cancelled: boolean;
}

/** Timers of the bus, ordered by due time, then by the order of their creation. Time comes from `nowNs`. */
export class TimerQueue implements Clock {
  readonly nowNs: () => bigint;
  /** A binary heap: the entry due first is at index 0. */
  readonly #heap: Entry[] = [];
  #created = 0;

  constructor(nowNs: () => bigint = process.hrtime.bigint) {
    this.nowNs = nowNs;
  }

  after(delayMs: number, callback: () => void): Timer {
    if (!(delayMs >= 0)) throw new RangeError(`a timer's delay must be 0 ms or more, not ${delayMs}`);
    const dueNs = this.nowNs() + BigInt(Math.ceil(delayMs * 1e6));
    const entry: Entry = { dueNs, order: this.#created++, callback, cancelled: false };
    this.#heap.push(entry);
    this.#siftUp(this.#heap.length - 1);
    return {
      cancel: () => {
        entry.cancelled = true;
      },
    };
  }

  /** When the next timer is due; undefined if there is none. */
  get nextDueNs(): bigint | undefined {
    while (this.#heap[0]?.cancelled) this.#pop();
    return this.#heap[0]?.dueNs;
  }

  /** Milliseconds until the next timer is due, rounded up; -1 if there is none. */
  msUntilNext(): number {
    const dueNs = this.nextDueNs;
    if (dueNs === undefined) return -1;
    const waitNs = dueNs - this.nowNs();
    return waitNs <= 0n ? 0 : Math.min(Number((waitNs + NS_PER_MS - 1n) / NS_PER_MS), 0x7fffffff);
  }

  /**
   * Runs the timers that are due now through `run`; those that they set, however short, wait for the next call,
   * so that a function cannot keep the loop here.
   */
  runDue(run: (callback: () => void) => void): void {
    const nowNs = this.nowNs();
    const due: Entry[] = [];
    for (let next = this.#heap[0]; next !== undefined && next.dueNs <= nowNs; next = this.#heap[0]) {
      due.push(next);
      this.#pop();
    }
    for (const entry of due) if (!entry.cancelled) run(entry.callback);
  }

  #before(a: Entry, b: Entry): boolean {
    return a.dueNs < b.dueNs || (a.dueNs === b.dueNs && a.order < b.order);
  }

  #siftUp(start: number): void {
    const heap = this.#heap;
    for (let child = start; child > 0; ) {
      const parent = (child - 1) >> 1;
      if (!this.#before(heap[child]!, heap[parent]!)) return;
      [heap[child], heap[parent]] = [heap[parent]!, heap[child]!];
      child = parent;
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    heap[0] = last;
    for (let parent = 0; ; ) {
      let first = parent;
      for (const child of [2 * parent + 1, 2 * parent + 2]) {
        if (child < heap.length && this.#before(heap[child]!, heap[first]!)) first = child;
      }
      if (first === parent) return;
      [heap[parent], heap[first]] = [heap[first]!, heap[parent]!];
      parent = first;
    }
  }
}
