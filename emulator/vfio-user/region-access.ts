/** REGION_READ, REGION_WRITE, REGION_WRITE_MULTI: the hot path, with one reply buffer for all of them. */

import type { Log } from '../ambient/log.js';
import { ERRNO, SystemError } from '../host/index.js';
import type { IncomingMessage } from './connection.js';
import type { VfioDevice } from './device.js';
import {
  COMMAND,
  decodeWriteMulti,
  FLAG,
  MalformedMessage,
  REGION_ACCESS,
  type RegionAccess,
  readRegionAccess,
  WRITE_MULTI,
  writeHeader,
  writeRegionAccess,
} from './messages.js';

/** QEMU hw/vfio-user/protocol.h VFIO_USER_MULTI_MAX. */
const MAX_MULTI_WRITES = 200;
const MAX_SMALL_BYTES = 8;
const MAX_LOGGED_BYTES = 16;
const HEAD_BYTES = REGION_ACCESS.sizeBytes;

export class RegionAccessor {
  readonly #device: VfioDevice;
  readonly #log: Log;
  readonly #maxBytes: number;
  readonly #access: RegionAccess = { offset: 0, region: 0, count: 0 };
  /** The reply of the request just served. Untouched pages of it cost nothing. */
  readonly reply: Buffer;
  /** Views of every length that a CPU can access at once, made once, since making one costs more than a register. */
  readonly #smallTargets: readonly Uint8Array[];
  readonly #smallSources: readonly Uint8Array[];

  constructor(device: VfioDevice, log: Log, maxBytes: number) {
    this.#device = device;
    this.#log = log;
    this.#maxBytes = maxBytes;
    this.reply = Buffer.alloc(HEAD_BYTES + maxBytes);
    const written = Buffer.alloc(MAX_SMALL_BYTES);
    const lengths = Array.from({ length: MAX_SMALL_BYTES + 1 }, (_, length) => length);
    this.#smallTargets = lengths.map((length) => this.reply.subarray(HEAD_BYTES, HEAD_BYTES + length));
    this.#smallSources = lengths.map((length) => written.subarray(0, length));
  }

  /** Returns the length of the reply in {@link reply}. @throws errors with `errno` */
  read(message: IncomingMessage): number {
    const access = this.#decode(message);
    const { offset, region, count } = access;
    const small = this.#smallTargets[count];
    const target = small ?? this.reply.subarray(HEAD_BYTES, HEAD_BYTES + count);
    this.#check(access, 'read');
    target.fill(0);
    try {
      if (count > 0) this.#device.regionRead(region, offset, target);
    } catch (error) {
      throw this.#fault(error, `read of ${count} bytes`, { region, offset });
    }
    return this.#finish(message, HEAD_BYTES + count, offset, region, count);
  }

  /** Returns the length of the reply in {@link reply}. @throws errors with `errno` */
  write(message: IncomingMessage): number {
    const access = this.#decode(message);
    const { offset, region, count } = access;
    this.#check(access, 'write');
    if (message.sizeBytes !== HEAD_BYTES + count) {
      throw new MalformedMessage(`write of ${count} bytes with ${message.sizeBytes - HEAD_BYTES} bytes of data`);
    }
    this.#writeDevice(region, offset, this.#sourceOf(message, count));
    return this.#finish(message, HEAD_BYTES, offset, region, count);
  }

  /** Every entry is checked before the first is executed. Returns the length of the reply. @throws as above */
  writeMulti(message: IncomingMessage): number {
    const entries = decodeWriteMulti(message.bytes.subarray(message.start, message.start + message.sizeBytes));
    if (entries.length > MAX_MULTI_WRITES) {
      throw new MalformedMessage(`${entries.length} writes in one message, at most ${MAX_MULTI_WRITES}`);
    }
    for (const entry of entries) this.#check(entry, 'write');
    for (const { region, offset, data } of entries) this.#writeDevice(region, offset, data);
    const reply = WRITE_MULTI.encode(
      message.id,
      COMMAND.REGION_WRITE_MULTI,
      { count: entries.length },
      { flags: FLAG.REPLY },
    );
    return reply.copy(this.reply);
  }

  #decode(message: IncomingMessage): RegionAccess {
    if (message.sizeBytes < HEAD_BYTES) throw new MalformedMessage(`region access of ${message.sizeBytes} bytes`);
    readRegionAccess(message.bytes, message.start, this.#access);
    return this.#access;
  }

  #check(access: RegionAccess, kind: 'read' | 'write'): void {
    const { offset, region, count } = access;
    const info = this.#device.regions[region];
    if (info === undefined || info.sizeBytes === 0)
      throw new MalformedMessage(`${kind} of region ${region}: no such region`);
    if (count > this.#maxBytes) throw new MalformedMessage(`${kind} of ${count} bytes; the limit is ${this.#maxBytes}`);
    if (offset + count > info.sizeBytes) {
      throw new MalformedMessage(
        `${kind} of ${count} bytes at 0x${offset.toString(16)} of region ${region}, which has ${info.sizeBytes} bytes`,
      );
    }
    if (kind === 'read' ? !info.readable : !info.writable) {
      throw new MalformedMessage(`${kind} of region ${region}, which does not allow it`);
    }
  }

  /** The data of a write: small ones are copied into a view that exists already. */
  #sourceOf({ bytes, start }: IncomingMessage, count: number): Uint8Array {
    const small = this.#smallSources[count];
    if (small === undefined) return bytes.subarray(start + HEAD_BYTES, start + HEAD_BYTES + count);
    for (let i = 0; i < count; i++) small[i] = bytes[start + HEAD_BYTES + i]!;
    return small;
  }

  #writeDevice(region: number, offset: number, source: Uint8Array): void {
    if (source.length === 0) return;
    try {
      this.#device.regionWrite(region, offset, source);
    } catch (error) {
      const head = Buffer.from(source.subarray(0, MAX_LOGGED_BYTES)).toString('hex');
      throw this.#fault(error, `write of ${source.length} bytes`, { region, offset, value: head });
    }
  }

  #finish(message: IncomingMessage, length: number, offset: number, region: number, count: number): number {
    writeHeader(this.reply, 0, message.id, message.command, length, FLAG.REPLY, 0);
    const access = this.#access;
    access.offset = offset;
    access.region = region;
    access.count = count;
    writeRegionAccess(this.reply, 0, access);
    return length;
  }

  /** A refusal (an error with `errno`) passes; anything else is the model's fault and becomes EIO. */
  #fault(error: unknown, what: string, fields: Record<string, unknown>): Error {
    if (error instanceof Error && typeof (error as { errno?: unknown }).errno === 'number') return error;
    const stack = error instanceof Error ? error.stack : String(error);
    this.#log.error(`the model failed in a ${what}; the guest gets an error and the connection stays`, {
      ...fields,
      stack,
    });
    return new SystemError(`${what} of region ${fields.region}`, ERRNO.EIO);
  }
}
