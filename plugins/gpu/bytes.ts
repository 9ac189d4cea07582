/** A little-endian image under construction, of fixed size and zero where nothing is put. */
export class Image {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes);
    this.#view = new DataView(this.bytes.buffer);
  }

  u8(offset: number, ...values: readonly number[]): this {
    this.bytes.set(values, offset);
    return this;
  }

  u16(offset: number, ...values: readonly number[]): this {
    values.forEach((value, index) => {
      this.#view.setUint16(offset + 2 * index, value, true);
    });
    return this;
  }

  u32(offset: number, ...values: readonly number[]): this {
    values.forEach((value, index) => {
      this.#view.setUint32(offset + 4 * index, value, true);
    });
    return this;
  }

  /** Text in ASCII; the zero after it is there because nothing else is put there. */
  text(offset: number, text: string): this {
    this.bytes.set(Buffer.from(text, 'latin1'), offset);
    return this;
  }

  /** 16-bit sum of bytes `start` .. `end`, as amdgpu_discovery_calculate_checksum forms it. */
  sum16(start: number, end: number): number {
    return this.bytes.subarray(start, end).reduce((sum, byte) => (sum + byte) & 0xffff, 0);
  }
}
