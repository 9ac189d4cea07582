/** How software and reset may change a register of a capability; masks in the register's own bit positions. */
export interface RegisterAccess {
  readonly writable?: number;
  readonly writeOneToClear?: number;
  /** Kept by a function-level reset. */
  readonly sticky?: number;
}

/**
 * The bytes and masks of one capability under construction. Each `u16`/`u32` call places one
 * register with its power-on value, so that a capability's file reads like its table in the
 * specification. Offsets count from the capability's header.
 */
export class CapabilityLayout {
  readonly bytes: Uint8Array;
  readonly writable: Uint8Array;
  readonly writeOneToClear: Uint8Array;
  readonly sticky: Uint8Array;

  constructor(lengthBytes: number) {
    this.bytes = new Uint8Array(lengthBytes);
    this.writable = new Uint8Array(lengthBytes);
    this.writeOneToClear = new Uint8Array(lengthBytes);
    this.sticky = new Uint8Array(lengthBytes);
  }

  u16(offset: number, value: number, access: RegisterAccess = {}): void {
    this.#place(offset, 2, value, access);
  }

  u32(offset: number, value: number, access: RegisterAccess = {}): void {
    this.#place(offset, 4, value, access);
  }

  /** Raw bytes with one mask byte each; without a mask they are read-only. */
  data(offset: number, bytes: Uint8Array, writable?: Uint8Array): void {
    this.bytes.set(bytes, offset);
    if (writable !== undefined) this.writable.set(writable, offset);
  }

  #place(offset: number, widthBytes: number, value: number, access: RegisterAccess): void {
    putLittleEndian(this.bytes, offset, widthBytes, value);
    putLittleEndian(this.writable, offset, widthBytes, access.writable ?? 0);
    putLittleEndian(this.writeOneToClear, offset, widthBytes, access.writeOneToClear ?? 0);
    putLittleEndian(this.sticky, offset, widthBytes, access.sticky ?? 0);
  }
}

/** Placement options that every capability takes. */
export interface CapabilityPlacement {
  /** Fixed place in configuration space, a multiple of 4. Default: the first free dwords. */
  readonly offset?: number;
}

/** The `offset` property of a capability, absent when the caller leaves the choice to configuration space. */
export function placement(options: CapabilityPlacement): CapabilityPlacement {
  return options.offset === undefined ? {} : { offset: options.offset };
}

export function putLittleEndian(target: Uint8Array, offset: number, widthBytes: number, value: number): void {
  for (let index = 0; index < widthBytes; index++) target[offset + index] = (value >>> (8 * index)) & 0xff;
}

export function readU16(source: Uint8Array, offset: number): number {
  return source[offset]! | (source[offset + 1]! << 8);
}

export function readU32(source: Uint8Array, offset: number): number {
  return (readU16(source, offset) | (readU16(source, offset + 2) << 16)) >>> 0;
}
