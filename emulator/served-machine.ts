import type { EmulatedFunction } from './function.js';
import type { FunctionState } from './function-state.js';
import type { FunctionSettings, Machine } from './machine.js';
import type { PcieFunction } from './plugin/function.js';
import { type AnsweringGate, FunctionServer } from './vfio-user/server.js';

/** What a function is served with. */
export interface ServedFunctionSettings extends Omit<FunctionSettings, 'observer'> {
  readonly socketPath: string;
}

/** The functions of a machine with the sockets on which QEMU finds them. */
export class ServedMachine {
  readonly machine: Machine;
  readonly #gate: AnsweringGate = { depth: 0 };
  readonly #servers = new Map<string, FunctionServer>();

  constructor(machine: Machine) {
    this.machine = machine;
  }

  /**
   * Puts a function on the bus and serves it on a socket. Throws when the socket cannot be made or the model is wrong.
   */
  add(name: string, card: PcieFunction, { socketPath, log, commands }: ServedFunctionSettings): void {
    const { bus } = this.machine;
    const server = new FunctionServer(this.machine.add(name, card, { log, commands }), socketPath, {
      log,
      watcher: {
        watch: (fd, onReady, interest) =>
          bus.watch(
            fd,
            () => {
              bus.attribute(name);
              onReady();
            },
            interest,
          ),
        unwatch: (fd) => bus.unwatch(fd),
      },
      gate: this.#gate,
      serveBus: (timeoutMs) => bus.serveReady(timeoutMs),
    });
    this.#servers.set(name, server);
  }

  state(functionName?: string): FunctionState[] {
    const functions = functionName === undefined ? this.machine.functions : [this.machine.find(functionName)];
    return functions.map((emulated) => this.#stateOf(emulated));
  }

  close(): void {
    for (const server of this.#servers.values()) server.close();
    this.machine.close();
  }

  #stateOf(emulated: EmulatedFunction): FunctionState {
    const server = this.#servers.get(emulated.name)!.statistics();
    return {
      name: emulated.name,
      connected: server.connected,
      ...(emulated.broken !== undefined && { broken: emulated.broken }),
      counters: structuredClone(emulated.counters),
      barAddresses: Object.fromEntries(
        emulated.card.bars.flatMap((bar) => {
          const address = emulated.barAddress(bar.index);
          return address === undefined ? [] : [[bar.index, address]];
        }),
      ),
      server,
      model: emulated.inspect() ?? null,
    };
  }
}
