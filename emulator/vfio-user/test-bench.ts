/** A function server on a real socket and bus with a raw client, all in this thread; for specs. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Log } from '../ambient/log.js';
import { Bus } from '../bus.js';
import { closeFd, createEventfd, createMemfd } from '../host/index.js';
import { FixtureDevice, type FixtureOptions } from './fixture-device.js';
import { FunctionServer, type FunctionServerOptions } from './server.js';
import { type ReceivedMessage, TestClient } from './test-client.js';

export interface LogRecord {
  readonly level: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>> | undefined;
}

export class Bench {
  readonly logged: LogRecord[] = [];
  readonly bus: Bus;
  readonly device: FixtureDevice;
  readonly server: FunctionServer;
  /** Connected and, unless asked otherwise, negotiated. */
  client: TestClient;
  readonly #directory = mkdtempSync(join(tmpdir(), 'ghostbus-vfio-user-'));
  readonly #clients: TestClient[] = [];
  readonly #fds: number[] = [];

  constructor(fixture: FixtureOptions = {}, negotiated = true, options: Partial<FunctionServerOptions> = {}) {
    const log = this.log();
    this.bus = new Bus({ log });
    this.device = new FixtureDevice(fixture);
    this.server = new FunctionServer(this.device, join(this.#directory, 'function.sock'), {
      log,
      watcher: this.bus,
      serveBus: (timeoutMs) => this.bus.serveReady(timeoutMs),
      ...options,
    });
    this.client = this.connect();
    if (negotiated) this.client.negotiate();
  }

  log(): Log {
    const at = (level: string) => (message: string, fields?: Readonly<Record<string, unknown>>) =>
      void this.logged.push({ level, message, fields });
    return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
  }

  path(name: string): string {
    return join(this.#directory, name);
  }

  connect(socketPath = this.server.socketPath): TestClient {
    const client = new TestClient(socketPath, { idle: () => this.turn() });
    this.#clients.push(client);
    return client;
  }

  /** Serves what is ready now. */
  turn(): void {
    this.bus.serveReady(0);
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

  /** A descriptor that the bench closes. */
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
    this.server.close();
    this.device.close();
    this.bus.close();
    rmSync(this.#directory, { recursive: true });
  }
}
