import type { Log } from 'ghostbus';

/** Each kind of complaint is shown this often: a guest must not be able to fill the host's disk with them. */
const SHOWN_PER_KIND = 10;

/** Warnings about what the guest does, counted by kind. */
export class Complaints {
  readonly #log: Log;
  readonly #counts = new Map<string, number>();

  constructor(log: Log) {
    this.#log = log;
  }

  /** `kind` is one of a few fixed texts, `message` may carry the guest's values. */
  warn(kind: string, message: string): void {
    const count = (this.#counts.get(kind) ?? 0) + 1;
    this.#counts.set(kind, count);
    if (count < SHOWN_PER_KIND) this.#log.warn(message);
    else if (count === SHOWN_PER_KIND) this.#log.warn(`${message} (further ones of this kind are only counted)`);
  }

  inspect(): unknown {
    return Object.fromEntries(this.#counts);
  }
}
