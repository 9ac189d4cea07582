/** A client's end: what a row does with a server of which it sees the socket only. */
import { closeFd, createEventfd, createMemfd } from '../emulator/host/index.js';
import { RawClient, type ReceivedMessage } from './client.js';

/** How long a server in another thread or process gets to notice something that it does not answer. */
const NOTICE_MS = 5;

export class Wire {
  readonly socketPath: string;
  readonly #idle: (() => void) | undefined;
  readonly #clients: RawClient[] = [];
  readonly #fds: number[] = [];
  #client: RawClient | undefined;

  /** `idle` lets a server of this thread run; without it the server is in another thread or process. */
  constructor(socketPath: string, idle?: () => void) {
    this.socketPath = socketPath;
    this.#idle = idle;
  }

  /** The client of the row; there is one from the start, negotiated unless the row wants to do that. */
  get client(): RawClient {
    this.#client ??= this.connect();
    return this.#client;
  }

  set client(client: RawClient) {
    this.#client = client;
  }

  connect(socketPath = this.socketPath): RawClient {
    const client = new RawClient(socketPath, this.#idle === undefined ? {} : { idle: this.#idle });
    this.#clients.push(client);
    return client;
  }

  /** Gives the server time to serve what is ready. */
  turn(): void {
    if (this.#idle !== undefined) this.#idle();
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, NOTICE_MS);
  }

  disconnect(client = this.client): void {
    this.#clients.splice(this.#clients.indexOf(client), 1);
    client.close();
  }

  /** Ends the present client, if there is one, and negotiates with a new one. */
  reconnect(): void {
    if (this.#clients.includes(this.client)) this.disconnect();
    this.turn();
    this.client = this.connect();
    this.client.negotiate();
  }

  request(bytes: Buffer, fds: readonly number[] = []): ReceivedMessage {
    return this.client.request(bytes, fds);
  }

  /** A descriptor that is closed at the end. */
  own(fd: number): number {
    this.#fds.push(fd);
    return fd;
  }

  eventfd(): number {
    return this.own(createEventfd());
  }

  memfd(sizeBytes: number): number {
    return this.own(createMemfd('guest', sizeBytes));
  }

  close(): void {
    for (const client of this.#clients) client.close();
    for (const fd of this.#fds) closeFd(fd);
  }
}
