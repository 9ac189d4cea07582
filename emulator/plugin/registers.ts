import type { Log } from '../ambient/log.js';
import { AccessTally, type UndeclaredAccess } from '../pci/access-tally.js';
import type { RegisterHandler } from '../pci/register-handler.js';

/** One field of a register: inclusive bit range. */
export interface RegisterField {
  readonly low: number;
  readonly high: number;
}

/** What 32-bit and 64-bit registers have in common. */
interface RegisterPlace {
  /** Byte offset from the start of the block; a multiple of the register's width. */
  readonly offset: number;
  /** Array of registers: how many, and the distance in bytes (default: the register's width). */
  readonly count?: number;
  readonly strideBytes?: number;
}

/** One 32-bit register, or an array of them, declared as data. */
export interface RegisterDeclaration extends RegisterPlace {
  readonly wide?: false;
  /** Power-on value. Default 0. */
  readonly reset?: number;
  /** Bits that software can write. Default 0xffffffff. */
  readonly writable?: number;
  /** Bits that a written 1 clears, whatever `writable` says. Default none. */
  readonly writeOneToClear?: number;
  readonly fields?: Readonly<Record<string, RegisterField>>;
  /**
   * Only name and place are known so far: it keeps what is written to it, and every access is counted and
   * warned about once, as at an offset nobody declared.
   */
  readonly unimplemented?: true;
  /** Computes what a read returns from the stored value; `index` is the position in an array. */
  readonly onRead?: (stored: number, index: number) => number;
  /**
   * Called after the stored value changed according to the masks; may return a value to store instead. `written` is
   * what software wrote before the masks, zero in bytes that it did not write: for registers that act on a written 1.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: a handler that returns nothing is the common case
  readonly onWrite?: (value: number, previous: number, index: number, written: number) => number | undefined | void;
}

/**
 * One 64-bit register, or an array of them. An 8-byte access is one call of its handler; of two 4-byte writes each
 * calls it with the other half as it is stored.
 */
export interface WideRegisterDeclaration extends RegisterPlace {
  readonly wide: true;
  /** Power-on value. Default 0. */
  readonly reset?: bigint;
  /** Bits that software can write. Default all. */
  readonly writable?: bigint;
  readonly onRead?: (stored: bigint, index: number) => bigint;
  /** As for a 32-bit register, without the raw value. */
  // biome-ignore lint/suspicious/noConfusingVoidType: a handler that returns nothing is the common case
  readonly onWrite?: (value: bigint, previous: bigint, index: number) => bigint | undefined | void;
}

export interface RegisterBlockOptions {
  readonly name: string;
  readonly sizeBytes: number;
  readonly log?: Log;
  /**
   * What happens at an offset nobody declared. `loud` (the default): counted, warned once per offset, reads 0, writes
   * dropped. `storage`: counted and remembered (a read returns the last write), warned at debug level
   * only; pages of storage cost nothing until written.
   */
  readonly undeclared?: 'loud' | 'storage';
}

/** Registers are found through pages of 1024 dwords, so that a sparse block of many MiB costs only what it declares. */
const PAGE_SHIFT = 12;
const PAGE_DWORDS = 1024;
const MAX_BLOCK_BYTES = 2 ** 32;
const ALL_32 = 0xffffffff;
const ALL_64 = 0xffffffffffffffffn;

/**
 * A declaration with its place in the value table: `firstSlot` for element 0; a wide element
 * takes two slots, low first.
 */
interface Placed {
  readonly name: string;
  readonly offset: number;
  readonly count: number;
  readonly strideBytes: number;
  readonly firstSlot: number;
  readonly narrow: RegisterDeclaration | undefined;
  readonly wide: WideRegisterDeclaration | undefined;
  readonly writable: number;
  readonly writeOneToClear: number;
  readonly unimplemented: boolean;
}

/**
 * A block of registers declared as data, with behaviour in named handlers. Registers are 32 bits wide unless they say
 * `wide`; narrower accesses are merged, an 8-byte access to 32-bit registers is two, low half first.
 *
 * Methods that take a name throw RangeError on an unknown name, field or index: that is a mistake
 * in the device, never of the guest.
 */
export class RegisterBlock<Names extends string = string> implements RegisterHandler {
  readonly name: string;
  readonly sizeBytes: number;
  readonly #log: Log | undefined;
  readonly #remember: boolean;
  readonly #byName = new Map<string, Placed>();
  readonly #placed: Placed[] = [];
  readonly #values: Uint32Array;
  /** Index into #placed of each slot. */
  readonly #owners: Uint32Array;
  /** Slot + 1 of each dword of a page; 0 where nothing is declared. */
  readonly #pages: (Int32Array | undefined)[] = [];
  readonly #storage = new Map<number, Uint32Array>();
  readonly #undeclared = new AccessTally();

  /**
   * Throws an Error that names the register when a declaration is out of the block, misaligned, or overlaps another.
   */
  constructor(
    options: RegisterBlockOptions,
    registers: Readonly<Record<Names, RegisterDeclaration | WideRegisterDeclaration>>,
  ) {
    this.name = options.name;
    this.sizeBytes = options.sizeBytes;
    this.#log = options.log;
    this.#remember = options.undeclared === 'storage';
    if (!Number.isInteger(this.sizeBytes) || this.sizeBytes <= 0 || this.sizeBytes > MAX_BLOCK_BYTES) {
      throw new RangeError(`register block ${this.name}: size ${this.sizeBytes} is not between 1 byte and 4 GiB`);
    }
    let slots = 0;
    for (const [name, declaration] of Object.entries<RegisterDeclaration | WideRegisterDeclaration>(registers)) {
      const placed = resolve(name, declaration, slots);
      this.#check(placed);
      this.#placed.push(placed);
      this.#byName.set(name, placed);
      slots += placed.count * (placed.wide === undefined ? 1 : 2);
    }
    this.#values = new Uint32Array(slots);
    this.#owners = new Uint32Array(slots);
    this.#placed.forEach((placed, owner) => {
      this.#enter(placed, owner);
    });
    this.#setPowerOnValues();
  }

  /** Stored value of a 32-bit register, without its read handler. */
  get(name: Names, index = 0): number {
    return this.#values[this.#narrowSlot(name, index)]!;
  }

  /** Stores a value in a 32-bit register, without masks and handlers. */
  set(name: Names, value: number, index = 0): void {
    this.#values[this.#narrowSlot(name, index)] = value;
  }

  /** Stored value of a wide register, without its read handler. */
  get64(name: Names, index = 0): bigint {
    return this.#value64(this.#wideSlot(name, index));
  }

  /** Stores a value in a wide register, without masks and handlers. */
  set64(name: Names, value: bigint, index = 0): void {
    this.#setValue64(this.#wideSlot(name, index), value);
  }

  field(name: Names, field: string, index = 0): number {
    const { low, high } = this.#field(name, field);
    return (this.get(name, index) & fieldMask(low, high)) >>> low;
  }

  /** Stores a field; bits of `value` beyond the field are dropped. */
  setField(name: Names, field: string, value: number, index = 0): void {
    const { low, high } = this.#field(name, field);
    const mask = fieldMask(low, high);
    this.set(name, (this.get(name, index) & ~mask) | ((value << low) & mask), index);
  }

  /** Byte offset of a register in the block. */
  offsetOf(name: Names, index = 0): number {
    const placed = this.#find(name, index);
    return placed.offset + index * placed.strideBytes;
  }

  read(offset: number, sizeBytes: number): number {
    this.#checkAccess(offset, sizeBytes);
    const slot = this.#slotAt(offset);
    if (!this.#isImplemented(slot)) this.#countRead(offset);
    const value = slot < 0 ? this.#readUndeclared(offset) : this.#readSlot(slot);
    if (sizeBytes === 4) return value;
    return (value >>> (8 * (offset & 3))) & (sizeBytes === 2 ? 0xffff : 0xff);
  }

  write(offset: number, sizeBytes: number, value: number): void {
    this.#checkAccess(offset, sizeBytes);
    const shift = 8 * (offset & 3);
    const touched = sizeBytes === 4 ? ALL_32 : (sizeBytes === 2 ? 0xffff : 0xff) << shift;
    const written = ((value << shift) & touched) >>> 0;
    const slot = this.#slotAt(offset);
    if (!this.#isImplemented(slot)) this.#countWrite(offset, written);
    if (slot < 0) this.#writeUndeclared(offset, written, touched);
    else this.#writeSlot(slot, written, touched);
  }

  read64(offset: number): bigint {
    this.#checkWideAccess(offset);
    const slot = this.#slotAt(offset);
    const placed = slot < 0 ? undefined : this.#placed[this.#owners[slot]!]!;
    if (placed?.wide === undefined) return BigInt(this.read(offset, 4)) | (BigInt(this.read(offset + 4, 4)) << 32n);
    return this.#readWide(placed, placed.wide, slot);
  }

  write64(offset: number, value: bigint): void {
    this.#checkWideAccess(offset);
    const slot = this.#slotAt(offset);
    const placed = slot < 0 ? undefined : this.#placed[this.#owners[slot]!]!;
    if (placed?.wide === undefined) {
      this.write(offset, 4, Number(value & 0xffffffffn));
      this.write(offset + 4, 4, Number((value >> 32n) & 0xffffffffn));
    } else {
      this.#writeWide(placed, placed.wide, slot, value, ALL_64);
    }
  }

  /** Counts of reads and writes at undeclared offsets and of registers declared unimplemented, most used first. */
  unimplemented(): UndeclaredAccess[] {
    return this.#undeclared.list();
  }

  /**
   * Name of the register at `offset`, for logs: `block.NAME`, `block.NAME[3]`, or `block+0x40` when nobody declared it.
   */
  nameAt(offset: number): string {
    const slot = this.#slotAt(offset);
    if (slot < 0) return `${this.name}+0x${offset.toString(16)}`;
    const placed = this.#placed[this.#owners[slot]!]!;
    return `${this.name}.${placed.name}${placed.count > 1 ? `[${indexOf(placed, slot)}]` : ''}`;
  }

  #slotAt(offset: number): number {
    const page = this.#pages[offset >>> PAGE_SHIFT];
    return page === undefined ? -1 : page[(offset >>> 2) & (PAGE_DWORDS - 1)]! - 1;
  }

  #readSlot(slot: number): number {
    const placed = this.#placed[this.#owners[slot]!]!;
    if (placed.wide !== undefined) {
      const high = (slot - placed.firstSlot) & 1;
      const value = this.#readWide(placed, placed.wide, slot - high);
      return Number(high === 0 ? value & 0xffffffffn : (value >> 32n) & 0xffffffffn);
    }
    const stored = this.#values[slot]!;
    const onRead = placed.narrow!.onRead;
    return onRead === undefined ? stored : onRead(stored, slot - placed.firstSlot) >>> 0;
  }

  #writeSlot(slot: number, written: number, touched: number): void {
    const placed = this.#placed[this.#owners[slot]!]!;
    if (placed.wide !== undefined) {
      const high = (slot - placed.firstSlot) & 1;
      const shift = high === 0 ? 0n : 32n;
      this.#writeWide(placed, placed.wide, slot - high, BigInt(written) << shift, BigInt(touched >>> 0) << shift);
      return;
    }
    const previous = this.#values[slot]!;
    const writable = placed.writable & touched;
    const merged = (previous & ~writable) | (written & writable);
    const value = (merged & ~(written & placed.writeOneToClear)) >>> 0;
    this.#values[slot] = value;
    const stored = placed.narrow!.onWrite?.(value, previous, slot - placed.firstSlot, written);
    if (stored !== undefined) this.#values[slot] = stored;
  }

  #readWide(placed: Placed, wide: WideRegisterDeclaration, slot: number): bigint {
    const stored = this.#value64(slot);
    return wide.onRead === undefined ? stored : BigInt.asUintN(64, wide.onRead(stored, indexOf(placed, slot)));
  }

  #writeWide(placed: Placed, wide: WideRegisterDeclaration, slot: number, written: bigint, touched: bigint): void {
    const previous = this.#value64(slot);
    const writable = (wide.writable ?? ALL_64) & touched;
    const value = (previous & (writable ^ ALL_64)) | (written & writable);
    this.#setValue64(slot, value);
    const stored = wide.onWrite?.(value, previous, indexOf(placed, slot));
    if (stored !== undefined) this.#setValue64(slot, stored);
  }

  #value64(slot: number): bigint {
    return BigInt(this.#values[slot]!) | (BigInt(this.#values[slot + 1]!) << 32n);
  }

  #setValue64(slot: number, value: bigint): void {
    this.#values[slot] = Number(value & 0xffffffffn);
    this.#values[slot + 1] = Number((value >> 32n) & 0xffffffffn);
  }

  #isImplemented(slot: number): boolean {
    return slot >= 0 && !this.#placed[this.#owners[slot]!]!.unimplemented;
  }

  #countRead(offset: number): void {
    const dword = offset - (offset % 4);
    if (this.#undeclared.countRead(dword)) this.#report('read', dword);
  }

  #countWrite(offset: number, written: number): void {
    const dword = offset - (offset % 4);
    if (this.#undeclared.countWrite(dword)) this.#report('write', dword, written);
  }

  #readUndeclared(offset: number): number {
    const dword = offset - (offset % 4);
    return this.#storage.get(dword >>> PAGE_SHIFT)?.[(dword >>> 2) & (PAGE_DWORDS - 1)] ?? 0;
  }

  #writeUndeclared(offset: number, written: number, touched: number): void {
    if (!this.#remember) return;
    const dword = offset - (offset % 4);
    let page = this.#storage.get(dword >>> PAGE_SHIFT);
    if (page === undefined) {
      page = new Uint32Array(PAGE_DWORDS);
      this.#storage.set(dword >>> PAGE_SHIFT, page);
    }
    const index = (dword >>> 2) & (PAGE_DWORDS - 1);
    page[index] = (page[index]! & ~touched) | written;
  }

  #report(action: 'read' | 'write', offset: number, value?: number): void {
    const message = `${action} of unimplemented register ${this.nameAt(offset)}`;
    const fields = value === undefined ? { offset } : { offset, value };
    if (this.#remember && this.#slotAt(offset) < 0) this.#log?.debug(message, fields);
    else this.#log?.warn(message, fields);
  }

  #checkAccess(offset: number, sizeBytes: number): void {
    if (offset < 0 || offset + sizeBytes > this.sizeBytes || (offset & 3) + sizeBytes > 4) {
      throw new RangeError(
        `register block ${this.name}: access of ${sizeBytes} bytes at ${offset} is misaligned or outside`,
      );
    }
  }

  #checkWideAccess(offset: number): void {
    if (offset < 0 || offset + 8 > this.sizeBytes || offset % 8 !== 0) {
      throw new RangeError(`register block ${this.name}: access of 8 bytes at ${offset} is misaligned or outside`);
    }
  }

  #find(name: string, index: number): Placed {
    const placed = this.#byName.get(name);
    if (placed === undefined) throw new RangeError(`register block ${this.name} has no register ${name}`);
    if (!Number.isInteger(index) || index < 0 || index >= placed.count) {
      throw new RangeError(`register ${this.name}.${name} has elements 0 to ${placed.count - 1}, not ${index}`);
    }
    return placed;
  }

  #narrowSlot(name: string, index: number): number {
    const placed = this.#find(name, index);
    if (placed.wide !== undefined) throw new RangeError(`register ${this.name}.${name} is wide; use get64 and set64`);
    return placed.firstSlot + index;
  }

  #wideSlot(name: string, index: number): number {
    const placed = this.#find(name, index);
    if (placed.wide === undefined) throw new RangeError(`register ${this.name}.${name} has 32 bits; use get and set`);
    return placed.firstSlot + 2 * index;
  }

  #field(name: string, field: string): RegisterField {
    const found = this.#byName.get(name)?.narrow?.fields?.[field];
    if (found === undefined) throw new RangeError(`register ${this.name}.${name} has no field ${field}`);
    return found;
  }

  #setPowerOnValues(): void {
    for (const { firstSlot, count, narrow, wide } of this.#placed) {
      if (wide === undefined) this.#values.fill(narrow?.reset ?? 0, firstSlot, firstSlot + count);
      else for (let index = 0; index < count; index++) this.#setValue64(firstSlot + 2 * index, wide.reset ?? 0n);
    }
  }

  #check({ name, offset, count, strideBytes, wide, narrow }: Placed): void {
    const widthBytes = wide === undefined ? 4 : 8;
    const problem = (text: string): Error => new Error(`register ${this.name}.${name}: ${text}`);
    if (!Number.isInteger(offset) || offset < 0 || offset % widthBytes !== 0) {
      throw problem(`offset ${offset} is not a multiple of ${widthBytes}`);
    }
    if (!Number.isInteger(count) || count < 1) throw problem(`count ${count} must be at least 1`);
    if (!Number.isInteger(strideBytes) || strideBytes < widthBytes || strideBytes % widthBytes !== 0) {
      throw problem(`strideBytes ${strideBytes} is not a multiple of ${widthBytes}`);
    }
    const end = offset + (count - 1) * strideBytes + widthBytes;
    if (end > this.sizeBytes)
      throw problem(`ends at 0x${end.toString(16)}, beyond the block's ${this.sizeBytes} bytes`);
    const wrongReset = resetProblem(narrow, wide);
    if (wrongReset !== undefined) throw problem(wrongReset);
    for (const [field, { low, high }] of Object.entries(narrow?.fields ?? {})) {
      if (low < 0 || high > 31 || low > high)
        throw problem(`field ${field} has bits ${low} to ${high}; use 0 to 31, low first`);
    }
  }

  #enter(placed: Placed, owner: number): void {
    const halves = placed.wide === undefined ? 1 : 2;
    for (let element = 0; element < placed.count * halves; element++) {
      const slot = placed.firstSlot + element;
      const offset = placed.offset + Math.floor(element / halves) * placed.strideBytes + 4 * (element % halves);
      const taken = this.#slotAt(offset);
      if (taken >= 0) {
        const other = this.#placed[this.#owners[taken]!]!.name;
        throw new Error(`register ${this.name}.${placed.name}: overlaps ${other} at 0x${offset.toString(16)}`);
      }
      let page = this.#pages[offset >>> PAGE_SHIFT];
      if (page === undefined) {
        page = new Int32Array(PAGE_DWORDS);
        this.#pages[offset >>> PAGE_SHIFT] = page;
      }
      page[(offset >>> 2) & (PAGE_DWORDS - 1)] = slot + 1;
      this.#owners[slot] = owner;
    }
  }
}

function resolve(name: string, declaration: RegisterDeclaration | WideRegisterDeclaration, firstSlot: number): Placed {
  const widthBytes = declaration.wide ? 8 : 4;
  const { offset, count = 1, strideBytes = widthBytes } = declaration;
  const narrow = declaration.wide ? undefined : declaration;
  return {
    name,
    offset,
    count,
    strideBytes,
    firstSlot,
    narrow,
    wide: declaration.wide ? declaration : undefined,
    writable: narrow?.writable ?? ALL_32,
    writeOneToClear: narrow?.writeOneToClear ?? 0,
    unimplemented: narrow?.unimplemented ?? false,
  };
}

/** What is wrong with a power-on value: JavaScript may give one of the other width's type. */
function resetProblem(narrow: RegisterDeclaration | undefined, wide: WideRegisterDeclaration | undefined) {
  const reset: unknown = wide === undefined ? narrow?.reset : wide.reset;
  const [type, bits, all] = wide === undefined ? (['number', 32, ALL_32] as const) : (['bigint', 64, ALL_64] as const);
  if (reset === undefined) return undefined;
  if (typeof reset !== type)
    return `reset ${String(reset)} is a ${typeof reset}; a register of ${bits} bits takes a ${type}`;
  const value = reset as number | bigint;
  const fits = value >= 0 && value <= all && (typeof value === 'bigint' || Number.isInteger(value));
  return fits ? undefined : `reset ${value} is no unsigned value of ${bits} bits; use 0 to 0x${all.toString(16)}`;
}

function indexOf(placed: Placed, slot: number): number {
  const element = slot - placed.firstSlot;
  return placed.wide === undefined ? element : element >> 1;
}

function fieldMask(low: number, high: number): number {
  return (ALL_32 >>> (31 - (high - low))) << low;
}
