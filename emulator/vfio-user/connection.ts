/**
 * One client's byte stream as whole messages, with the file descriptors that came along, and the way back.
 *
 * Incoming: one receive takes what is there, often several messages. Linux ends a read behind data that carried
 * descriptors, so the descriptors of a read belong to the message that owns its last byte (vfio-user.md §1.4).
 * Outgoing: one sendmsg per message, because QEMU gives up a stream whose header comes in pieces. What the socket does
 * not take waits in order; while something waits, the owner takes no further requests, which bounds the queue.
 */
import { performance } from 'node:perf_hooks';
import { closeFd, pendingBytes, RECEIVE_FD_LIMIT, recvWithFds, sendWithFds } from '../host/index.js';
import { HEADER_BYTES, type Header, readHeader } from './messages.js';

/** Room for hundreds of register accesses in one receive. */
const INITIAL_BUFFER_BYTES = 64 * 1024;
const NO_FDS: readonly number[] = [];

/** One whole request or reply. Valid until the next call of {@link Connection.next}. */
export interface IncomingMessage extends Header {
  /** The connection's receive buffer; this message starts at `start`. */
  bytes: Buffer;
  start: number;
  /** Whoever takes a descriptor out of this list owns it; the server closes those left. */
  fds: number[];
  /** More descriptors came than can be received; `fds` is not complete. */
  fdsLost: boolean;
  /** performance.now() of the receive that completed it. */
  arrivedMs: number;
  /** The size field makes it impossible to find the next message: answer and close. */
  broken: boolean;
}

interface FdBatch {
  /** Position in the stream behind the read that brought them. */
  readonly streamEnd: number;
  readonly fds: readonly number[];
  readonly lost: boolean;
}

interface Unsent {
  readonly bytes: Buffer;
  offset: number;
  fds: readonly number[];
}

export class Connection {
  readonly fd: number;
  readonly #maxMessageBytes: number;
  readonly #message: IncomingMessage;
  readonly #unsent: Unsent[] = [];
  #bytes = Buffer.alloc(INITIAL_BUFFER_BYTES);
  #start = 0;
  #end = 0;
  /** Stream position of `#start`. */
  #consumed = 0;
  #batches: FdBatch[] = [];
  #receivedMs = 0;
  #closed = false;

  /** Takes ownership of `fd`, a non-blocking stream socket. */
  constructor(fd: number, maxMessageBytes: number) {
    this.fd = fd;
    this.#maxMessageBytes = maxMessageBytes;
    this.#message = {
      id: 0,
      command: 0,
      sizeBytes: 0,
      flags: 0,
      errno: 0,
      bytes: this.#bytes,
      start: 0,
      fds: [],
      fdsLost: false,
      arrivedMs: 0,
      broken: false,
    };
  }

  /** Bytes in the socket that have not been received yet. @throws SystemError */
  get queuedBytes(): number {
    return this.#closed ? 0 : pendingBytes(this.fd);
  }

  /** True while outgoing bytes wait for the client to read. */
  get blocked(): boolean {
    return this.#unsent.length > 0;
  }

  /**
   * Receives once. 'would-block' also stands for a read that filled less than it could, as nothing more can be there.
   * @throws SystemError such as ECONNRESET
   */
  receive(): 'received' | 'would-block' | 'closed' {
    this.#makeRoom();
    const received = recvWithFds(this.fd, this.#bytes, this.#end, this.#bytes.length - this.#end);
    if (typeof received === 'string') return received;
    this.#end += received.byteCount;
    this.#receivedMs = performance.now();
    if (received.fds.length > 0 || received.truncatedControl) this.#keepFds(received.fds, received.truncatedControl);
    return 'received';
  }

  /** Descriptors may come with every byte of a message that never ends: more than one receive can hold are not kept. */
  #keepFds(fds: readonly number[], truncated: boolean): void {
    const held = this.#batches.reduce((sum, batch) => sum + batch.fds.length, 0);
    const streamEnd = this.#consumed + this.#end - this.#start;
    if (held + fds.length <= RECEIVE_FD_LIMIT && this.#batches.length < RECEIVE_FD_LIMIT) {
      this.#batches.push({ streamEnd, fds, lost: truncated });
      return;
    }
    for (const fd of fds) closeFd(fd);
    const last = this.#batches.pop()!;
    this.#batches.push({ streamEnd, fds: last.fds, lost: true });
  }

  #makeRoom(): void {
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
      return;
    }
    const needed = Math.max(this.#announcedBytes(), HEADER_BYTES);
    if (this.#start + needed <= this.#bytes.length && this.#end < this.#bytes.length) return;
    const room = needed <= this.#bytes.length ? this.#bytes : Buffer.alloc(needed);
    this.#bytes.copy(room, 0, this.#start, this.#end);
    this.#bytes = room;
    this.#end -= this.#start;
    this.#start = 0;
  }

  /** Size field of the message at `#start`; 0 when its header is not complete. Never above the limit. */
  #announcedBytes(): number {
    if (this.#end - this.#start < HEADER_BYTES) return 0;
    return Math.min(this.#bytes.readUInt32LE(this.#start + 4), this.#maxMessageBytes);
  }

  /** True when {@link next} has a message without receiving. */
  get hasMessage(): boolean {
    const held = this.#end - this.#start;
    if (held < HEADER_BYTES) return false;
    const sizeBytes = this.#bytes.readUInt32LE(this.#start + 4);
    return held >= sizeBytes || sizeBytes > this.#maxMessageBytes;
  }

  /** Next whole message of what has been received, or undefined. The same object every time. */
  next(): IncomingMessage | undefined {
    if (!this.hasMessage) return undefined;
    const message = this.#message;
    readHeader(this.#bytes, this.#start, message);
    message.broken = message.sizeBytes < HEADER_BYTES || message.sizeBytes > this.#maxMessageBytes;
    message.bytes = this.#bytes;
    message.start = this.#start;
    message.arrivedMs = this.#receivedMs;
    message.fds = [];
    message.fdsLost = false;
    const taken = message.broken ? this.#end - this.#start : message.sizeBytes;
    this.#start += taken;
    this.#consumed += taken;
    if (this.#batches.length > 0) this.#attachFds(message);
    return message;
  }

  #attachFds(message: IncomingMessage): void {
    const later: FdBatch[] = [];
    for (const batch of this.#batches) {
      if (batch.streamEnd > this.#consumed) {
        later.push(batch);
        continue;
      }
      message.fds.push(...batch.fds);
      message.fdsLost ||= batch.lost;
    }
    this.#batches = later;
  }

  /**
   * Sends one message, or queues (a copy of) what the socket does not take. `fds` stay the caller's and must stay open
   * until {@link blocked} is false. @throws SystemError such as EPIPE
   */
  send(bytes: Buffer, lengthBytes: number, fds: readonly number[] = NO_FDS): void {
    let sent: number | 'would-block' = 'would-block';
    if (!this.blocked) sent = sendWithFds(this.fd, bytes, 0, lengthBytes, fds);
    if (sent === lengthBytes) return;
    const done = sent === 'would-block' ? 0 : sent;
    this.#unsent.push({
      bytes: Buffer.from(bytes.subarray(done, lengthBytes)),
      offset: 0,
      fds: done > 0 ? NO_FDS : fds,
    });
  }

  /** Sends what waits, as far as the socket takes it. @throws SystemError such as EPIPE */
  flush(): void {
    for (let head = this.#unsent[0]; head !== undefined; head = this.#unsent[0]) {
      const sent = sendWithFds(this.fd, head.bytes, head.offset, head.bytes.length - head.offset, head.fds);
      if (sent === 'would-block') return;
      head.offset += sent;
      head.fds = NO_FDS;
      if (head.offset === head.bytes.length) this.#unsent.shift();
    }
  }

  /** Closes the socket and the descriptors that no message took. Safe to call twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const batch of this.#batches) for (const fd of batch.fds) closeFd(fd);
    this.#batches = [];
    this.#unsent.length = 0;
    this.#start = this.#end = 0;
    closeFd(this.fd);
  }
}
