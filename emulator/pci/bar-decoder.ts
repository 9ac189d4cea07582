import type { MemoryRegion } from '../memory/region.js';
import { AccessTally, type UndeclaredAccess } from './access-tally.js';
import { type BarParts, isMemory, memoryOffsetOf } from './bar-parts.js';
import type { RegisterHandler } from './register-handler.js';

/** What lies at one offset of a BAR, and for how many bytes from there on. */
export type BarSpan =
  | {
      readonly kind: 'memory';
      readonly memory: MemoryRegion;
      readonly memoryOffset: number;
      readonly lengthBytes: number;
    }
  | {
      readonly kind: 'registers';
      readonly registers: RegisterHandler;
      readonly registerOffset: number;
      readonly lengthBytes: number;
    }
  | { readonly kind: 'unaddressed'; readonly lengthBytes: number };

/** A part with what an access needs of it at hand. */
interface Placed {
  readonly start: number;
  readonly end: number;
  readonly registers: RegisterHandler | undefined;
  readonly memory: MemoryRegion | undefined;
  /** Offset in `memory` of BAR offset 0. */
  readonly memoryShift: number;
}

/** Stands for the space between the parts. */
const NOTHING: Placed = { start: 0, end: 0, registers: undefined, memory: undefined, memoryShift: 0 };

/**
 * Takes any byte range of one BAR to the parts behind it: memory is copied, registers get naturally aligned accesses of
 * 1, 2, 4 or 8 bytes in ascending order, space between the parts reads as zero and is counted. Used for the guest's CPU
 * and for peers' DMA alike. An exception of a register handler passes through.
 *
 * A single access to a register makes no object: it is a look-up and the call of the handler.
 */
export class BarDecoder {
  readonly sizeBytes: number;
  readonly #parts: readonly Placed[];
  readonly #tally = new AccessTally();
  /** Where the last access went: a driver mostly stays in one block. */
  #last: Placed = NOTHING;

  /** The parts have passed `validateBarParts`. */
  constructor(sizeBytes: number, parts: BarParts) {
    this.sizeBytes = sizeBytes;
    this.#parts = parts.map(place);
  }

  /** Throws RangeError outside the BAR. */
  read(offset: number, target: Uint8Array): void {
    const lengthBytes = target.length;
    const part = this.#partAt(offset);
    const { registers } = part;
    if (registers !== undefined && lengthBytes <= 4 && isSingleAccess(offset, lengthBytes, part.end)) {
      putValue(target, 0, lengthBytes, registers.read(offset - part.start, lengthBytes));
    } else {
      this.#readSpans(offset, target);
    }
  }

  /** Throws RangeError outside the BAR. */
  write(offset: number, source: Uint8Array): void {
    const lengthBytes = source.length;
    const part = this.#partAt(offset);
    const { registers } = part;
    if (registers !== undefined && lengthBytes <= 4 && isSingleAccess(offset, lengthBytes, part.end)) {
      registers.write(offset - part.start, lengthBytes, getValue(source, 0, lengthBytes));
    } else {
      this.#writeSpans(offset, source);
    }
  }

  #readSpans(offset: number, target: Uint8Array): void {
    this.#checkRange('read', offset, target.length);
    let position = 0;
    while (position < target.length) {
      const at = offset + position;
      const part = this.#partAt(at);
      const bytes = span(target, position, (part === NOTHING ? this.#nextStart(at) : part.end) - at);
      if (part.memory !== undefined) part.memory.read(at + part.memoryShift, bytes);
      else if (part.registers !== undefined) readRegisters(part.registers, at - part.start, bytes);
      else {
        bytes.fill(0);
        this.#tally.countRead(at);
      }
      position += bytes.length;
    }
  }

  #writeSpans(offset: number, source: Uint8Array): void {
    this.#checkRange('write', offset, source.length);
    let position = 0;
    while (position < source.length) {
      const at = offset + position;
      const part = this.#partAt(at);
      const bytes = span(source, position, (part === NOTHING ? this.#nextStart(at) : part.end) - at);
      if (part.memory !== undefined) part.memory.write(at + part.memoryShift, bytes);
      else if (part.registers !== undefined) writeRegisters(part.registers, at - part.start, bytes);
      else this.#tally.countWrite(at);
      position += bytes.length;
    }
  }

  /** What lies at `offset`, up to the end of its part. `offset` is inside the BAR. */
  spanAt(offset: number): BarSpan {
    const { memory, registers, memoryShift, start, end } = this.#partAt(offset);
    const lengthBytes = end - offset;
    if (memory !== undefined) return { kind: 'memory', memory, memoryOffset: offset + memoryShift, lengthBytes };
    if (registers !== undefined) return { kind: 'registers', registers, registerOffset: offset - start, lengthBytes };
    return { kind: 'unaddressed', lengthBytes: this.#nextStart(offset) - offset };
  }

  /** Name of what is at `offset`, for logs: the register's own name where its handler knows it. */
  nameAt(offset: number): string {
    const span = this.spanAt(offset);
    if (span.kind === 'memory') return `${span.memory.name}+0x${span.memoryOffset.toString(16)}`;
    if (span.kind === 'unaddressed') return `unaddressed+0x${offset.toString(16)}`;
    return span.registers.nameAt?.(span.registerOffset) ?? `registers+0x${span.registerOffset.toString(16)}`;
  }

  /** Accesses between the parts, most used first; `offset` counts from the start of the BAR. */
  unaddressed(): UndeclaredAccess[] {
    return this.#tally.list();
  }

  /** The part that covers `offset`, or {@link NOTHING}. */
  #partAt(offset: number): Placed {
    const last = this.#last;
    if (offset >= last.start && offset < last.end) return last;
    const part = this.#parts[this.#indexFrom(offset) - 1];
    if (part === undefined || offset >= part.end) return NOTHING;
    this.#last = part;
    return part;
  }

  /** Where the space between the parts ends in which `offset` lies. */
  #nextStart(offset: number): number {
    return this.#parts[this.#indexFrom(offset)]?.start ?? this.sizeBytes;
  }

  /** Index of the first part that starts above `offset`. */
  #indexFrom(offset: number): number {
    let low = 0;
    let high = this.#parts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#parts[middle]!.start <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #checkRange(action: string, offset: number, lengthBytes: number): void {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + lengthBytes > this.sizeBytes) {
      throw new RangeError(`BAR ${action} of ${lengthBytes} bytes at ${offset}: outside its ${this.sizeBytes} bytes`);
    }
  }
}

function place(part: BarParts[number]): Placed {
  const { offset: start, sizeBytes } = part;
  return isMemory(part)
    ? {
        start,
        end: start + sizeBytes,
        registers: undefined,
        memory: part.memory,
        memoryShift: memoryOffsetOf(part) - start,
      }
    : { start, end: start + sizeBytes, registers: part.registers, memory: undefined, memoryShift: 0 };
}

/** The bytes from `position` on that `lengthBytes` allow; the array itself when that is all of it. */
function span(bytes: Uint8Array, position: number, lengthBytes: number): Uint8Array {
  const end = Math.min(position + lengthBytes, bytes.length);
  return position === 0 && end === bytes.length ? bytes : bytes.subarray(position, end);
}

/** Naturally aligned, of 1, 2 or 4 bytes, and inside a part that ends at `end` (which starts at a multiple of 4). */
function isSingleAccess(offset: number, lengthBytes: number, end: number): boolean {
  return (
    (lengthBytes === 4 || lengthBytes === 2 || lengthBytes === 1) &&
    offset % lengthBytes === 0 &&
    offset + lengthBytes <= end
  );
}

/** The largest naturally aligned access at `offset` that `remaining` bytes allow. */
function accessBytes(offset: number, remaining: number): 1 | 2 | 4 | 8 {
  if (remaining >= 8 && offset % 8 === 0) return 8;
  if (remaining >= 4 && offset % 4 === 0) return 4;
  return remaining >= 2 && offset % 2 === 0 ? 2 : 1;
}

function readRegisters(registers: RegisterHandler, offset: number, target: Uint8Array): void {
  for (let position = 0; position < target.length; ) {
    const at = offset + position;
    let sizeBytes = accessBytes(at, target.length - position);
    if (sizeBytes === 8 && registers.read64 !== undefined) {
      putValue64(target, position, registers.read64(at));
    } else {
      if (sizeBytes === 8) sizeBytes = 4;
      putValue(target, position, sizeBytes, registers.read(at, sizeBytes));
    }
    position += sizeBytes;
  }
}

function writeRegisters(registers: RegisterHandler, offset: number, source: Uint8Array): void {
  for (let position = 0; position < source.length; ) {
    const at = offset + position;
    let sizeBytes = accessBytes(at, source.length - position);
    if (sizeBytes === 8 && registers.write64 !== undefined) {
      registers.write64(at, getValue64(source, position));
    } else {
      if (sizeBytes === 8) sizeBytes = 4;
      registers.write(at, sizeBytes, getValue(source, position, sizeBytes));
    }
    position += sizeBytes;
  }
}

// Each is used within one call that calls nobody, so accesses that nest cannot disturb each other.
const wideWords = new Uint32Array(2);
const wide = new BigUint64Array(wideWords.buffer);

function putValue64(target: Uint8Array, position: number, value: bigint): void {
  wide[0] = value;
  putValue(target, position, 4, wideWords[0]!);
  putValue(target, position + 4, 4, wideWords[1]!);
}

function getValue64(source: Uint8Array, position: number): bigint {
  wideWords[0] = getValue(source, position, 4);
  wideWords[1] = getValue(source, position + 4, 4);
  return wide[0]!;
}

function putValue(target: Uint8Array, position: number, sizeBytes: number, value: number): void {
  target[position] = value;
  if (sizeBytes === 1) return;
  target[position + 1] = value >>> 8;
  if (sizeBytes === 2) return;
  target[position + 2] = value >>> 16;
  target[position + 3] = value >>> 24;
}

function getValue(source: Uint8Array, position: number, sizeBytes: number): number {
  if (sizeBytes === 1) return source[position]!;
  const low = source[position]! | (source[position + 1]! << 8);
  if (sizeBytes === 2) return low;
  return (low | (source[position + 2]! << 16) | (source[position + 3]! << 24)) >>> 0;
}
