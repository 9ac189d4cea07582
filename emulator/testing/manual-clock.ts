import type { Clock, Timer } from '../ambient/clock.js';
import { TimerQueue } from '../timers.js';

const NS_PER_MS = 1e6;

/** A clock that stands still until a test advances it. */
export class ManualClock implements Clock {
  readonly timers = new TimerQueue(() => this.#nowNs);
  #nowNs = 0n;
  readonly #runDue: () => void;

  /** @param runDue runs the timers that are due now. Default: it calls them. */
  constructor(runDue?: () => void) {
    this.#runDue = runDue ?? (() => this.timers.runDue((callback) => callback()));
  }

  nowNs(): bigint {
    return this.#nowNs;
  }

  after(delayMs: number, callback: () => void): Timer {
    return this.timers.after(delayMs, callback);
  }

  /** Moves time forward and runs the timers that fall due, in order of their due times. */
  advance(ms: number): void {
    const targetNs = this.#nowNs + BigInt(Math.round(ms * NS_PER_MS));
    for (let next = this.timers.nextDueNs; next !== undefined && next <= targetNs; next = this.timers.nextDueNs) {
      if (next > this.#nowNs) this.#nowNs = next;
      this.#runDue();
    }
    this.#nowNs = targetNs;
  }
}
