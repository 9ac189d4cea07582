/**
 * Binary images laid out by hand: ROMs, discovery tables, firmware headers, structures that a device hands to a driver.
 *
 * Every value is put at its offset, in any order, so that headers can be filled in once the place of what they point to
 * is known; {@link ImageBuilder.reserve} gives places. What is not put keeps the padding.
 */

export interface ImageOptions {
  /** Size of the image; puts beyond it throw. Default: as large as what is put into it. */
  readonly sizeBytes?: number;
  /** Order of bytes in 16-, 32- and 64-bit values. Default `little`. */
  readonly byteOrder?: 'little' | 'big';
  /** Value of bytes where nothing is put. Default 0. */
  readonly padding?: number;
}

const FIRST_CAPACITY_BYTES = 1024;

export class ImageBuilder {
  readonly #fixedBytes: number | undefined;
  readonly #isLittleEndian: boolean;
  readonly #padding: number;
  #buffer: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #endBytes: number;

  constructor({ sizeBytes, byteOrder = 'little', padding = 0 }: ImageOptions = {}) {
    this.#fixedBytes = sizeBytes;
    this.#isLittleEndian = byteOrder === 'little';
    this.#padding = padding;
    this.#buffer = new Uint8Array(sizeBytes ?? FIRST_CAPACITY_BYTES).fill(padding);
    this.#view = new DataView(this.#buffer.buffer);
    this.#endBytes = 0;
  }

  /** Just after the last byte that was put or reserved. */
  get endBytes(): number {
    return this.#endBytes;
  }

  /** The image as it is now: of its fixed size, or up to {@link endBytes}. Puts that follow may change it. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#buffer.subarray(0, this.#fixedBytes ?? this.#endBytes);
  }

  /** Sets a stretch after all others aside and returns its offset, a multiple of `alignmentBytes`. */
  reserve(sizeBytes: number, alignmentBytes = 1): number {
    const offset = Math.ceil(this.#endBytes / alignmentBytes) * alignmentBytes;
    this.#need(offset, sizeBytes);
    return offset;
  }

  /** Puts bytes after all others and returns their offset. */
  append(bytes: Uint8Array, alignmentBytes = 1): number {
    const offset = this.reserve(bytes.length, alignmentBytes);
    this.#buffer.set(bytes, offset);
    return offset;
  }

  u8(offset: number, ...values: readonly number[]): this {
    return this.put(offset, Uint8Array.from(values));
  }

  u16(offset: number, ...values: readonly number[]): this {
    this.#need(offset, 2 * values.length);
    values.forEach((value, index) => {
      this.#view.setUint16(offset + 2 * index, value, this.#isLittleEndian);
    });
    return this;
  }

  u32(offset: number, ...values: readonly number[]): this {
    this.#need(offset, 4 * values.length);
    values.forEach((value, index) => {
      this.#view.setUint32(offset + 4 * index, value, this.#isLittleEndian);
    });
    return this;
  }

  u64(offset: number, ...values: readonly bigint[]): this {
    this.#need(offset, 8 * values.length);
    values.forEach((value, index) => {
      this.#view.setBigUint64(offset + 8 * index, value, this.#isLittleEndian);
    });
    return this;
  }

  put(offset: number, bytes: Uint8Array): this {
    this.#need(offset, bytes.length);
    this.#buffer.set(bytes, offset);
    return this;
  }

  /**
   * Latin-1 text without an end of its own; with `fieldBytes` a C string in a field of that size: cut so
   * that a zero follows it, and filled up with zeros.
   */
  text(offset: number, text: string, fieldBytes?: number): this {
    const bytes = Buffer.from(text, 'latin1');
    if (fieldBytes === undefined) return this.put(offset, bytes);
    const field = new Uint8Array(fieldBytes);
    field.set(bytes.subarray(0, fieldBytes - 1));
    return this.put(offset, field);
  }

  /** Sum of the bytes from `start` to before `end`, modulo 2^16, as tables carry it as their checksum. */
  sum16(start: number, end: number): number {
    return this.#buffer.subarray(start, end).reduce((sum, byte) => (sum + byte) & 0xffff, 0);
  }

  /** Puts the byte that makes the sum of all bytes from `start` to before `end` zero modulo 2^8, as a ROM's must be. */
  balance8(offset: number, start: number, end: number): this {
    this.u8(offset, 0);
    return this.u8(offset, -this.sum16(start, end) & 0xff);
  }

  #need(offset: number, lengthBytes: number): void {
    const end = offset + lengthBytes;
    const limit = this.#fixedBytes ?? Number.POSITIVE_INFINITY;
    if (!Number.isInteger(offset) || offset < 0 || end > limit) {
      throw new RangeError(
        `${lengthBytes} bytes at ${offset} do not lie in an image of ${this.#fixedBytes ?? 'any'} bytes`,
      );
    }
    if (end > this.#buffer.length) this.#grow(end);
    this.#endBytes = Math.max(this.#endBytes, end);
  }

  #grow(sizeBytes: number): void {
    const larger = new Uint8Array(Math.max(sizeBytes, 2 * this.#buffer.length)).fill(this.#padding);
    larger.set(this.#buffer);
    this.#buffer = larger;
    this.#view = new DataView(larger.buffer);
  }
}
