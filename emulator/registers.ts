import type { Log, RegisterHandler } from './plugin.js';

/** One field of a register: inclusive bit range. */
export interface RegisterField {
  readonly low: number;
  readonly high: number;
}

/** One 32-bit register, or an array of them, declared as data. */
export interface RegisterDeclaration {
  /** Byte offset from the start of the block. */
  readonly offset: number;
  /** Array of registers: how many, and the distance in bytes (default 4). */
  readonly count?: number;
  readonly strideBytes?: number;
  /** Power-on value. Default 0. */
  readonly reset?: number;
  /** Bits that software can write. Default 0xffffffff. */
  readonly writable?: number;
  /** Bits that a written 1 clears. Default none. */
  readonly writeOneToClear?: number;
  readonly fields?: Readonly<Record<string, RegisterField>>;
  /** Computes what a read returns from the stored value; `index` is the position in an array. */
  readonly onRead?: (stored: number, index: number) => number;
  /** Called after the stored value changed according to the masks; may return a value to store instead. */
  readonly onWrite?: (value: number, previous: number, index: number) => number | undefined;
}

export interface RegisterBlockOptions {
  readonly name: string;
  readonly sizeBytes: number;
  readonly log?: Log;
  /**
   * What happens at an offset nobody declared. `loud`: counted, warned once per offset, reads 0, writes dropped.
   * `storage`: counted and remembered (a read returns the last write), warned at debug level only.
   */
  readonly undeclared?: 'loud' | 'storage';
}

/** A block of 32-bit registers declared as data, with behaviour in named handlers. */
export declare class RegisterBlock<Names extends string = string> implements RegisterHandler {
  constructor(options: RegisterBlockOptions, registers: Readonly<Record<Names, RegisterDeclaration>>);
  /** Stored value of a register, without its read handler. */
  get(name: Names, index?: number): number;
  /** Stores a value, without masks and handlers. */
  set(name: Names, value: number, index?: number): void;
  field(name: Names, field: string, index?: number): number;
  setField(name: Names, field: string, value: number, index?: number): void;
  /** Replaces the write handler after construction. */
  reset(): void;
  read(offset: number, sizeBytes: number): number;
  write(offset: number, sizeBytes: number, value: number): void;
  /** Counts of reads and writes at undeclared offsets, most used first. */
  unimplemented(): { offset: number; reads: number; writes: number }[];
}
