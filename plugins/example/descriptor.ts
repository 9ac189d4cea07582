/**
 * The descriptor: 32 bytes in a ring in guest memory, little-endian. Driver and engine share this layout; its twin is
 * `guest/driver/ghostbus_example.h`.
 *
 * | offset | size | field                                                                      |
 * |--------|------|----------------------------------------------------------------------------|
 * |   0    |  8   | source: bus address, or offset in device memory, or the immediate data     |
 * |   8    |  8   | destination: bus address, or offset in device memory                       |
 * |  16    |  4   | length in bytes, at least 1; for immediate data at most 8                  |
 * |  20    |  4   | flags                                                                      |
 * |  24    |  4   | completion status, written by the engine; the driver stores 0 (PENDING)    |
 * |  28    |  4   | bytes copied, written by the engine in the same 8-byte write as the status |
 */
import type { DmaFailure } from 'ghostbus';

export const DESCRIPTOR_BYTES = 32;
/** Where in the descriptor the engine writes status and count. */
export const COMPLETION_OFFSET = 24;
const MAX_IMMEDIATE_BYTES = 8;

export const flags = {
  sourceIsLocal: 1 << 0,
  destinationIsLocal: 1 << 1,
  immediate: 1 << 2,
  interrupt: 1 << 3,
} as const;

const KNOWN_FLAGS = flags.sourceIsLocal | flags.destinationIsLocal | flags.immediate | flags.interrupt;

export const status = {
  pending: 0,
  done: 1,
  invalidDescriptor: 2,
  unsupportedRequest: 3,
  accessDenied: 4,
  busError: 5,
  /** Asked for by `control('fail-next')`. */
  injected: 6,
} as const;

/** What the engine reports for each way in which a request on the bus can fail. */
export const statusOfDmaFailure: Readonly<Record<DmaFailure, number>> = {
  'bus-master-disabled': status.accessDenied,
  'unsupported-request': status.unsupportedRequest,
  'access-denied': status.accessDenied,
  'would-deadlock': status.busError,
  'message-failed': status.busError,
};

export interface Descriptor {
  readonly source: bigint;
  readonly destination: bigint;
  readonly lengthBytes: number;
  readonly flags: number;
}

export function decodeDescriptor(bytes: Uint8Array): Descriptor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, DESCRIPTOR_BYTES);
  return {
    source: view.getBigUint64(0, true),
    destination: view.getBigUint64(8, true),
    lengthBytes: view.getUint32(16, true),
    flags: view.getUint32(20, true),
  };
}

/** For tests, and for drivers written in TypeScript. */
export function encodeDescriptor(descriptor: Descriptor): Uint8Array {
  const bytes = new Uint8Array(DESCRIPTOR_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, descriptor.source, true);
  view.setBigUint64(8, descriptor.destination, true);
  view.setUint32(16, descriptor.lengthBytes, true);
  view.setUint32(20, descriptor.flags, true);
  return bytes;
}

/**
 * Whether the engine can execute it. The guest is not trusted: the emulator's numbers are exact below 2^53 only, and an
 * offset in device memory must stay inside it. A bus address that nobody answers is not invalid; the bus will tell.
 */
export function isValid(descriptor: Descriptor, memoryBytes: number): boolean {
  const { source, destination, lengthBytes } = descriptor;
  const has = (flag: number) => (descriptor.flags & flag) !== 0;
  const fits = (start: bigint, isLocal: boolean) =>
    start + BigInt(lengthBytes) <= BigInt(isLocal ? memoryBytes : Number.MAX_SAFE_INTEGER);
  if (lengthBytes === 0 || (descriptor.flags & ~KNOWN_FLAGS) !== 0) return false;
  if (!fits(destination, has(flags.destinationIsLocal))) return false;
  if (has(flags.immediate)) return lengthBytes <= MAX_IMMEDIATE_BYTES && !has(flags.sourceIsLocal);
  if (!fits(source, has(flags.sourceIsLocal))) return false;
  const sameSpace = has(flags.sourceIsLocal) === has(flags.destinationIsLocal);
  const length = BigInt(lengthBytes);
  return !sameSpace || source + length <= destination || destination + length <= source;
}
