/** What lies behind one BAR of a function, also while the model behind it changes or does not work. */
import type { FabricBar, MemoryPart } from './memory/windows.js';
import type { UndeclaredAccess } from './pci/access-tally.js';
import type { BarShape } from './pci/bar.js';
import { BarDecoder } from './pci/bar-decoder.js';
import { type BarParts, isMemory, memoryOffsetOf } from './pci/bar-parts.js';

/** Told when a handler of the model throws: `what` was being done. */
export type ReportFault = (error: unknown, what: string) => void;

/** A BAR as the bus reaches it: with no working model behind it, reads give all ones and writes are dropped. */
export class FunctionBar implements FabricBar {
  readonly sizeBytes: number;
  readonly #name: string;
  #memoryParts: readonly MemoryPart[] | undefined;
  #decoder: BarDecoder | undefined;
  #reportFault: ReportFault = () => {};

  /** @param name for messages, for example `BAR0` */
  constructor(name: string, sizeBytes: number) {
    this.#name = name;
    this.sizeBytes = sizeBytes;
  }

  static ofShape({ index, sizeBytes }: BarShape): FunctionBar {
    return new FunctionBar(`BAR${index}`, sizeBytes);
  }

  get memoryParts(): readonly MemoryPart[] {
    return this.#memoryParts ?? [];
  }

  /** Puts a model's parts behind the BAR. @throws Error when its memory is not that of the models before */
  plug(parts: BarParts, reportFault: ReportFault): void {
    const memoryParts = parts.filter(isMemory);
    const before = this.#memoryParts;
    if (before !== undefined && !sameMemory(before, memoryParts)) {
      throw new Error(
        `${this.#name} has ${describe(memoryParts)} where it had ${describe(before)} at first; guests have that mapped, ` +
          'so powerOn must put the same memory there every time',
      );
    }
    this.#memoryParts ??= memoryParts;
    this.#decoder = new BarDecoder(this.sizeBytes, parts);
    this.#reportFault = reportFault;
  }

  unplug(): void {
    this.#decoder = undefined;
  }

  read(offset: number, target: Uint8Array): void {
    const decoder = this.#decoder;
    if (decoder === undefined) {
      target.fill(0xff);
      return;
    }
    try {
      decoder.read(offset, target);
    } catch (error) {
      this.#reportFault(error, `reading ${target.length} bytes at ${this.#place(decoder, offset)}`);
      target.fill(0xff);
    }
  }

  write(offset: number, source: Uint8Array): void {
    const decoder = this.#decoder;
    if (decoder === undefined) return;
    try {
      decoder.write(offset, source);
    } catch (error) {
      this.#reportFault(error, `writing ${hex(source)} at ${this.#place(decoder, offset)}`);
    }
  }

  /** Accesses between the parts of the model, most used first. */
  unaddressed(): readonly UndeclaredAccess[] {
    return this.#decoder?.unaddressed() ?? [];
  }

  #place(decoder: BarDecoder, offset: number): string {
    return `${this.#name}+0x${offset.toString(16)} (${decoder.nameAt(offset)})`;
  }
}

function sameMemory(before: readonly MemoryPart[], now: readonly MemoryPart[]): boolean {
  return (
    before.length === now.length &&
    before.every((part, index) => {
      const other = now[index]!;
      return (
        part.memory === other.memory &&
        part.offset === other.offset &&
        part.sizeBytes === other.sizeBytes &&
        memoryOffsetOf(part) === memoryOffsetOf(other)
      );
    })
  );
}

function describe(parts: readonly MemoryPart[]): string {
  if (parts.length === 0) return 'no memory';
  return parts
    .map((part) => {
      const from = memoryOffsetOf(part).toString(16);
      return `${part.sizeBytes} bytes of ${part.memory.name}+0x${from} at 0x${part.offset.toString(16)}`;
    })
    .join(', ');
}

function hex(bytes: Uint8Array): string {
  return `0x${Buffer.from(bytes.subarray(0, 16)).reverse().toString('hex')}${bytes.length > 16 ? '…' : ''}`;
}
