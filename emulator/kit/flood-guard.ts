/**
 * A log that a guest cannot flood: most of what this device warns about is something the guest did, as often as it likes.
 */
import type { Clock, Log } from '../plugin/index.js';

const RECORDS_PER_PERIOD = 50;
const PERIOD_NS = 1_000_000_000n;

type Level = 'debug' | 'info' | 'warn' | 'error';
type Fields = Readonly<Record<string, unknown>>;

export class FloodGuard implements Log {
  readonly #log: Log;
  #clock: Clock | undefined;
  #periodStartNs = 0n;
  #count = 0;
  #dropped = 0;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Until then nothing is dropped: the guest is not there yet. */
  attach(clock: Clock): void {
    this.#clock = clock;
    this.#periodStartNs = clock.nowNs();
  }

  debug(message: string, fields?: Fields): void {
    this.#log.debug(message, fields);
  }
  info(message: string, fields?: Fields): void {
    this.#write('info', message, fields);
  }
  warn(message: string, fields?: Fields): void {
    this.#write('warn', message, fields);
  }
  error(message: string, fields?: Fields): void {
    this.#write('error', message, fields);
  }

  #write(level: Level, message: string, fields: Fields | undefined): void {
    const now = this.#clock?.nowNs();
    if (now !== undefined && now - this.#periodStartNs >= PERIOD_NS) {
      this.#periodStartNs = now;
      this.#count = 0;
      if (this.#dropped > 0) this.#log.warn(`${this.#dropped} records were left out`);
      this.#dropped = 0;
    }
    if (now !== undefined && ++this.#count > RECORDS_PER_PERIOD) this.#dropped++;
    else this.#log[level](message, fields);
  }
}
