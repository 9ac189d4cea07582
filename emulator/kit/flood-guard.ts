/**
 * A log that a guest cannot flood: most of what a device warns about is something the guest did, as often as it likes.
 *
 * It is a {@link Log}, so it stands wherever one is asked for, a register block's too. Each {@link
 * FloodGuard.source} has a limit of its own, so that one kind of noise does not hide the others. What was left
 * out is said, at the latest when the period ends.
 */
import type { Clock, Log, Timer } from '../plugin/index.js';

export interface FloodLimit {
  /** Records shown per period. Default 50. */
  readonly records?: number;
  /** Default 1000. Infinity: only the first `records` are ever shown, what comes later is only counted. */
  readonly periodMs?: number;
}

const DEFAULT_LIMIT = { records: 50, periodMs: 1000 } as const satisfies FloodLimit;
const NS_PER_MS = 1e6;

type Level = 'info' | 'warn' | 'error';
type Fields = Readonly<Record<string, unknown>>;

/** One kind of record, and how much of it was shown in this period. */
class Source implements Log {
  readonly #name: string;
  readonly #log: Log;
  readonly #records: number;
  readonly #periodMs: number;
  #clock: Clock | undefined;
  #periodStartNs = 0n;
  #inPeriod = 0;
  #leftOut = 0;
  #timer: Timer | undefined;
  /** Records since construction, shown or not. */
  total = 0;

  constructor(name: string, log: Log, clock: Clock | undefined, limit: FloodLimit) {
    this.#name = name;
    this.#log = log;
    this.#records = limit.records ?? DEFAULT_LIMIT.records;
    this.#periodMs = limit.periodMs ?? DEFAULT_LIMIT.periodMs;
    if (clock !== undefined) this.attach(clock);
  }

  /**
   * Timers of an earlier clock are gone (the function was reset), its account goes on: a reset is
   * no way around the limit.
   */
  attach(clock: Clock): void {
    const isFirst = this.#clock === undefined;
    this.#clock = clock;
    if (isFirst) this.#beginPeriod();
    this.#timer = undefined;
    if (this.#leftOut > 0) this.#tellLater();
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
    this.total++;
    if (this.#clock === undefined) {
      this.#log[level](message, fields);
      return;
    }
    if (this.#passedMs() >= this.#periodMs) this.#endPeriod();
    if (++this.#inPeriod <= this.#records) this.#log[level](message, fields);
    else if (this.#leftOut++ === 0) this.#tellLater();
  }

  /**
   * The first record is left out: either when the period ends it will be said how many, or it is said now that all are.
   */
  #tellLater(): void {
    const restMs = this.#periodMs - this.#passedMs();
    if (restMs === Number.POSITIVE_INFINITY) {
      this.#log.warn(`further records${this.#ofSource()} are only counted`);
    } else this.#timer ??= this.#clock?.after(Math.max(0, restMs), () => this.#endPeriod());
  }

  #endPeriod(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#leftOut > 0) this.#log.warn(`${this.#leftOut} records${this.#ofSource()} were left out`);
    this.#beginPeriod();
  }

  #beginPeriod(): void {
    this.#periodStartNs = this.#clock?.nowNs() ?? 0n;
    this.#inPeriod = 0;
    this.#leftOut = 0;
  }

  #passedMs(): number {
    return Number((this.#clock?.nowNs() ?? 0n) - this.#periodStartNs) / NS_PER_MS;
  }

  #ofSource(): string {
    return this.#name === '' ? '' : ` of "${this.#name}"`;
  }
}

/**
 * The log of a device, with a source of its own for what is not sorted further. `debug` is for
 * people and never limited.
 */
export class FloodGuard implements Log {
  readonly #log: Log;
  readonly #limit: FloodLimit;
  readonly #sources = new Map<string, Source>();
  readonly #main: Source;
  #clock: Clock | undefined;

  /** Usable at once, in `create` too: until there is a clock nothing is left out, for the guest is not there yet. */
  constructor(log: Log, clock?: Clock, limit: FloodLimit = DEFAULT_LIMIT) {
    this.#log = log;
    this.#clock = clock;
    this.#limit = limit;
    this.#main = new Source('', log, clock, limit);
  }

  /** Limits from here on; again with the new port's clock at every power-on, if the guard outlives the model. */
  attach(clock: Clock): void {
    this.#clock = clock;
    for (const source of [this.#main, ...this.#sources.values()]) source.attach(clock);
  }

  /**
   * The log of one kind of record. `name` is one of a few fixed texts, never something a guest chose: each is kept for
   * good. `limit` counts where the name is used first.
   */
  source(name: string, limit: FloodLimit = this.#limit): Log {
    let source = this.#sources.get(name);
    if (source === undefined) {
      source = new Source(name, this.#log, this.#clock, limit);
      this.#sources.set(name, source);
    }
    return source;
  }

  /** Records of each source since construction, shown or not; for `inspect`. */
  counts(): Record<string, number> {
    return Object.fromEntries([...this.#sources].map(([name, { total }]) => [name, total]));
  }

  debug(message: string, fields?: Fields): void {
    this.#main.debug(message, fields);
  }
  info(message: string, fields?: Fields): void {
    this.#main.info(message, fields);
  }
  warn(message: string, fields?: Fields): void {
    this.#main.warn(message, fields);
  }
  error(message: string, fields?: Fields): void {
    this.#main.error(message, fields);
  }
}
