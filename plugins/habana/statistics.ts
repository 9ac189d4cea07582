/**
 * What is counted since the card was made: counters are the card's, so that a reset of the device does not lose them.
 */
import type { RegisterBlock, UndeclaredAccess } from 'ghostbus';

type Counters<Names extends string> = Record<Names, number>;

/** A block of registers, as far as its undeclared accesses are concerned. */
type CountingBlock = Pick<RegisterBlock, 'name' | 'nameAt' | 'unimplemented'>;

interface UnimplementedRegister {
  readonly register: string;
  readonly reads: number;
  readonly writes: number;
}

export class Statistics {
  readonly #counters = new Map<string, Counters<string>>();
  /** Of devices that were reset, by block and offset. */
  readonly #undeclared = new Map<string, Map<number, UndeclaredAccess>>();

  /** The counters of one part of the device: zero at first, the same object for every device that follows. */
  of<Names extends string>(part: string, ...names: readonly Names[]): Counters<Names> {
    let counters = this.#counters.get(part);
    if (counters === undefined) {
      counters = Object.fromEntries(names.map((name) => [name, 0]));
      this.#counters.set(part, counters);
    }
    return counters;
  }

  /** Takes over what the blocks of a device counted that is thrown away. */
  keepUnimplemented(blocks: readonly CountingBlock[]): void {
    for (const block of blocks) this.#undeclared.set(block.name, this.#merged(block));
  }

  /** Registers nobody declared, block by block, most used first. */
  unimplemented(blocks: readonly CountingBlock[]): UnimplementedRegister[] {
    return blocks.flatMap((block) =>
      [...this.#merged(block).values()]
        .sort((a, b) => b.reads + b.writes - (a.reads + a.writes) || a.offset - b.offset)
        .map(({ offset, reads, writes }) => ({ register: block.nameAt(offset), reads, writes })),
    );
  }

  #merged(block: CountingBlock): Map<number, UndeclaredAccess> {
    const merged = new Map(this.#undeclared.get(block.name));
    for (const { offset, reads, writes } of block.unimplemented()) {
      const earlier = merged.get(offset);
      merged.set(offset, {
        offset,
        reads: reads + (earlier?.reads ?? 0),
        writes: writes + (earlier?.writes ?? 0),
      });
    }
    return merged;
  }
}
