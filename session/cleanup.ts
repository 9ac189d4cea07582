import { InterruptedError, statusOfSignal } from './exit-status.js';

const ENDING_SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

interface Step {
  readonly end: () => Promise<void> | void;
  readonly force: () => void;
}

/** What has to be undone before the process may end, undone in the reverse order. */
export class Cleanup {
  readonly #steps: Step[] = [];
  readonly #errors: Error[] = [];
  #ending: Promise<void> | undefined;

  /**
   * @param end Undoes it properly.
   * @param force Undoes what must not stay behind, at once and synchronously: the user asked a second time.
   */
  add(end: () => Promise<void> | void, force: () => void = () => undefined): void {
    const step = { end, force };
    // Something that was still starting when the end began is undone as soon as it is there.
    if (this.#ending !== undefined) this.#ending = this.#ending.then(() => this.#run(step));
    else this.#steps.push(step);
  }

  /** Undoes everything; throws the first error after all steps were tried. Can be called twice. */
  async end(): Promise<void> {
    this.#ending ??= this.#runAll();
    await this.#ending;
    if (this.#errors.length > 0) throw this.#errors[0];
  }

  /** Runs every step's `force`. */
  force(): void {
    for (const step of this.#steps.toReversed()) {
      try {
        step.force();
      } catch (error) {
        process.stderr.write(`ghostbus: while ending: ${(error as Error).message}\n`);
      }
    }
  }

  async #runAll(): Promise<void> {
    for (const step of this.#steps.toReversed()) await this.#run(step);
  }

  async #run(step: Step): Promise<void> {
    try {
      await step.end();
    } catch (error) {
      this.#errors.push(error as Error);
    }
  }
}

/** Where signals come from; `process`, or a test. */
export interface SignalSource {
  on(signal: NodeJS.Signals, listener: (signal: NodeJS.Signals) => void): unknown;
  off(signal: NodeJS.Signals, listener: (signal: NodeJS.Signals) => void): unknown;
  exit(status: number): void;
}

/**
 * Runs `work` and afterwards its cleanup, whether it succeeds, throws or a signal arrives. The first signal rejects
 * with {@link InterruptedError} once everything is undone; the second forces and exits.
 */
export async function withCleanup<T>(
  work: (cleanup: Cleanup) => Promise<T>,
  source: SignalSource = process,
): Promise<T> {
  const cleanup = new Cleanup();
  let interrupted = false;
  let interrupt: (error: Error) => void = () => undefined;
  const interruption = new Promise<never>((_, reject) => {
    interrupt = reject;
  });
  const onSignal = (signal: NodeJS.Signals) => {
    if (interrupted) {
      cleanup.force();
      source.exit(statusOfSignal(signal));
    }
    interrupted = true;
    interrupt(new InterruptedError(signal));
  };
  for (const signal of ENDING_SIGNALS) source.on(signal, onSignal);
  try {
    return await Promise.race([work(cleanup), interruption]);
  } finally {
    try {
      await cleanup.end();
    } finally {
      for (const signal of ENDING_SIGNALS) source.off(signal, onSignal);
    }
  }
}
