/** Bad weather on the wire: losses, duplicates, reordering and corruption, repeatable by their seed. */

/** What the generator adds to its state. */
const MULBERRY32_STEP = 0x6d2b79f5;

/** Probabilities between 0 and 1, tried in this order for every packet. */
interface FaultRates {
  readonly loss: number;
  readonly corruption: number;
  readonly duplication: number;
  readonly reordering: number;
}

export type Fate = 'arrives' | 'lost' | 'corrupted' | 'duplicated' | 'reordered';

export class WireFaults {
  #rates: FaultRates | undefined;
  #state = 0;
  readonly counts: Record<Fate, number> = { arrives: 0, lost: 0, corrupted: 0, duplicated: 0, reordered: 0 };

  get areActive(): boolean {
    return this.#rates !== undefined;
  }

  /** From now on; all rates 0 ends it. The same seed gives the same fates. */
  set(rates: FaultRates, seed: number): void {
    for (const [name, rate] of Object.entries(rates)) {
      if (!(rate >= 0 && rate <= 1)) throw new RangeError(`${name} must lie between 0 and 1, not ${rate}`);
    }
    this.#rates = Object.values(rates).every((rate) => rate === 0) ? undefined : rates;
    this.#state = seed >>> 0;
  }

  /** What happens to the next packet. */
  draw(): Fate {
    const fate = this.#rates === undefined ? 'arrives' : this.#pick(this.#rates, this.#random());
    this.counts[fate]++;
    return fate;
  }

  #pick(rates: FaultRates, random: number): Fate {
    let left = random - rates.loss;
    if (left < 0) return 'lost';
    left -= rates.corruption;
    if (left < 0) return 'corrupted';
    left -= rates.duplication;
    if (left < 0) return 'duplicated';
    return left < rates.reordering ? 'reordered' : 'arrives';
  }

  /** The generator "mulberry32": 32 bits of state are plenty for weather. */
  #random(): number {
    this.#state = (this.#state + MULBERRY32_STEP) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
}
