import type { FloodGuard } from 'ghostbus/kit';

/**
 * The compute units that dispatch packets reach. There are none: a dispatch completes, is counted, and is said once.
 */
export class ShaderArray {
  readonly #log: FloodGuard;
  #dispatches = 0;

  constructor(log: FloodGuard) {
    this.#log = log;
  }

  get dispatches(): number {
    return this.#dispatches;
  }

  dispatch(queueName: string): void {
    if (this.#dispatches++ > 0) return;
    this.#log
      .source('dispatch')
      .warn(`${queueName}: a shader was dispatched; this GPU has no shader cores, nothing runs`);
  }
}
