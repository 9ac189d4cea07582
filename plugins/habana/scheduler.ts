/**
 * Lets all engines work in turns, in slices after the doorbell has been answered, so that no register access waits for
 * them. An engine that has nothing to do, or waits for something, is not asked again until someone wakes it.
 */
import { type FunctionPort, SLICE_BYTES } from 'ghostbus';

export interface Engine {
  /**
   * Works for about `budget`, counted in bytes moved. Returns what it used; 0 means that it waits and wants to be woken.
   */
  step(budget: number): number;
  /** Called when {@link step} used nothing: last chance to let something go on. True if it did. */
  settle?(): boolean;
}

/** What one engine may use before the next has its turn. */
const TURN_BYTES = 1024 * 1024;

export class Scheduler {
  readonly #ready = new Set<Engine>();
  #port: FunctionPort | undefined;
  /** Slices posted before a reset do nothing. */
  #generation = 0;
  #sliceIsPosted = false;
  readonly counters = { slices: 0 };

  attach(port: FunctionPort): void {
    this.#port = port;
  }

  get isIdle(): boolean {
    return this.#ready.size === 0;
  }

  wake(engine: Engine): void {
    this.#ready.add(engine);
    this.#postSlice();
  }

  reset(): void {
    this.#ready.clear();
    this.#generation++;
    this.#sliceIsPosted = false;
  }

  #postSlice(): void {
    if (this.#sliceIsPosted) return;
    this.#sliceIsPosted = true;
    const generation = this.#generation;
    this.#port?.post(() => {
      if (generation !== this.#generation) return;
      this.#sliceIsPosted = false;
      this.#slice(generation);
      if (generation === this.#generation && this.#ready.size > 0) this.#postSlice();
    });
  }

  #slice(generation: number): void {
    this.counters.slices++;
    let budget = SLICE_BYTES;
    while (budget > 0 && this.#ready.size > 0) {
      for (const engine of [...this.#ready]) {
        // Taken out first: an engine that is woken while it steps stays ready.
        this.#ready.delete(engine);
        const used = engine.step(Math.min(budget, TURN_BYTES));
        if (generation !== this.#generation) return;
        if (used > 0 || engine.settle?.()) this.#ready.add(engine);
        budget -= used;
        if (budget <= 0) return;
      }
    }
  }
}
