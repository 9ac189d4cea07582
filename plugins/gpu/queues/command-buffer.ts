/** Commands in GPU memory, read piece by piece: a ring, or an indirect buffer. */
import type { CommandBuffer, Packet } from '../packets/packet.js';

/** Dwords fetched at once. */
const FETCH_DWORDS = 512;
const NOTHING = new Uint32Array(0);

/** A place in a command buffer, and how far it may be executed. Positions count on when a ring wraps. */
export class CommandReader {
  readonly isRing: boolean;
  readonly #buffer: CommandBuffer;
  #position: number;
  /** Dwords that may be executed; a ring's grows with its write pointer. */
  #available: number;
  #fetchedFrom = 0;
  #fetched = NOTHING;

  private constructor(buffer: CommandBuffer, position: number, available: number, isRing: boolean) {
    this.#buffer = buffer;
    this.#position = position;
    this.#available = available;
    this.isRing = isRing;
  }

  /** Empty until {@link setWritePointer}. */
  static ofRing(ring: CommandBuffer, readPointer: number): CommandReader {
    return new CommandReader(ring, readPointer, 0, true);
  }

  static ofIndirectBuffer(buffer: CommandBuffer): CommandReader {
    return new CommandReader(buffer, 0, buffer.sizeDwords, false);
  }

  get space() {
    return this.#buffer.space;
  }

  get position(): number {
    return this.#position;
  }

  get available(): number {
    return this.#available;
  }

  get sizeDwords(): number {
    return this.#buffer.sizeDwords;
  }

  /** Of a ring, whose size is a power of two: only the position in the ring counts. */
  setWritePointer(dwords: number): void {
    const { sizeDwords } = this.#buffer;
    const pending = (dwords - (this.#position % sizeDwords)) % sizeDwords;
    this.#available = pending < 0 ? pending + sizeDwords : pending;
  }

  /** What was fetched is stale: whoever writes the buffer may have done so. */
  refetch(): void {
    this.#fetched = NOTHING;
  }

  advance(dwords: number): void {
    this.#position += dwords;
    this.#available -= dwords;
  }

  /** The dword at a distance from the current position. */
  dword(index: number): number {
    const position = this.#position + index;
    const fetched = this.#fetched[position - this.#fetchedFrom];
    return fetched ?? this.#fetch(position);
  }

  #fetch(position: number): number {
    const { space, address, sizeDwords } = this.#buffer;
    const offset = position % sizeDwords;
    const pending = this.#position + this.#available - position;
    const bytes = new Uint8Array(4 * Math.max(1, Math.min(FETCH_DWORDS, sizeDwords - offset, pending)));
    space.read(address + 4 * offset, bytes);
    this.#fetchedFrom = position;
    this.#fetched = new Uint32Array(bytes.buffer);
    return this.#fetched[0]!;
  }
}

/** The packet at a reader's current position. */
export class ReaderPacket implements Packet {
  readonly #reader: CommandReader;
  readonly lengthDwords: number;

  constructor(reader: CommandReader, lengthDwords: number) {
    this.#reader = reader;
    this.lengthDwords = lengthDwords;
  }

  get space() {
    return this.#reader.space;
  }

  dword(index: number): number {
    return index < this.lengthDwords ? this.#reader.dword(index) : 0;
  }

  payload(first: number, count: number): Uint8Array {
    const words = new Uint32Array(count);
    for (let index = 0; index < count; index++) words[index] = this.dword(first + index);
    return new Uint8Array(words.buffer);
  }
}
