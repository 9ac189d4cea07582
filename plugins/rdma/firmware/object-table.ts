/** Objects that the driver creates, by number; and what they may cost this process. */
import { CommandError, STATUS } from './command.js';

/** Hands out numbers in a circle, so that a stale number does not soon name another object. */
export class ObjectTable<T> {
  readonly kind: string;
  readonly #objects = new Map<number, T>();
  readonly #first: number;
  readonly #last: number;
  readonly #limit: number;
  #next: number;

  /** Numbers from `first` to `last`; at most `limit` objects at a time. */
  constructor(kind: string, first: number, last: number, limit = last - first + 1) {
    this.kind = kind;
    this.#first = first;
    this.#last = last;
    this.#limit = limit;
    this.#next = first;
  }

  get size(): number {
    return this.#objects.size;
  }

  /** Adds what `create` makes of its number, and returns the number. Throws {@link CommandError} when all are taken. */
  add(create: (number: number) => T): number {
    if (this.#objects.size >= this.#limit) {
      throw new CommandError(STATUS.LIMIT_EXCEEDED, `all ${this.#limit} of ${this.kind} are in use`);
    }
    while (this.#objects.has(this.#next)) this.#advance();
    const number = this.#next;
    this.#objects.set(number, create(number));
    this.#advance();
    return number;
  }

  find(number: number): T | undefined {
    return this.#objects.get(number);
  }

  /** Throws {@link CommandError} when there is none. */
  get(number: number): T {
    const found = this.#objects.get(number);
    if (found === undefined) throw new CommandError(STATUS.BAD_RESOURCE, `there is no ${this.kind} ${number}`);
    return found;
  }

  /** Removes and returns it. Throws {@link CommandError} when there is none. */
  remove(number: number): T {
    const found = this.get(number);
    this.#objects.delete(number);
    return found;
  }

  values(): IterableIterator<T> {
    return this.#objects.values();
  }

  #advance(): void {
    this.#next = this.#next === this.#last ? this.#first : this.#next + 1;
  }
}

/** Heap that a guest may make this process hold for one adapter: page lists and translation tables. */
export class Budget {
  readonly limitBytes: number;
  #usedBytes = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** False, and nothing taken, when that is too much. */
  take(sizeBytes: number): boolean {
    if (this.#usedBytes + sizeBytes > this.limitBytes) return false;
    this.#usedBytes += sizeBytes;
    return true;
  }

  give(sizeBytes: number): void {
    this.#usedBytes -= sizeBytes;
  }
}
