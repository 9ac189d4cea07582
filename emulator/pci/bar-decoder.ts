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

/**
 * Takes any byte range of one BAR to the parts behind it: memory is copied, registers get naturally aligned accesses of 1,
 * 2, 4 or 8 bytes in ascending order, space between the parts reads as zero and is counted. Used for the guest's CPU and
 * for peers' DMA alike. An exception of a register handler passes through.
 */
export class BarDecoder {
  readonly sizeBytes: number;
  readonly #parts: BarParts;
  readonly #tally = new AccessTally();

  /** The parts have passed `validateBarParts`. */
  constructor(sizeBytes: number, parts: BarParts) {
    this.sizeBytes = sizeBytes;
    this.#parts = parts;
  }

  /** Throws RangeError outside the BAR. */
  read(offset: number, target: Uint8Array): void {
    this.#checkRange('read', offset, target.length);
    let position = 0;
    while (position < target.length) {
      const at = offset + position;
      const span = this.spanAt(at);
      const bytes = target.subarray(position, position + Math.min(span.lengthBytes, target.length - position));
      if (span.kind === 'memory') span.memory.read(span.memoryOffset, bytes);
      else if (span.kind === 'registers') readRegisters(span.registers, span.registerOffset, bytes);
      else {
        bytes.fill(0);
        this.#tally.countRead(at);
      }
      position += bytes.length;
    }
  }

  /** Throws RangeError outside the BAR. */
  write(offset: number, source: Uint8Array): void {
    this.#checkRange('write', offset, source.length);
    let position = 0;
    while (position < source.length) {
      const at = offset + position;
      const span = this.spanAt(at);
      const bytes = source.subarray(position, position + Math.min(span.lengthBytes, source.length - position));
      if (span.kind === 'memory') span.memory.write(span.memoryOffset, bytes);
      else if (span.kind === 'registers') writeRegisters(span.registers, span.registerOffset, bytes);
      else this.#tally.countWrite(at);
      position += bytes.length;
    }
  }

  /** What lies at `offset`, up to the end of its part, so that a copier can move whole spans. `offset` is inside the BAR. */
  spanAt(offset: number): BarSpan {
    const index = this.#lastPartFrom(offset);
    const part = index < 0 ? undefined : this.#parts[index]!;
    if (part !== undefined && offset < part.offset + part.sizeBytes) {
      const inPart = offset - part.offset;
      const lengthBytes = part.sizeBytes - inPart;
      return isMemory(part)
        ? { kind: 'memory', memory: part.memory, memoryOffset: memoryOffsetOf(part) + inPart, lengthBytes }
        : { kind: 'registers', registers: part.registers, registerOffset: inPart, lengthBytes };
    }
    const next = this.#parts[index + 1];
    return { kind: 'unaddressed', lengthBytes: (next?.offset ?? this.sizeBytes) - offset };
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

  /** Index of the last part that starts at or below `offset`, or -1. */
  #lastPartFrom(offset: number): number {
    let low = 0;
    let high = this.#parts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#parts[middle]!.offset <= offset) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  #checkRange(action: string, offset: number, lengthBytes: number): void {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + lengthBytes > this.sizeBytes) {
      throw new RangeError(`BAR ${action} of ${lengthBytes} bytes at ${offset}: outside its ${this.sizeBytes} bytes`);
    }
  }
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
      const value = registers.read64(at);
      putValue(target, position, 4, Number(value & 0xffffffffn));
      putValue(target, position + 4, 4, Number((value >> 32n) & 0xffffffffn));
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
      registers.write64(at, BigInt(getValue(source, position, 4)) | (BigInt(getValue(source, position + 4, 4)) << 32n));
    } else {
      if (sizeBytes === 8) sizeBytes = 4;
      registers.write(at, sizeBytes, getValue(source, position, sizeBytes));
    }
    position += sizeBytes;
  }
}

function putValue(target: Uint8Array, position: number, sizeBytes: number, value: number): void {
  for (let index = 0; index < sizeBytes; index++) target[position + index] = value >>> (8 * index);
}

function getValue(source: Uint8Array, position: number, sizeBytes: number): number {
  let value = 0;
  for (let index = 0; index < sizeBytes; index++) value |= source[position + index]! << (8 * index);
  return value >>> 0;
}
