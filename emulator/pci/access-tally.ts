/** How often one undeclared offset was read and written. */
export interface UndeclaredAccess {
  readonly offset: number;
  readonly reads: number;
  readonly writes: number;
}

/** The guest chooses the offsets: beyond this many distinct ones, only totals are kept. */
const MAX_OFFSETS = 16384;

/** Counts accesses to offsets that nothing stands behind. Bounded, however wild the guest. */
export class AccessTally {
  readonly #offsets = new Map<number, { offset: number; reads: number; writes: number }>();
  #reads = 0;
  #writes = 0;

  get reads(): number {
    return this.#reads;
  }

  get writes(): number {
    return this.#writes;
  }

  /** Returns true at the first access to this offset, so that the caller warns once. */
  countRead(offset: number): boolean {
    this.#reads++;
    const [entry, first] = this.#entry(offset);
    if (entry !== undefined) entry.reads++;
    return first;
  }

  /** Returns true at the first access to this offset, so that the caller warns once. */
  countWrite(offset: number): boolean {
    this.#writes++;
    const [entry, first] = this.#entry(offset);
    if (entry !== undefined) entry.writes++;
    return first;
  }

  /** Most used first. */
  list(): UndeclaredAccess[] {
    return [...this.#offsets.values()]
      .map((entry) => ({ ...entry }))
      .sort((a, b) => b.reads + b.writes - (a.reads + a.writes) || a.offset - b.offset);
  }

  #entry(offset: number): [{ reads: number; writes: number } | undefined, boolean] {
    const known = this.#offsets.get(offset);
    if (known !== undefined) return [known, false];
    if (this.#offsets.size >= MAX_OFFSETS) return [undefined, false];
    const entry = { offset, reads: 0, writes: 0 };
    this.#offsets.set(offset, entry);
    return [entry, true];
  }
}
