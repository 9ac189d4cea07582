import type { ExecListener } from './exec-port.js';
import type { RunOptions, RunResult } from './guest.js';

/** The host's view of one command in the guest, from its start to its one end. */
export class RunningCommand implements ExecListener {
  /** Settles once: with the wait status, or with the reason why it will never be known. */
  readonly exit: Promise<number>;
  /** In the guest; the leader of the command's session. */
  pid: number | undefined;
  finished = false;
  readonly #options: RunOptions;
  #resolveExit: (waitStatus: number) => void = () => {};
  #rejectExit: (error: Error) => void = () => {};
  #killReason: Error | undefined;

  constructor(options: RunOptions) {
    this.#options = options;
    this.exit = new Promise((resolve, reject) => {
      this.#resolveExit = resolve;
      this.#rejectExit = reject;
    });
    this.exit.catch(() => {});
  }

  onStarted(pid: number): void {
    this.pid = pid;
  }

  onStdout(chunk: Buffer): void {
    this.#options.onStdout?.(chunk);
  }

  onStderr(chunk: Buffer): void {
    this.#options.onStderr?.(chunk);
  }

  onExit(status: number): void {
    this.finished = true;
    if (this.#killReason === undefined) this.#resolveExit(status);
    else this.#rejectExit(this.#killReason);
  }

  /** From now on its end counts as this error. */
  willBeKilled(reason: Error): void {
    this.#killReason = reason;
  }

  /** Its end will not be told any more. */
  readonly lost = (error: Error): void => {
    this.finished = true;
    this.#rejectExit(this.#killReason ?? error);
  };
}

/** Splits a wait status as waitpid(2) gives it (Linux: low seven bits the signal, next byte the exit status). */
export function splitWaitStatus(status: number): RunResult {
  const signal = status & 0x7f;
  return signal === 0 ? { exitCode: (status >> 8) & 0xff, signal: undefined } : { exitCode: undefined, signal };
}
