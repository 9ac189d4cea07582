/**
 * This project's own server on a real socket and bus, all in this thread, around the device of the rows. What a row
 * with `inside` sees; specs of the server use it too.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Log } from '../emulator/ambient/log.js';
import { Bus } from '../emulator/bus.js';
import { FunctionServer, type FunctionServerOptions } from '../emulator/vfio-user/server.js';
import { FixtureDevice } from './fixture-device.js';
import type { Variant } from './shape.js';
import { Wire } from './wire.js';

export interface LogRecord {
  readonly level: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>> | undefined;
}

export class Bench extends Wire {
  readonly logged: LogRecord[] = [];
  readonly bus: Bus;
  readonly device: FixtureDevice;
  readonly server: FunctionServer;
  readonly #directory: string;

  constructor(variant: Variant = {}, negotiated = true, options: Partial<FunctionServerOptions> = {}) {
    const directory = mkdtempSync(join(tmpdir(), 'ghostbus-vfio-user-'));
    const serve: { ready?: () => void } = {};
    super(join(directory, 'function.sock'), () => serve.ready?.());
    this.#directory = directory;
    const log = this.log();
    const bus = new Bus({ log });
    serve.ready = () => void bus.serveReady(0);
    this.bus = bus;
    this.device = new FixtureDevice(variant);
    this.server = new FunctionServer(this.device, this.socketPath, {
      log,
      watcher: bus,
      serveBus: (timeoutMs) => bus.serveReady(timeoutMs),
      ...options,
    });
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

  override close(): void {
    super.close();
    this.server.close();
    this.device.close();
    this.bus.close();
    rmSync(this.#directory, { recursive: true });
  }
}
