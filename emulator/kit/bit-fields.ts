/**
 * Fields of a register, a packet's control word or a table entry, declared once by lowest bit and width, as data books
 * do. Declared fields lie apart and inside the word; a mistake there is found when the module is loaded.
 *
 * Values are stored as hardware stores them: bits beyond the field are dropped.
 */

/** Lowest bit and width in bits. */
export type BitField = readonly [lsb: number, width: number];

type Fields = Readonly<Record<string, BitField>>;

/** Fields of a 32-bit word. Words are unsigned numbers; whatever is given is taken modulo 2^32. */
export class BitFields32<const F extends Fields> {
  readonly fields: F;

  constructor(fields: F) {
    checkFields(fields, 32);
    this.fields = fields;
  }

  get(word: number, name: keyof F): number {
    const field = this.fields[name]!;
    return (word >>> field[0]) & mask32(field[1]);
  }

  /** A flag, or a field that is not zero. */
  has(word: number, name: keyof F): boolean {
    return this.get(word, name) !== 0;
  }

  /** The word with one field replaced. */
  set(word: number, name: keyof F, value: number): number {
    const [lsb, width] = this.fields[name]!;
    const mask = mask32(width) << lsb;
    return ((word & ~mask) | ((value << lsb) & mask)) >>> 0;
  }

  /** The word made of these fields; the others are zero. */
  pack(values: Readonly<Partial<Record<keyof F, number>>>): number {
    return Object.entries<number | undefined>(values).reduce(
      (word, [name, value]) => (value === undefined ? word : this.set(word, name, value)),
      0,
    );
  }

  unpack(word: number): Record<keyof F, number> {
    const values = {} as Record<keyof F, number>;
    for (const name in this.fields) values[name] = this.get(word, name);
    return values;
  }

  /** Bits of a field in place, for comparisons and register declarations. */
  mask(...names: readonly (keyof F)[]): number {
    return names.reduce((mask, name) => this.set(mask, name, 0xffff_ffff), 0);
  }
}

type Digit = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;
/** Widths of 1 to 32 bits, whose values are numbers; wider fields are bigint. */
type Narrow = `${Digit}` | `${1 | 2}${Digit}` | '30' | '31' | '32';

/** A field of at most 32 bits is a number, a wider one a bigint. */
export type FieldValue<F extends BitField> = `${F[1]}` extends Narrow ? number : bigint;

type Values<F extends Fields> = { [Name in keyof F]: FieldValue<F[Name]> };

/** Fields of a 64-bit word; words are unsigned bigints, whatever is given is taken modulo 2^64. */
export class BitFields64<const F extends Fields> {
  readonly fields: F;

  constructor(fields: F) {
    checkFields(fields, 64);
    this.fields = fields;
  }

  get<Name extends keyof F>(word: bigint, name: Name): FieldValue<F[Name]> {
    const [lsb, width] = this.fields[name]!;
    const value = BigInt.asUintN(width, word >> BigInt(lsb));
    return (width <= 32 ? Number(value) : value) as FieldValue<F[Name]>;
  }

  /** A flag, or a field that is not zero. */
  has(word: bigint, name: keyof F): boolean {
    return BigInt(this.get(word, name)) !== 0n;
  }

  /** The word with one field replaced. */
  set<Name extends keyof F>(word: bigint, name: Name, value: FieldValue<F[Name]>): bigint {
    const [lsb, width] = this.fields[name]!;
    const cleared = BigInt.asUintN(64, word) & ~this.mask(name);
    return cleared | (BigInt.asUintN(width, BigInt(value)) << BigInt(lsb));
  }

  /** The word made of these fields; the others are zero. */
  pack(values: Readonly<Partial<Values<F>>>): bigint {
    const names: (keyof F)[] = Object.keys(values);
    return names.reduce((word, name) => {
      const value = values[name];
      return value === undefined ? word : this.set(word, name, value);
    }, 0n);
  }

  unpack(word: bigint): Values<F> {
    const entries = Object.keys(this.fields).map((name) => [name, this.get(word, name)]);
    return Object.fromEntries(entries) as Values<F>;
  }

  /** Bits of a field in place. */
  mask(...names: readonly (keyof F)[]): bigint {
    return names.reduce((mask, name) => {
      const [lsb, width] = this.fields[name]!;
      return mask | (((1n << BigInt(width)) - 1n) << BigInt(lsb));
    }, 0n);
  }
}

function mask32(width: number): number {
  return 0xffff_ffff >>> (32 - width);
}

function checkFields(fields: Fields, wordBits: number): void {
  const owners = new Array<string | undefined>(wordBits);
  for (const [name, [lsb, width]] of Object.entries(fields)) {
    if (!Number.isInteger(lsb) || !Number.isInteger(width) || lsb < 0 || width < 1 || lsb + width > wordBits) {
      throw new RangeError(`field ${name} of ${width} bits at bit ${lsb} does not lie in a word of ${wordBits} bits`);
    }
    for (let bit = lsb; bit < lsb + width; bit++) {
      if (owners[bit] !== undefined) throw new RangeError(`fields ${owners[bit]} and ${name} share bit ${bit}`);
      owners[bit] = name;
    }
  }
}
