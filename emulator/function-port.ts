/** The port of one model: what it may ask of the machine, until it is thrown away. */

import type { Clock } from './ambient/clock.js';
import type { Log } from './ambient/log.js';
import type { Bus } from './bus.js';
import type { FabricPort } from './memory/fabric.js';
import { FunctionDma } from './memory/function-dma.js';
import type { FunctionPort, PcieFunction, PrivateLink } from './plugin/function.js';

/** The function as its port reaches it. */
export interface PortHost {
  readonly name: string;
  readonly log: Log;
  readonly bus: Bus;
  readonly fabricPort: FabricPort;
  readonly busMasterEnabled: boolean;
  /** Throws RangeError when there is no such vector. */
  interrupt(vector: number): void;
  sibling(name: string): PcieFunction | undefined;
  /** Runs code of the model that has `port`; a fault of it stays in the function. */
  guard(port: ModelPort, run: () => void, what: string): void;
  restart(port: ModelPort): void;
  vanish(port: ModelPort): void;
}

/**
 * `running`: the model is in service. `halted`: it broke or left the bus, so no work of it runs, but it can
 * still be looked at. `closed`: it was thrown away.
 */
type PortState = 'running' | 'halted' | 'closed';

export class ModelPort implements FunctionPort {
  readonly name: string;
  readonly log: Log;
  readonly clock: Clock;
  readonly dma: FunctionDma;
  readonly #host: PortHost;
  #state: PortState = 'running';

  constructor(host: PortHost) {
    this.#host = host;
    this.name = host.name;
    this.log = host.log;
    this.dma = new FunctionDma(host.fabricPort);
    this.clock = {
      nowNs: host.bus.clock.nowNs,
      after: (delayMs, callback) =>
        host.bus.clock.after(delayMs, () => {
          if (this.#state === 'running') host.guard(this, callback, 'a timer');
        }),
    };
  }

  get isClosed(): boolean {
    return this.#state === 'closed';
  }

  get busMasterEnabled(): boolean {
    return this.#state !== 'closed' && this.#host.busMasterEnabled;
  }

  /** Posted work and timers are dropped, and what is posted later as well. */
  halt(): void {
    if (this.#state === 'running') this.#state = 'halted';
  }

  /** The model is thrown away, for `reason`. */
  close(reason: string): void {
    this.#state = 'closed';
    this.dma.close(reason);
  }

  interrupt(vector: number): void {
    if (this.#state === 'running') this.#host.interrupt(vector);
  }

  post(work: () => void): void {
    if (this.#state !== 'running') return;
    this.#host.bus.post(
      () => this.#host.guard(this, work, 'posted work'),
      () => this.#state === 'running',
    );
  }

  sibling(name: string): PcieFunction | undefined {
    return this.#host.sibling(name);
  }

  restart(): void {
    if (this.#state === 'running') this.#host.restart(this);
  }

  vanish(): void {
    if (this.#state !== 'closed') this.#host.vanish(this);
  }

  link(name: string): PrivateLink | undefined {
    const memory = this.#host.sibling(name)?.linkMemory;
    const count: PrivateLink['count'] = (direction, bytes) => this.#host.fabricPort.countLink(name, direction, bytes);
    return memory && { memory, count };
  }
}
