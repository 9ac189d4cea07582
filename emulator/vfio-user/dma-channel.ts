/**
 * DMA by messages: DMA_READ and DMA_WRITE from us to the client, one at a time, in pieces of at most 64 KiB.
 *
 * QEMU up to at least 10.2 has a layout of its own: u32 count and data from byte 28 on instead of u64 count and
 * data from byte 32 on, in both messages, sizes as specified (vfio-user.md §2.12). Which one a client speaks shows
 * in its first read reply that is not all zero:
 * - bytes 28..31 hold the upper half of the specified count, always 0, or else the first four bytes of data;
 * - the last four bytes are the end of the data as specified, or else unused and 0.
 */
import { performance } from 'node:perf_hooks';
import type { Log } from '../ambient/log.js';
import { ERRNO, SystemError } from '../host/index.js';
import type { DmaMessageChannel } from '../memory/dma-messages.js';
import type { IncomingMessage } from './connection.js';
import {
  COMMAND,
  commandName,
  DMA_ACCESS,
  FLAG,
  HEADER_BYTES,
  MalformedMessage,
  writeHeader,
  writeU64,
} from './messages.js';

/** QEMU loses what a full socket does not take of a larger reply (vfio-user.md §2.12, short-write bug). */
const MAX_PIECE_BYTES = 64 * 1024;

const SPECIFIED_DATA = DMA_ACCESS.sizeBytes;
const QEMU_10_DATA = 28;
type DataOffset = typeof SPECIFIED_DATA | typeof QEMU_10_DATA;

/** The server, as the channel needs it. */
export interface ChannelPort {
  readonly log: Log;
  readonly timeoutMs: number;
  /** False once the client has gone. */
  readonly connected: () => boolean;
  /** True while any request is being answered on this bus thread: QEMU may hold its big lock until then. */
  readonly answering: () => boolean;
  readonly send: (bytes: Buffer, lengthBytes: number) => void;
  /** Serves the sockets of this bus, waiting at most `timeoutMs` for something to come. */
  readonly serve: (timeoutMs: number) => void;
}

interface Exchange {
  readonly id: number;
  readonly command: number;
  readonly count: number;
  state: 'waiting' | 'answered';
  /** 0, or what the client answered. */
  errno: number;
  /** Bytes of the reply, a copy of which is in the channel's buffer. */
  replyBytes: number;
}

export class DmaChannel implements DmaMessageChannel {
  readonly #port: ChannelPort;
  readonly #pieceBytes: number;
  readonly #buffer = Buffer.alloc(SPECIFIED_DATA + MAX_PIECE_BYTES);
  #exchange: Exchange | undefined;
  #dataOffset: DataOffset | undefined;
  #nextId = 0;
  reads = 0;
  writes = 0;
  failures = 0;

  constructor(port: ChannelPort, maxDataTransferBytes: number) {
    this.#port = port;
    this.#pieceBytes = Math.min(MAX_PIECE_BYTES, maxDataTransferBytes);
  }

  dmaRead(address: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; done += this.#pieceBytes) {
      const piece = target.subarray(done, done + this.#pieceBytes);
      this.#readPiece(address + done, piece);
    }
  }

  dmaWrite(address: number, source: Uint8Array): void {
    for (let done = 0; done < source.length; done += this.#pieceBytes) {
      const piece = source.subarray(done, done + this.#pieceBytes);
      if (this.#dataOffset === undefined) this.#writeFirst(address + done, piece);
      else this.#writePiece(address + done, piece, this.#dataOffset);
    }
  }

  #readPiece(address: number, target: Uint8Array): void {
    this.#requestRead(address, target.length);
    const dataOffset = this.#dataOffset ?? this.#settle(address, target.length);
    this.#buffer.copy(target, 0, dataOffset, dataOffset + target.length);
  }

  /** Sends a DMA_READ; its reply is in the buffer afterwards. */
  #requestRead(address: number, count: number): void {
    this.reads++;
    writeHeader(this.#buffer, 0, 0, COMMAND.DMA_READ, SPECIFIED_DATA, FLAG.COMMAND, 0);
    const replyBytes = this.#run(COMMAND.DMA_READ, address, count, SPECIFIED_DATA);
    const complete = replyBytes === SPECIFIED_DATA + count || replyBytes === QEMU_10_DATA + count;
    if (!complete || this.#buffer.readUInt32LE(24) !== count) {
      throw this.#failed(`DMA_READ of ${count} bytes: reply of ${replyBytes} bytes`, address, ERRNO.EIO);
    }
    // A client of the old layout that leaves the four unused bytes out: make room for one way to look at it.
    this.#buffer.fill(0, replyBytes, SPECIFIED_DATA + count);
    if (replyBytes === QEMU_10_DATA + count) this.#choose(QEMU_10_DATA);
  }

  /**
   * Finds the layout of the reply in the buffer. If even it does not tell, its data begin and end with zeros: then a
   * second read starts where the old layout would have its first byte that is not zero, and must show that byte.
   */
  #settle(address: number, count: number): DataOffset {
    const evident = this.#evidence(count);
    if (evident !== undefined) return this.#choose(evident);
    const end = SPECIFIED_DATA + count;
    let first = SPECIFIED_DATA;
    while (first < end && this.#buffer[first] === 0) first++;
    if (first === end) return SPECIFIED_DATA;
    this.#requestRead(address + first - QEMU_10_DATA, 1);
    const layout = this.#buffer.readUInt32LE(QEMU_10_DATA) !== 0 ? QEMU_10_DATA : SPECIFIED_DATA;
    this.#choose(layout);
    this.#requestRead(address, count);
    return layout;
  }

  #evidence(count: number): DataOffset | undefined {
    if (this.#buffer.readUInt32LE(QEMU_10_DATA) !== 0) return QEMU_10_DATA;
    const tail = Math.min(4, count);
    const end = SPECIFIED_DATA + count;
    return this.#buffer.subarray(end - tail, end).some((byte) => byte !== 0) ? SPECIFIED_DATA : undefined;
  }

  #choose(layout: DataOffset): DataOffset {
    if (this.#dataOffset === layout) return layout;
    this.#dataOffset = layout;
    const whose = layout === SPECIFIED_DATA ? 'as specified' : "in QEMU 10.2's own layout";
    this.#port.log.info(`this client speaks DMA messages ${whose}: data at byte ${layout}`);
    return layout;
  }

  /**
   * A write before the layout is known. What the destination holds may tell; else it is all zero, so a write in the
   * wrong layout can be seen in what is read back and mended: it stays inside the range.
   */
  #writeFirst(address: number, source: Uint8Array): void {
    this.#requestRead(address, source.length);
    this.#settle(address, source.length);
    this.#writePiece(address, source, this.#dataOffset ?? SPECIFIED_DATA);
    if (this.#dataOffset !== undefined || source.every((byte) => byte === 0)) return;
    const written = Buffer.alloc(source.length);
    this.#readPiece(address, written);
    if (!written.equals(source)) this.#writePiece(address, source, this.#dataOffset ?? QEMU_10_DATA);
  }

  #writePiece(address: number, source: Uint8Array, dataOffset: DataOffset): void {
    this.writes++;
    const sizeBytes = SPECIFIED_DATA + source.length;
    this.#buffer.fill(0, sizeBytes - 4, sizeBytes);
    this.#buffer.fill(0, QEMU_10_DATA, SPECIFIED_DATA);
    this.#buffer.set(source, dataOffset);
    this.#run(COMMAND.DMA_WRITE, address, source.length, sizeBytes);
  }

  /** Sends what the buffer holds and serves the bus until the reply is in the buffer. Returns the reply's size. */
  #run(command: number, address: number, count: number, sizeBytes: number): number {
    const what = `${commandName(command)} of ${count} bytes`;
    if (!this.#port.connected()) throw this.#failed(what, address, ERRNO.ENOTCONN);
    if (this.#port.answering() || this.#exchange !== undefined) throw this.#failed(what, address, ERRNO.EDEADLK);
    const id = this.#nextId;
    this.#nextId = (id + 1) & 0xffff;
    const exchange: Exchange = { id, command, count, state: 'waiting', errno: 0, replyBytes: 0 };
    writeHeader(this.#buffer, 0, id, command, sizeBytes, FLAG.COMMAND, 0);
    writeU64(this.#buffer, 16, address);
    this.#buffer.writeUInt32LE(count, 24);
    if (command === COMMAND.DMA_READ) this.#buffer.writeUInt32LE(0, QEMU_10_DATA);
    this.#exchange = exchange;
    try {
      this.#port.send(this.#buffer, sizeBytes);
      this.#await(exchange, what, address);
    } finally {
      this.#exchange = undefined;
    }
    if (exchange.errno !== 0) throw this.#failed(what, address, exchange.errno);
    return exchange.replyBytes;
  }

  #await(exchange: Exchange, what: string, address: number): void {
    const deadlineMs = performance.now() + this.#port.timeoutMs;
    while (exchange.state === 'waiting') {
      if (!this.#port.connected()) throw this.#failed(what, address, ERRNO.ECONNRESET);
      const remainingMs = deadlineMs - performance.now();
      if (remainingMs <= 0) throw this.#failed(what, address, ERRNO.ETIMEDOUT);
      this.#port.serve(remainingMs);
    }
  }

  #failed(what: string, address: number, errno: number): SystemError {
    this.failures++;
    return new SystemError(`${what} at 0x${address.toString(16)} by message`, errno);
  }

  /** Takes a reply. False: nobody waits for it (it came too late, or was never asked for). */
  accept(message: IncomingMessage): boolean {
    const exchange = this.#exchange;
    if (exchange?.state !== 'waiting' || exchange.id !== message.id || exchange.command !== message.command)
      return false;
    exchange.state = 'answered';
    if ((message.flags & FLAG.ERROR) !== 0) {
      exchange.errno = message.errno === 0 ? ERRNO.EIO : message.errno;
    } else if (!this.#keepReply(message, exchange)) {
      exchange.errno = ERRNO.EIO;
      throw new MalformedMessage(`reply of ${message.sizeBytes} bytes to a ${commandName(message.command)}`);
    }
    return true;
  }

  /** QEMU 10.2 answers a DMA_WRITE with a bare header. */
  #keepReply(message: IncomingMessage, exchange: Exchange): boolean {
    const { bytes, start, sizeBytes } = message;
    const write = exchange.command === COMMAND.DMA_WRITE;
    const longest = write ? SPECIFIED_DATA : SPECIFIED_DATA + exchange.count;
    const shortest = write ? HEADER_BYTES : QEMU_10_DATA;
    if (sizeBytes > longest || sizeBytes < shortest) return false;
    if (write && sizeBytes >= QEMU_10_DATA && bytes.readUInt32LE(start + 24) !== exchange.count) return false;
    if (!write) bytes.copy(this.#buffer, 0, start, start + sizeBytes);
    exchange.replyBytes = sizeBytes;
    return true;
  }
}
