/**
 * Arithmetic of rings between a driver and a device: a producer's and a consumer's counter, which wrap.
 *
 * A {@link Ring} holds no counters: they are registers, fields of doorbell records, words in guest memory, and
 * untrusted where the driver writes them. It knows three ways of counting, by the range that the counters wrap at: the
 * number of entries (positions; one entry stays free, or full would look like empty), a multiple of it (twice the
 * entries: positions with a wrap bit; or a fixed width, 2^16, 2^24), where all entries can be used.
 */

/**
 * Rings that a guest sizes: at least 1 entry, so that arithmetic holds whatever it wrote; bounds
 * above are the device's.
 */
export interface RingShape {
  readonly entries: number;
  /** Counters run from 0 to one less. A multiple of `entries`. Default: `entries`. */
  readonly counterRange?: number;
}

export class Ring {
  readonly entries: number;
  readonly counterRange: number;

  /** Throws RangeError when the shape makes no sense: a device checks what a guest says before. */
  constructor({ entries, counterRange = entries }: RingShape) {
    if (!Number.isSafeInteger(entries) || entries < 1) throw new RangeError(`a ring of ${entries} entries`);
    if (!Number.isSafeInteger(counterRange) || counterRange < 1 || counterRange % entries !== 0) {
      throw new RangeError(`counters of a ring of ${entries} entries cannot wrap at ${counterRange}: no multiple`);
    }
    this.entries = entries;
    this.counterRange = counterRange;
  }

  /** Entries that can be in use at a time. */
  get capacity(): number {
    return this.counterRange === this.entries ? this.entries - 1 : this.entries;
  }

  /** Position in the ring of the entry that `counter` counts. */
  slot(counter: number): number {
    return modulo(counter, this.entries);
  }

  /** Which time round, counted from 0; its lowest bit is what hardware calls wrap, phase or owner bit. */
  round(counter: number): number {
    return Math.floor(modulo(counter, this.counterRange) / this.entries);
  }

  advance(counter: number, by = 1): number {
    return modulo(counter + by, this.counterRange);
  }

  /** Entries that were produced and not consumed. More than {@link capacity} when one of the counters is wrong. */
  used(producer: number, consumer: number): number {
    return modulo(producer - consumer, this.counterRange);
  }

  /** Entries that can still be produced. */
  free(producer: number, consumer: number): number {
    return Math.max(0, this.capacity - this.used(producer, consumer));
  }

  isEmpty(producer: number, consumer: number): boolean {
    return this.used(producer, consumer) === 0;
  }

  isFull(producer: number, consumer: number): boolean {
    return this.used(producer, consumer) >= this.capacity;
  }

  /** Whether the two can be true at a time: counters inside their range, and no more in use than fits. */
  isPlausible(producer: number, consumer: number): boolean {
    return this.#isCounter(producer) && this.#isCounter(consumer) && this.used(producer, consumer) <= this.capacity;
  }

  /** Whether `counter` lies after `other`, by less than half of the range. For counters much wider than the ring. */
  isAfter(counter: number, other: number): boolean {
    const distance = this.used(counter, other);
    return distance > 0 && distance < this.counterRange / 2;
  }

  #isCounter(counter: number): boolean {
    return Number.isInteger(counter) && counter >= 0 && counter < this.counterRange;
  }
}

/** Never negative, and exact for counters up to 2^53. */
function modulo(value: number, range: number): number {
  const rest = value % range;
  return rest < 0 ? rest + range : rest;
}

/** Ring sizes in registers are often to be powers of two; zero is none. */
export function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && 2 ** Math.round(Math.log2(value)) === value;
}
