/**
 * Rows of the conformance checklist (vfio-user.md §5.4) as values, and the few verbs they are written with.
 * `what` is the checklist's input and expectation in short; `id` is the checklist's.
 */
import assert from 'node:assert/strict';
import { type ERRNO, errnoName } from '../emulator/host/index.js';
import {
  COMMAND,
  DEVICE_INFO,
  DMA_MAP,
  DMA_UNMAP,
  EMPTY,
  FLAG,
  HEADER_BYTES,
  IRQ_INFO,
  type Layout,
  payloadBytes,
  REGION_ACCESS,
  REGION_INFO,
  SET_IRQS,
  writeHeader,
} from '../emulator/vfio-user/messages.js';
import type { Bench } from './bench.js';
import type { ReceivedMessage } from './client.js';
import type { Variant } from './shape.js';
import type { Wire } from './wire.js';

export interface Row {
  readonly id: string;
  readonly what: string;
  /**
   * Why this server does otherwise than the checklist or libvfio-user; without a script, why there is nothing to test.
   */
  readonly rejected?: string;
  /** In what the function differs from the usual one. */
  readonly variant?: Variant;
  /** False: the row does its own VERSION. */
  readonly negotiated?: false;
  readonly dmaTimeoutMs?: number;
  /** The script of a row that needs only the socket. */
  readonly run?: (wire: Wire) => void;
  /** In its place, the script of a row that also looks at the device and the log behind the server. */
  readonly inside?: (bench: Bench) => void;
}

const ID = 0x2b;

/** A message of `command` with any payload, right or wrong. */
export function raw(command: number, payload: Uint8Array | number = 0, flags = 0, id = ID): Buffer {
  const body = typeof payload === 'number' ? Buffer.alloc(payload) : payload;
  const message = Buffer.alloc(HEADER_BYTES + body.length);
  writeHeader(message, 0, id, command, message.length, flags, 0);
  message.set(body, HEADER_BYTES);
  return message;
}

type Values<L> = L extends Layout<infer Name> ? Partial<Record<Name, number>> : never;

function withArgsz<L extends Layout<string>>(
  fixed: L,
  command: number,
  values: Values<L>,
  data?: Uint8Array,
  flags = 0,
) {
  const all = { argsz: payloadBytes(fixed), ...values };
  return fixed.encode(ID, command, all, data === undefined ? { flags } : { flags, data });
}

export const deviceInfo = (values: Values<typeof DEVICE_INFO> = {}) =>
  withArgsz(DEVICE_INFO, COMMAND.DEVICE_GET_INFO, values);
export const regionInfo = (values: Values<typeof REGION_INFO>, padding = 0) =>
  withArgsz(REGION_INFO, COMMAND.DEVICE_GET_REGION_INFO, values, Buffer.alloc(padding));
export const irqInfo = (values: Values<typeof IRQ_INFO>) => withArgsz(IRQ_INFO, COMMAND.DEVICE_GET_IRQ_INFO, values);
export const setIrqs = (values: Values<typeof SET_IRQS>, data?: Uint8Array, flags = 0) =>
  withArgsz(SET_IRQS, COMMAND.DEVICE_SET_IRQS, values, data, flags);
export const dmaMap = (values: Values<typeof DMA_MAP>) =>
  withArgsz(DMA_MAP, COMMAND.DMA_MAP, { flags: 3, sizeBytes: 0x1000, ...values });
export const dmaUnmap = (values: Values<typeof DMA_UNMAP>, data?: Uint8Array) =>
  withArgsz(DMA_UNMAP, COMMAND.DMA_UNMAP, values, data);
export const resetDevice = (flags = 0) => EMPTY.encode(ID, COMMAND.DEVICE_RESET, {}, { flags });

export function readRegion(region: number, offset: number, count: number, id = ID): Buffer {
  return REGION_ACCESS.encode(id, COMMAND.REGION_READ, { region, offset, count });
}

export function writeRegion(region: number, offset: number, data: readonly number[] | Uint8Array, flags = 0): Buffer {
  const bytes = Uint8Array.from(data);
  const access = { region, offset, count: bytes.length };
  return REGION_ACCESS.encode(ID, COMMAND.REGION_WRITE, access, { flags, data: bytes });
}

type ErrnoName = keyof typeof ERRNO;

export function assertError(reply: ReceivedMessage, request: Buffer, errno: ErrnoName = 'EINVAL'): void {
  const id = request.readUInt16LE(0);
  const command = request.readUInt16LE(2);
  assert.equal(reply.flags, FLAG.REPLY | FLAG.ERROR, `expected ${errno}, got success`);
  assert.equal(errnoName(reply.errno), errno);
  assert.deepEqual([reply.id, reply.command, reply.sizeBytes, reply.fds.length], [id, command, HEADER_BYTES, 0]);
}

export function assertSuccess(reply: ReceivedMessage, request: Buffer): void {
  const id = request.readUInt16LE(0);
  const command = request.readUInt16LE(2);
  assert.equal(reply.flags, FLAG.REPLY, `refused with ${errnoName(reply.errno)}`);
  assert.deepEqual([reply.id, reply.command, reply.errno], [id, command, 0]);
}

/** Sends and expects success. */
export function succeed(wire: Wire, message: Buffer, fds: readonly number[] = []): ReceivedMessage {
  const reply = wire.request(message, fds);
  assertSuccess(reply, message);
  return reply;
}

/** Sends and expects the error. */
export function fail(wire: Wire, message: Buffer, errno: ErrnoName = 'EINVAL', fds: readonly number[] = []): void {
  assertError(wire.request(message, fds), message, errno);
}

export function assertInSync(wire: Wire): void {
  assert.equal(succeed(wire, deviceInfo()).sizeBytes, DEVICE_INFO.sizeBytes);
}

/** A row's whole script: this message is refused with this errno, and the stream goes on. */
export function refused(message: Buffer, errno: ErrnoName = 'EINVAL') {
  return (wire: Wire) => {
    fail(wire, message, errno);
    assertInSync(wire);
  };
}

/** A row's whole script: these messages all succeed. */
export function accepted(...messages: readonly Buffer[]) {
  return (wire: Wire) => {
    for (const message of messages) succeed(wire, message);
  };
}

/**
 * A row's whole script: an eventfd or two come along, and it is refused; that none stays open is checked by the runner.
 */
export function refusedWithFds(message: Buffer, fdCount: number, errno: ErrnoName = 'EINVAL') {
  return (wire: Wire) => {
    const fds = Array.from({ length: fdCount }, () => wire.eventfd());
    fail(wire, message, errno, fds);
    assertInSync(wire);
  };
}

/** Reads `count` bytes of a region by message. */
export function peek(wire: Wire, region: number, offset: number, count: number): Buffer {
  const reply = succeed(wire, readRegion(region, offset, count));
  assert.equal(reply.sizeBytes, REGION_ACCESS.sizeBytes + count);
  return reply.bytes.subarray(REGION_ACCESS.sizeBytes);
}

export function poke(wire: Wire, region: number, offset: number, data: readonly number[] | Uint8Array): void {
  succeed(wire, writeRegion(region, offset, data));
}
