/** Rings in guest memory: a list of equal pages, a start inside the first. */
import type { Dma } from 'ghostbus';
import { type CommandCall, CommandError, STATUS } from '../firmware/command.js';
import type { HeapBudget } from './heap-budget.js';

export class GuestBuffer {
  readonly sizeBytes: number;
  readonly #dma: Dma;
  readonly #pages: Float64Array;
  readonly #pageBytes: number;
  readonly #start: number;
  readonly #budget: HeapBudget;

  /**
   * Takes the page list `pas` of a command. `logPageSize` counts from 4 KiB; `pageOffset` is in 64ths of a page
   * (mlx5.md §5.2). Throws {@link CommandError} when the list is shorter than the buffer or costs too much.
   */
  constructor(
    dma: Dma,
    budget: HeapBudget,
    call: CommandCall,
    place: { listStart: number; logPageSize: number; pageOffset: number; sizeBytes: number },
  ) {
    this.#dma = dma;
    this.#budget = budget;
    this.sizeBytes = place.sizeBytes;
    this.#pageBytes = 2 ** (12 + place.logPageSize);
    this.#start = (place.pageOffset * this.#pageBytes) / 64;
    const count = Math.ceil((this.#start + this.sizeBytes) / this.#pageBytes);
    if (count > call.inputBytes / 8) {
      throw new CommandError(STATUS.BAD_INPUT_LENGTH, `a buffer of ${count} pages comes with a shorter list`);
    }
    this.#pages = call.addresses(place.listStart, count);
    if (!budget.take(this.#pages.byteLength)) {
      throw new CommandError(STATUS.LIMIT_EXCEEDED, `page lists exceed ${budget.limitBytes} bytes`);
    }
  }

  /** Gives back what the page list cost. */
  release(): void {
    this.#budget.give(this.#pages.byteLength);
  }

  /** Bus address of a byte of the buffer; what lies within one page from there is contiguous. */
  address(offset: number): number {
    const at = this.#start + offset;
    const page = Math.floor(at / this.#pageBytes);
    return this.#pages[page]! + (at - page * this.#pageBytes);
  }

  /** Throws DmaError. `offset + target.length` must not exceed the buffer. */
  read(offset: number, target: Uint8Array): void {
    this.#forEachPage(offset, target, (address, part) => this.#dma.read(address, part));
  }

  write(offset: number, source: Uint8Array): void {
    this.#forEachPage(offset, source, (address, part) => this.#dma.write(address, part));
  }

  #forEachPage(offset: number, bytes: Uint8Array, visit: (address: number, part: Uint8Array) => void): void {
    if (offset < 0 || offset + bytes.length > this.sizeBytes) {
      throw new RangeError(`${bytes.length} bytes at ${offset} leave a buffer of ${this.sizeBytes} bytes`);
    }
    for (let done = 0; done < bytes.length; ) {
      const inPage = (this.#start + offset + done) % this.#pageBytes;
      const length = Math.min(bytes.length - done, this.#pageBytes - inPage);
      visit(this.address(offset + done), length === bytes.length ? bytes : bytes.subarray(done, done + length));
      done += length;
    }
  }
}

/** Entries written by the device end in a byte that software watches: it is stored last. */
export function writeEntry(buffer: GuestBuffer, dma: Dma, offset: number, entry: Uint8Array): void {
  const last = entry.length - 1;
  buffer.write(offset, entry.subarray(0, last));
  dma.writeU8(buffer.address(offset + last), entry[last]!);
}
