/** Objects that a driver creates and names by number: queues, keys, domains, contexts. */

/**
 * Why a registry refused. `full`: all numbers, or as many as the limit, are in use. `unknown`: there is no such object.
 */
export type RegistryRefusal = 'full' | 'unknown';

/** What a registry throws unless it was told what to throw. */
export class RegistryError extends Error {
  readonly refusal: RegistryRefusal;

  constructor(refusal: RegistryRefusal, message: string) {
    super(message);
    this.name = 'RegistryError';
    this.refusal = refusal;
  }
}

export interface ObjectRegistryOptions {
  /** Name of such an object, for messages: `completion queue`. */
  readonly kind: string;
  /** Numbers that are handed out, both ends included. */
  readonly firstId: number;
  readonly lastId: number;
  /** Objects at a time. Default: as many as there are numbers. */
  readonly limit?: number;
  /** Makes what is thrown, for devices whose errors carry the interface's own status. Default {@link RegistryError}. */
  readonly refuse?: (refusal: RegistryRefusal, message: string) => Error;
}

/** Hands out numbers in a circle, so that a stale number does not soon name another object. */
export class ObjectRegistry<T> {
  readonly kind: string;
  readonly #firstId: number;
  readonly #lastId: number;
  readonly #limit: number;
  readonly #refuse: (refusal: RegistryRefusal, message: string) => Error;
  readonly #objects = new Map<number, T>();
  #nextId: number;

  constructor({ kind, firstId, lastId, limit, refuse }: ObjectRegistryOptions) {
    const ids = lastId - firstId + 1;
    if (!(ids >= 1)) throw new RangeError(`a registry of ${kind} has no numbers from ${firstId} to ${lastId}`);
    this.kind = kind;
    this.#firstId = firstId;
    this.#lastId = lastId;
    this.#limit = Math.min(limit ?? ids, ids);
    this.#refuse = refuse ?? ((refusal, message) => new RegistryError(refusal, message));
    this.#nextId = firstId;
  }

  get size(): number {
    return this.#objects.size;
  }

  /**
   * Adds what `create` makes of its number, and returns the number; nothing is added when
   * `create` throws. Refused when all are in use.
   */
  add(create: (id: number) => T): number {
    if (this.#objects.size >= this.#limit) throw this.#refuse('full', `all ${this.#limit} of ${this.kind} are in use`);
    while (this.#objects.has(this.#nextId)) this.#nextId = this.#following(this.#nextId);
    const id = this.#nextId;
    this.#objects.set(id, create(id));
    this.#nextId = this.#following(id);
    return id;
  }

  find(id: number): T | undefined {
    return this.#objects.get(id);
  }

  /** Refused when there is none. */
  get(id: number): T {
    const found = this.#objects.get(id);
    if (found === undefined) throw this.#refuse('unknown', `there is no ${this.kind} ${id}`);
    return found;
  }

  /** Removes and returns it. Refused when there is none. */
  remove(id: number): T {
    const found = this.get(id);
    this.#objects.delete(id);
    return found;
  }

  values(): IterableIterator<T> {
    return this.#objects.values();
  }

  #following(id: number): number {
    return id === this.#lastId ? this.#firstId : id + 1;
  }
}
