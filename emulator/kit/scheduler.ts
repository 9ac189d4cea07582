/**
 * Lets the engines of one model work in turns, in slices that are posted, so that no register access waits for them.
 *
 * What may be done in a slice is counted in {@link WorkUnits}, whatever the work is: copied bytes, packets,
 * descriptors, register accesses. An engine charges its turn's {@link WorkBudget} for what it does, best where the
 * work happens, and stops when the budget is spent.
 */
import { type FunctionPort, SLICE_BYTES, type Timer } from '../plugin/index.js';

/**
 * What work costs: one unit is the time in which one byte is copied at memcpy's speed, about 0.25
 * ns; 4096 units are about a microsecond. All engines of all devices charge in it, so that a
 * slice takes about a millisecond whatever is in it.
 */
export type WorkUnits = number;

/** Prices of what every device does. A device that knows a dearer step of its own states it in the same unit. */
export const COST = {
  /** One byte copied, filled or read in bulk. */
  byte: 1,
  /** One packet, work queue entry or descriptor that lies at hand: decoding it and a small effect. */
  entry: 4096,
  /**
   * One access to a register, of this function or a peer: decoding its place and running its handler (`npm run bench`).
   */
  registerAccess: 4096,
  /** A detour through memory before work goes on: page walk, fetch of a new buffer or of a descriptor's list. */
  fetch: 64 * 1024,
} as const satisfies Readonly<Record<string, WorkUnits>>;

/** What a slice may do: about a millisecond, {@link SLICE_BYTES} copied. */
export const SLICE_UNITS: WorkUnits = SLICE_BYTES * COST.byte;

const TURNS_PER_SLICE = 4;
const POLL_INTERVAL_MS = 1;

/** What a turn may still do. Overdrawing it is legal, since steps are not divisible; the turn ends then. */
export class WorkBudget {
  readonly #limit: WorkUnits;
  readonly #whole: WorkBudget | undefined;
  #used: WorkUnits = 0;

  /** `whole`: the budget of which this is a portion. */
  constructor(limit: WorkUnits, whole?: WorkBudget) {
    this.#limit = limit;
    this.#whole = whole;
  }

  get used(): WorkUnits {
    return this.#used;
  }

  /** Zero when it is spent, or the whole that it is a portion of. */
  get left(): WorkUnits {
    return Math.max(0, Math.min(this.#limit - this.#used, this.#whole?.left ?? Number.POSITIVE_INFINITY));
  }

  get isSpent(): boolean {
    return this.#used >= this.#limit || this.#whole?.isSpent === true;
  }

  charge(units: WorkUnits): void {
    this.#used += units;
    this.#whole?.charge(units);
  }

  /** For one of several parts of an engine that share a turn: at most `units` of this budget, charged to it too. */
  portion(units: WorkUnits): WorkBudget {
    return new WorkBudget(units, this);
  }
}

/**
 * How a turn ended. `ready`: there is more to do, ask again. `idle`: nothing to do until {@link Scheduler.wake}.
 * `poll`: it waits for something that nobody announces (a value in memory), look again in a while.
 */
export type TurnResult = 'ready' | 'idle' | 'poll';

/** Something that works in turns: a queue, an engine. */
export interface Runnable {
  /**
   * Works until the budget is spent or there is nothing to do. An exception ends the function, as
   * in a register handler.
   */
  turn(budget: WorkBudget): TurnResult;
}

export interface SchedulerOptions {
  /** What one posted slice may do. Default {@link SLICE_UNITS}. */
  readonly sliceUnits?: WorkUnits;
  /** What one engine may do before the next has its turn. Default: a quarter of a slice. */
  readonly turnUnits?: WorkUnits;
  /** After this long an engine that polls is asked again. Default 1 ms. */
  readonly pollIntervalMs?: number;
}

/**
 * Round robin over the engines that have work. It belongs to one power cycle of one model: made at power-on with that
 * model's port, and gone with it.
 */
export class Scheduler {
  readonly #port: Pick<FunctionPort, 'post' | 'clock'>;
  readonly #sliceUnits: WorkUnits;
  readonly #turnUnits: WorkUnits;
  readonly #pollIntervalMs: number;
  readonly #ready = new Set<Runnable>();
  readonly #polling = new Set<Runnable>();
  #pollTimer: Timer | undefined;
  #running: WorkBudget | undefined;
  #sliceIsPosted = false;
  #isStopped = false;
  readonly counters = { slices: 0, turns: 0 };

  constructor(port: Pick<FunctionPort, 'post' | 'clock'>, options: SchedulerOptions = {}) {
    this.#port = port;
    this.#sliceUnits = options.sliceUnits ?? SLICE_UNITS;
    this.#turnUnits = options.turnUnits ?? this.#sliceUnits / TURNS_PER_SLICE;
    this.#pollIntervalMs = options.pollIntervalMs ?? POLL_INTERVAL_MS;
  }

  /** No engine has anything to do; some may poll. */
  get isIdle(): boolean {
    return this.#ready.size === 0;
  }

  /** Engines that wait for their turn. */
  get readyCount(): number {
    return this.#ready.size;
  }

  /** `runnable` has work; it waits behind the others. Legal from register handlers, posted work and turns. */
  wake(runnable: Runnable): void {
    if (this.#isStopped) return;
    this.#polling.delete(runnable);
    this.#ready.add(runnable);
    this.#postSlice();
  }

  /** Something happened that engines may be polling for (a fence was written): all that poll look again now. */
  recheck(): void {
    for (const runnable of [...this.#polling]) this.wake(runnable);
    this.#cancelPoll();
  }

  /** `runnable` has no further turn, unless it is woken again; of its own turn the result counts. */
  remove(runnable: Runnable): void {
    this.#ready.delete(runnable);
    this.#polling.delete(runnable);
    if (this.#polling.size === 0) this.#cancelPoll();
  }

  /**
   * Nothing runs any more; to be called when the model is powered off. An engine whose own turn
   * led to that finds its budget spent.
   */
  stop(): void {
    this.#isStopped = true;
    this.#running?.charge(Number.POSITIVE_INFINITY);
    this.#ready.clear();
    this.#polling.clear();
    this.#cancelPoll();
  }

  #postSlice(): void {
    if (this.#sliceIsPosted || this.#isStopped) return;
    this.#sliceIsPosted = true;
    this.#port.post(() => {
      this.#sliceIsPosted = false;
      if (this.#ready.size === 0) return;
      this.#slice();
      if (this.#ready.size > 0) this.#postSlice();
    });
  }

  #slice(): void {
    this.counters.slices++;
    for (let left = this.#sliceUnits; left > 0; ) {
      const next = this.#ready.values().next();
      if (next.done) return;
      left -= this.#turn(next.value, Math.min(left, this.#turnUnits));
    }
  }

  /** Returns what the turn cost; never nothing, so that engines that only ask for turns end a slice too. */
  #turn(runnable: Runnable, units: WorkUnits): WorkUnits {
    this.counters.turns++;
    // Taken out first: an engine that is woken during its turn stays ready.
    this.#ready.delete(runnable);
    const budget = new WorkBudget(units);
    this.#running = budget;
    const result = runnable.turn(budget);
    this.#running = undefined;
    if (this.#isStopped) return this.#sliceUnits;
    if (result === 'ready') this.#ready.add(runnable);
    else if (result === 'poll' && !this.#ready.has(runnable)) this.#poll(runnable);
    return Math.max(budget.used, COST.entry);
  }

  #poll(runnable: Runnable): void {
    this.#polling.add(runnable);
    this.#pollTimer ??= this.#port.clock.after(this.#pollIntervalMs, () => {
      this.#pollTimer = undefined;
      this.recheck();
    });
  }

  #cancelPoll(): void {
    this.#pollTimer?.cancel();
    this.#pollTimer = undefined;
  }
}
