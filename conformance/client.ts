/**
 * A raw client for tests and benchmarks: sends whatever bytes and descriptors it is told, checks nothing for itself.
 * It runs in the server's own thread as well as in another process: while it waits for a reply it calls `idle`.
 */
import { closeFd, connectUnix, Poller, recvWithFds, sendWithFds } from '../emulator/host/index.js';
import { COMMAND, FLAG, HEADER_BYTES, type Header, readHeader, VERSION } from '../emulator/vfio-user/messages.js';

/** What QEMU 10.2.2 sends as VERSION: 193 characters (vfio-user.md §1.5). */
export const QEMU_CAPABILITIES =
  '{"capabilities": {"max_msg_fds": 16, "max_data_xfer_size": 1048576, "max_dma_maps": 65535, "pgsizes": 4096, ' +
  '"migration": {"pgsize": 4096, "max_bitmap_size": 268435456}, "write_multiple": true}}';

export interface ReceivedMessage extends Header {
  /** The whole message. */
  readonly bytes: Buffer;
  /** Owned by the receiver. */
  readonly fds: readonly number[];
}

export interface RawClientOptions {
  /** Called while nothing has come. Default: waits for the socket, for a server in another thread or process. */
  readonly idle?: () => void;
  /** How often `idle` is called before the client gives up. Default 200. */
  readonly patience?: number;
}

export class RawClient {
  readonly fd: number;
  readonly #idle: () => void;
  readonly #patience: number;
  readonly #poller: Poller | undefined;
  readonly #chunk = Buffer.alloc(256 * 1024);
  #received = Buffer.alloc(0);
  #fds: number[] = [];
  #ended = false;
  #nextId = 1;

  constructor(socketPath: string, { idle, patience = 200 }: RawClientOptions = {}) {
    this.fd = connectUnix(socketPath);
    this.#patience = patience;
    if (idle === undefined) {
      const poller = new Poller();
      poller.add(this.fd, 0);
      this.#poller = poller;
      this.#idle = () => void poller.wait(100);
    } else {
      this.#poller = undefined;
      this.#idle = idle;
    }
  }

  nextId(): number {
    this.#nextId = (this.#nextId + 1) & 0xffff;
    return this.#nextId;
  }

  /** Sends all of it, calling `idle` while the socket is full. `fds` stay the caller's. */
  send(bytes: Buffer, fds: readonly number[] = []): void {
    let attempts = 0;
    for (let done = 0; done < bytes.length; ) {
      const sent = sendWithFds(this.fd, bytes, done, bytes.length - done, done === 0 ? fds : []);
      if (sent === 'would-block') {
        if (++attempts > this.#patience) throw new Error(`the server took ${done} of ${bytes.length} bytes`);
        this.#idle();
      } else {
        done += sent;
        attempts = 0;
      }
    }
  }

  /** The next message, if a whole one is there without waiting. */
  poll(): ReceivedMessage | undefined {
    this.#receive();
    if (this.#received.length < HEADER_BYTES) return undefined;
    const header: Header = { id: 0, command: 0, sizeBytes: 0, flags: 0, errno: 0 };
    readHeader(this.#received, 0, header);
    if (this.#received.length < header.sizeBytes) return undefined;
    const bytes = Buffer.from(this.#received.subarray(0, header.sizeBytes));
    this.#received = this.#received.subarray(header.sizeBytes);
    const fds = this.#fds;
    this.#fds = [];
    return { ...header, bytes, fds };
  }

  #receive(): void {
    if (this.#ended) return;
    try {
      const received = recvWithFds(this.fd, this.#chunk, 0, this.#chunk.length);
      if (received === 'would-block') return;
      if (received === 'closed') {
        this.#ended = true;
        return;
      }
      this.#received = Buffer.concat([this.#received, this.#chunk.subarray(0, received.byteCount)]);
      this.#fds.push(...received.fds);
    } catch {
      // ECONNRESET: the server closed with bytes of ours unread.
      this.#ended = true;
    }
  }

  /** Waits for the next message. @throws when the server closes or does not answer */
  receive(): ReceivedMessage {
    for (let attempt = 0; attempt <= this.#patience; attempt++) {
      const message = this.poll();
      if (message !== undefined) return message;
      if (this.#ended) throw new Error('the server closed the connection');
      this.#idle();
    }
    throw new Error('the server does not answer');
  }

  request(bytes: Buffer, fds: readonly number[] = []): ReceivedMessage {
    this.send(bytes, fds);
    return this.receive();
  }

  /** True once the server has closed; gives it `idle` a few times to do so. */
  endedByServer(): boolean {
    for (let attempt = 0; attempt < 3 && !this.#ended; attempt++) {
      this.#idle();
      this.#receive();
    }
    return this.#ended;
  }

  /** VERSION as QEMU sends it. */
  negotiate(capabilities = QEMU_CAPABILITIES): ReceivedMessage {
    return this.request(encodeVersion(this.nextId(), `${capabilities}\0`));
  }

  close(): void {
    this.#poller?.close();
    for (const fd of this.#fds) closeFd(fd);
    this.#fds = [];
    closeFd(this.fd);
  }
}

/** `data`: everything behind the two version numbers, NUL included if there shall be one. */
export function encodeVersion(id: number, data: string, major = 0, minor = 0, flags: number = FLAG.COMMAND): Buffer {
  return VERSION.encode(id, COMMAND.VERSION, { major, minor }, { flags, data: Buffer.from(data) });
}
