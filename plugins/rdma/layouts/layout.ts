/**
 * Structures of the adapter's software interface, declared as data: the kernel's `mlx5_ifc.h` numbers bits from the
 * most significant bit of the first byte, and everything is big-endian. A {@link Layout} is one such table and its
 * codec.
 */

/**
 * Bit offset from the start of the structure, and width in bits; wider than 64 bits is an array or a nested structure.
 */
type Field = readonly [bit: number, width: number];

/**
 * A structure of `sizeBytes`, which a variable part may follow. `view` holds the structure from byte `base`; an access
 * that leaves the view throws RangeError, so callers check lengths that a guest chose first.
 */
export class Layout<Names extends string> {
  readonly name: string;
  readonly sizeBytes: number;
  readonly fields: Readonly<Record<Names, Field>>;

  constructor(name: string, sizeBytes: number, fields: Readonly<Record<Names, Field>>) {
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.fields = fields;
  }

  /** Value of a field of up to 32 bits; it must not straddle a dword, as none in `mlx5_ifc.h` does. */
  get(view: DataView, field: Names, base = 0): number {
    const [bit, width] = this.#narrow(field);
    const dword = view.getUint32(base + (bit >>> 5) * 4);
    return width === 32 ? dword : (dword >>> (32 - (bit & 31) - width)) & ((1 << width) - 1);
  }

  /** Stores a field of up to 32 bits; bits of `value` beyond the field are dropped. */
  set(view: DataView, field: Names, value: number, base = 0): void {
    const [bit, width] = this.#narrow(field);
    const at = base + (bit >>> 5) * 4;
    if (width === 32) {
      view.setUint32(at, value);
      return;
    }
    const shift = 32 - (bit & 31) - width;
    const mask = ((1 << width) - 1) << shift;
    view.setUint32(at, (view.getUint32(at) & ~mask) | ((value << shift) & mask));
  }

  /** Value of a field of 64 bits. */
  get64(view: DataView, field: Names, base = 0): bigint {
    return view.getBigUint64(base + this.byteOf(field));
  }

  set64(view: DataView, field: Names, value: bigint, base = 0): void {
    view.setBigUint64(base + this.byteOf(field), value);
  }

  /** Stores several fields of up to 32 bits. */
  fill(view: DataView, values: Readonly<Partial<Record<Names, number>>>, base = 0): void {
    for (const [field, value] of Object.entries(values)) this.set(view, field as Names, value as number, base);
  }

  /** Byte offset of a field that starts on a byte: an array, a nested structure, a 64-bit number. */
  byteOf(field: Names): number {
    const [bit] = this.fields[field];
    if (bit % 8 !== 0) throw new RangeError(`${this.name}.${field} starts at bit ${bit}, inside a byte`);
    return bit / 8;
  }

  /** A view of a nested structure or an array inside `view`. */
  part(view: DataView, field: Names, base = 0): DataView {
    const [, width] = this.fields[field];
    const start = base + this.byteOf(field);
    return width === 0 ? subview(view, start) : subview(view, start, width / 8);
  }

  /** An empty structure. */
  create(): DataView {
    return new DataView(new ArrayBuffer(this.sizeBytes));
  }

  #narrow(field: Names): Field {
    const found = this.fields[field];
    if (found[1] > 32) throw new RangeError(`${this.name}.${field} has ${found[1]} bits; use get64 or part`);
    return found;
  }
}

export function layout<Names extends string>(
  name: string,
  sizeBytes: number,
  fields: Readonly<Record<Names, Field>>,
): Layout<Names> {
  return new Layout(name, sizeBytes, fields);
}

/** Part of a view. Throws RangeError when it would leave the view. */
export function subview(view: DataView, start: number, lengthBytes = view.byteLength - start): DataView {
  return new DataView(view.buffer, view.byteOffset + start, lengthBytes);
}

/** The bytes under a view. */
export function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** A copy of the first `lengthBytes` under a view. */
export function copyOf(view: DataView, lengthBytes = view.byteLength): DataView {
  return new DataView(bytesOf(view).slice(0, lengthBytes).buffer);
}
