/** Says when one handler holds the bus thread for so long that QEMU is about to give its function up. */
import { readFileSync } from 'node:fs';

/** A handler takes microseconds; QEMU's x-msg-timeout is 5000. */
const STUCK_HANDLER_MS = 2000;
export const WATCH_INTERVAL_MS = STUCK_HANDLER_MS / 4;

export interface HandlerReport {
  readonly level: 'debug' | 'warn' | 'error';
  readonly message: string;
}

/**
 * Looks at the bus thread from time to time. The time in which the host had no processor for the thread is not the
 * handler's: a function is given up then, too, but on a busy host that is nobody's defect.
 */
export class HandlerWatch {
  readonly #runDelayMs: () => number;
  #sinceMs = 0;
  #delayBeforeMs = 0;
  #told: HandlerReport['level'] | undefined;
  #starved = 0;
  #longest = { busyMs: 0, waitedMs: 0 };

  /** @param runDelayMs How long the bus thread has been ready to run, and was not running, since it began. */
  constructor(runDelayMs: () => number) {
    this.#runDelayMs = runDelayMs;
  }

  /**
   * @param sinceMs When the handler that runs now was called; 0 when none does.
   * @returns What to say about it: of each handler once that the host let it be late, and once that this is its own
   *   fault.
   */
  look(nowMs: number, sinceMs: number): HandlerReport | undefined {
    if (sinceMs === 0) return undefined;
    const delayMs = this.#runDelayMs();
    if (sinceMs !== this.#sinceMs) {
      this.#sinceMs = sinceMs;
      this.#delayBeforeMs = delayMs;
      this.#told = undefined;
    }
    const busyMs = nowMs - sinceMs;
    if (busyMs < STUCK_HANDLER_MS || this.#told === 'error') return undefined;
    const waitedMs = delayMs - this.#delayBeforeMs;
    const level = busyMs - waitedMs < STUCK_HANDLER_MS ? 'debug' : 'error';
    if (level === 'debug') this.#countStarved(busyMs, waitedMs);
    if (level === this.#told) return undefined;
    this.#told = level;
    const what =
      level === 'error'
        ? `one handler has held the bus thread for ${seconds(busyMs)}`
        : `the host had no processor for the bus thread during ${seconds(waitedMs)} of the ${seconds(busyMs)} of one handler`;
    return { level, message: `${what}; QEMU gives a function up after 5 s` };
  }

  /** One line about all handlers that the host let be late; undefined when there was none. */
  summary(): string | undefined {
    if (this.#starved === 0) return undefined;
    const { busyMs, waitedMs } = this.#longest;
    const longest = `${seconds(waitedMs)} of the ${seconds(busyMs)} of`;
    const handlers = this.#starved === 1 ? 'one handler' : `the longest of ${this.#starved} handlers`;
    return `the host had no processor for the bus thread during ${longest} ${handlers}; QEMU gives a function up after 5 s`;
  }

  #countStarved(busyMs: number, waitedMs: number): void {
    if (this.#told === undefined) this.#starved++;
    if (busyMs > this.#longest.busyMs) this.#longest = { busyMs, waitedMs };
  }
}

/**
 * The second number of a thread's schedstat (Linux Documentation/scheduler/sched-stats.rst): ns of
 * waiting on a run queue. 0 where there is none.
 */
export function runDelayMs(threadId: number): number {
  try {
    const text = readFileSync(`/proc/self/task/${threadId}/schedstat`, 'utf8');
    return Number(text.split(' ')[1]) / 1e6;
  } catch {
    return 0;
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
