/**
 * The vfio-user messages as bytes and as values. Pure: no socket, no device.
 *
 * Offsets are absolute in the message, header included; all integers are little-endian. 64-bit fields become `number`:
 * exact below 2^53, and never below 2^53 for what is larger, so a range check refuses those without extra care.
 * Sources: vfio-user.md §1; libvfio-user include/vfio-user.h; linux/vfio.h.
 */

/** vfio-user.h enum vfio_user_command. */
export const COMMAND = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_REGION_IO_FDS: 6,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  DMA_READ: 11,
  DMA_WRITE: 12,
  DEVICE_RESET: 13,
  REGION_WRITE_MULTI: 15,
  DEVICE_FEATURE: 16,
  MIG_DATA_READ: 17,
  MIG_DATA_WRITE: 18,
} as const;

/** One more than the largest command number. */
export const COMMAND_COUNT = 19;

const COMMAND_NAMES: readonly string[] = namesByNumber();

function namesByNumber(): string[] {
  const names = Array.from({ length: COMMAND_COUNT }, (_, number) => `command ${number}`);
  for (const [name, number] of Object.entries(COMMAND)) names[number] = name;
  return names;
}

export function commandName(command: number): string {
  return COMMAND_NAMES[command] ?? `command ${command}`;
}

export const HEADER_BYTES = 16;

/** Bits of the header's flags field (vfio-user.h struct vfio_user_header). */
export const FLAG = { TYPE_MASK: 0xf, COMMAND: 0, REPLY: 1, NO_REPLY: 0x10, ERROR: 0x20 } as const;

export interface Header {
  id: number;
  command: number;
  /** Of the whole message, header included. */
  sizeBytes: number;
  flags: number;
  /** Linux errno, meaningful with {@link FLAG}.ERROR. */
  errno: number;
}

export function readHeader(bytes: Buffer, start: number, header: Header): void {
  header.id = bytes.readUInt16LE(start);
  header.command = bytes.readUInt16LE(start + 2);
  header.sizeBytes = bytes.readUInt32LE(start + 4);
  header.flags = bytes.readUInt32LE(start + 8);
  header.errno = bytes.readUInt32LE(start + 12);
}

export function writeHeader(
  bytes: Buffer,
  start: number,
  id: number,
  command: number,
  sizeBytes: number,
  flags: number,
  errno: number,
): void {
  bytes.writeUInt16LE(id, start);
  bytes.writeUInt16LE(command, start + 2);
  bytes.writeUInt32LE(sizeBytes, start + 4);
  bytes.writeUInt32LE(flags, start + 8);
  bytes.writeUInt32LE(errno, start + 12);
}

const TWO_32 = 0x1_0000_0000;

export function readU64(bytes: Buffer, offset: number): number {
  return bytes.readUInt32LE(offset) + bytes.readUInt32LE(offset + 4) * TWO_32;
}

/** `value`: a safe integer, not negative. */
export function writeU64(bytes: Buffer, offset: number, value: number): void {
  bytes.writeUInt32LE(value % TWO_32, offset);
  bytes.writeUInt32LE(Math.floor(value / TWO_32), offset + 4);
}

/** A request that cannot be what it claims to be. The errno goes into the error reply. */
export class MalformedMessage extends Error {
  /** EINVAL, what libvfio-user answers to every malformed request. */
  readonly errno = 22;

  constructor(message: string) {
    super(message);
    this.name = 'MalformedMessage';
  }
}

export interface EncodeOptions {
  /** Header flags; default 0, a command. */
  readonly flags?: number;
  /** Bytes behind the fixed part. */
  readonly data?: Uint8Array;
}

/** The fixed part of one message: each field's offset and width, declared once for both directions. */
export interface Layout<Name extends string> {
  /** Header and fixed part. */
  readonly sizeBytes: number;
  /** @throws MalformedMessage when the message is shorter than the fixed part */
  decode(message: Buffer): Record<Name, number>;
  /** The whole message; fields left out are 0. */
  encode(id: number, command: number, values: Partial<Record<Name, number>>, options?: EncodeOptions): Buffer;
}

type Width = 'u16' | 'u32' | 'u64';
const WIDTH_BYTES = { u16: 2, u32: 4, u64: 8 } as const;

/** Fields follow each other without gaps, from the end of the header on. */
function layout<const Name extends string>(...fields: readonly (readonly [Name, Width])[]): Layout<Name> {
  let end = HEADER_BYTES;
  const placed = fields.map(([name, width]) => {
    const offset = end;
    end += WIDTH_BYTES[width];
    return { name, width, offset };
  });
  const sizeBytes = end;
  return {
    sizeBytes,
    decode(message) {
      if (message.length < sizeBytes) {
        throw new MalformedMessage(`${message.length} bytes; the fixed part alone has ${sizeBytes}`);
      }
      const values = {} as Record<Name, number>;
      for (const { name, width, offset } of placed) values[name] = readField(message, offset, width);
      return values;
    },
    encode(id, command, values, { flags = 0, data } = {}) {
      const message = Buffer.alloc(sizeBytes + (data?.length ?? 0));
      writeHeader(message, 0, id, command, message.length, flags, 0);
      for (const { name, width, offset } of placed) writeField(message, offset, width, values[name] ?? 0);
      if (data !== undefined) message.set(data, sizeBytes);
      return message;
    },
  };
}

function readField(message: Buffer, offset: number, width: Width): number {
  if (width === 'u16') return message.readUInt16LE(offset);
  return width === 'u32' ? message.readUInt32LE(offset) : readU64(message, offset);
}

function writeField(message: Buffer, offset: number, width: Width, value: number): void {
  if (width === 'u16') message.writeUInt16LE(value, offset);
  else if (width === 'u32') message.writeUInt32LE(value, offset);
  else writeU64(message, offset, value);
}

/** A message that is only its header. */
export const EMPTY = layout<never>();
/** Followed by the capabilities as a JSON object and NUL. */
export const VERSION = layout(['major', 'u16'], ['minor', 'u16']);
export const DMA_MAP = layout(
  ['argsz', 'u32'],
  ['flags', 'u32'],
  ['offset', 'u64'],
  ['address', 'u64'],
  ['sizeBytes', 'u64'],
);
export const DMA_UNMAP = layout(['argsz', 'u32'], ['flags', 'u32'], ['address', 'u64'], ['sizeBytes', 'u64']);
export const DEVICE_INFO = layout(['argsz', 'u32'], ['flags', 'u32'], ['regionCount', 'u32'], ['irqCount', 'u32']);
export const REGION_INFO = layout(
  ['argsz', 'u32'],
  ['flags', 'u32'],
  ['index', 'u32'],
  ['capabilityOffset', 'u32'],
  ['sizeBytes', 'u64'],
  ['offset', 'u64'],
);
export const REGION_IO_FDS = layout(['argsz', 'u32'], ['flags', 'u32'], ['index', 'u32'], ['count', 'u32']);
export const IRQ_INFO = layout(['argsz', 'u32'], ['flags', 'u32'], ['index', 'u32'], ['count', 'u32']);
/** Followed by `count` bytes with DATA_BOOL. */
export const SET_IRQS = layout(
  ['argsz', 'u32'],
  ['flags', 'u32'],
  ['index', 'u32'],
  ['start', 'u32'],
  ['count', 'u32'],
);
/** REGION_READ and REGION_WRITE, both directions; data follows a write request and a read reply. */
export const REGION_ACCESS = layout(['offset', 'u64'], ['region', 'u32'], ['count', 'u32']);
/** DMA_READ and DMA_WRITE as the specification has them; QEMU 10.2 differs, see dma-channel.ts. */
export const DMA_ACCESS = layout(['address', 'u64'], ['count', 'u64']);
/** Followed by `count` entries of {@link WRITE_MULTI_ENTRY_BYTES}. */
export const WRITE_MULTI = layout(['count', 'u64']);
export const DEVICE_FEATURE = layout(['argsz', 'u32'], ['flags', 'u32']);

/** Payload size of a fixed part: what `argsz` counts. */
export function payloadBytes(fixed: Layout<string>): number {
  return fixed.sizeBytes - HEADER_BYTES;
}

/** linux/vfio.h VFIO_DEVICE_FLAGS_*. */
export const DEVICE_FLAG = { RESET: 1, PCI: 2 } as const;
/** linux/vfio.h VFIO_REGION_INFO_FLAG_*. */
export const REGION_FLAG = { READ: 1, WRITE: 2, MMAP: 4, CAPS: 8 } as const;
/** linux/vfio.h VFIO_IRQ_INFO_*. */
export const IRQ_FLAG = { EVENTFD: 1, MASKABLE: 2, AUTOMASKED: 4, NORESIZE: 8 } as const;
/** linux/vfio.h VFIO_IRQ_SET_*. */
export const IRQ_SET = { NONE: 1, BOOL: 2, EVENTFD: 4, MASK: 8, UNMASK: 0x10, TRIGGER: 0x20 } as const;
/** vfio-user.h VFIO_USER_F_DMA_REGION_*; MMAP and FILE_IO are newer than QEMU 10.2. */
export const DMA_MAP_FLAG = { READ: 1, WRITE: 2, MMAP: 4, FILE_IO: 8 } as const;
/** linux/vfio.h VFIO_DMA_UNMAP_FLAG_*. */
export const DMA_UNMAP_FLAG = { GET_DIRTY_BITMAP: 1, ALL: 2 } as const;

/** linux/vfio.h VFIO_REGION_INFO_CAP_SPARSE_MMAP. */
const SPARSE_MMAP_CAPABILITY = 1;
const SPARSE_MMAP_HEAD_BYTES = 16;
const SPARSE_MMAP_AREA_BYTES = 16;

export interface Area {
  readonly offset: number;
  readonly sizeBytes: number;
}

/** linux/vfio.h struct vfio_region_info_cap_sparse_mmap, the only and last capability of the list. */
export function encodeSparseMmap(areas: readonly Area[]): Buffer {
  const bytes = Buffer.alloc(SPARSE_MMAP_HEAD_BYTES + areas.length * SPARSE_MMAP_AREA_BYTES);
  bytes.writeUInt16LE(SPARSE_MMAP_CAPABILITY, 0);
  bytes.writeUInt16LE(1, 2);
  bytes.writeUInt32LE(areas.length, 8);
  for (const [i, area] of areas.entries()) {
    writeU64(bytes, SPARSE_MMAP_HEAD_BYTES + i * SPARSE_MMAP_AREA_BYTES, area.offset);
    writeU64(bytes, SPARSE_MMAP_HEAD_BYTES + i * SPARSE_MMAP_AREA_BYTES + 8, area.sizeBytes);
  }
  return bytes;
}

/** The areas of a capability made by {@link encodeSparseMmap}. @throws MalformedMessage */
export function decodeSparseMmap(bytes: Buffer): Area[] {
  const complete = bytes.length >= SPARSE_MMAP_HEAD_BYTES && bytes.readUInt16LE(0) === SPARSE_MMAP_CAPABILITY;
  const count = complete ? bytes.readUInt32LE(8) : 0;
  if (!complete || bytes.length !== SPARSE_MMAP_HEAD_BYTES + count * SPARSE_MMAP_AREA_BYTES) {
    throw new MalformedMessage(`${bytes.length} bytes are no sparse-mmap capability`);
  }
  return Array.from({ length: count }, (_, i) => {
    const at = SPARSE_MMAP_HEAD_BYTES + i * SPARSE_MMAP_AREA_BYTES;
    return { offset: readU64(bytes, at), sizeBytes: readU64(bytes, at + 8) };
  });
}

/** Offset, region and length of a REGION_READ or REGION_WRITE: the hot path, without an object per message. */
export interface RegionAccess {
  offset: number;
  region: number;
  count: number;
}

/** The caller has checked that the message has {@link REGION_ACCESS}.sizeBytes. */
export function readRegionAccess(bytes: Buffer, start: number, access: RegionAccess): void {
  access.offset = readU64(bytes, start + 16);
  access.region = bytes.readUInt32LE(start + 24);
  access.count = bytes.readUInt32LE(start + 28);
}

export function writeRegionAccess(bytes: Buffer, start: number, access: RegionAccess): void {
  writeU64(bytes, start + 16, access.offset);
  bytes.writeUInt32LE(access.region, start + 24);
  bytes.writeUInt32LE(access.count, start + 28);
}

/** u64 offset, u32 region, u32 count, 8 data bytes. */
const WRITE_MULTI_ENTRY_BYTES = 24;
const WRITE_MULTI_DATA_BYTES = 8;

export interface WriteMultiEntry extends RegionAccess {
  /** `count` bytes, at most {@link WRITE_MULTI_DATA_BYTES}. A view of the message. */
  readonly data: Uint8Array;
}

/** @throws MalformedMessage when the entries do not fit in the message or one is longer than 8 bytes */
export function decodeWriteMulti(message: Buffer): WriteMultiEntry[] {
  const { count } = WRITE_MULTI.decode(message);
  if (count > (message.length - WRITE_MULTI.sizeBytes) / WRITE_MULTI_ENTRY_BYTES) {
    throw new MalformedMessage(`${count} writes announced in a message of ${message.length} bytes`);
  }
  return Array.from({ length: count }, (_, i) => {
    const at = WRITE_MULTI.sizeBytes + i * WRITE_MULTI_ENTRY_BYTES;
    const length = message.readUInt32LE(at + 12);
    if (length > WRITE_MULTI_DATA_BYTES) throw new MalformedMessage(`write ${i} has ${length} bytes, at most 8`);
    return {
      offset: readU64(message, at),
      region: message.readUInt32LE(at + 8),
      count: length,
      data: message.subarray(at + 16, at + 16 + length),
    };
  });
}

export function encodeWriteMulti(id: number, entries: readonly Omit<WriteMultiEntry, 'count'>[], flags = 0): Buffer {
  const data = Buffer.alloc(entries.length * WRITE_MULTI_ENTRY_BYTES);
  for (const [i, entry] of entries.entries()) {
    const at = i * WRITE_MULTI_ENTRY_BYTES;
    writeU64(data, at, entry.offset);
    data.writeUInt32LE(entry.region, at + 8);
    data.writeUInt32LE(entry.data.length, at + 12);
    data.set(entry.data, at + 16);
  }
  return WRITE_MULTI.encode(id, COMMAND.REGION_WRITE_MULTI, { count: entries.length }, { flags, data });
}

/** The error reply to the request with this id and command: exactly a header. */
export function encodeError(id: number, command: number, errno: number): Buffer {
  const message = Buffer.alloc(HEADER_BYTES);
  writeHeader(message, 0, id, command, HEADER_BYTES, FLAG.REPLY | FLAG.ERROR, errno);
  return message;
}
