/** Round robin between queues that have work: each turn is one slice, and register accesses are answered between turns. */
import type { FunctionPort } from 'ghostbus';

export interface Runnable {
  /** Does about a slice of work; true when there is more to do at once. Must not throw. */
  turn(): boolean;
}

export class Scheduler {
  readonly #port: FunctionPort;
  readonly #ready = new Set<Runnable>();
  #posted = false;
  #stopped = false;

  constructor(port: FunctionPort) {
    this.#port = port;
  }

  get waiting(): number {
    return this.#ready.size;
  }

  /** `runnable` has work; it waits behind the others. */
  kick(runnable: Runnable): void {
    if (this.#stopped) return;
    this.#ready.add(runnable);
    this.#post();
  }

  remove(runnable: Runnable): void {
    this.#ready.delete(runnable);
  }

  /** Nothing runs any more. */
  stop(): void {
    this.#stopped = true;
    this.#ready.clear();
  }

  #post(): void {
    if (this.#posted) return;
    this.#posted = true;
    this.#port.post(() => this.#run());
  }

  #run(): void {
    this.#posted = false;
    const next = this.#ready.values().next();
    if (next.done) return;
    const runnable = next.value;
    this.#ready.delete(runnable);
    if (runnable.turn() && !this.#stopped) this.#ready.add(runnable);
    if (this.#ready.size > 0) this.#post();
  }
}
