import type { Log } from './ambient/log.js';
import type { Bus } from './bus.js';
import type { FunctionState } from './bus-messages.js';
import { EmulatedFunction } from './function.js';
import { Fabric, type PeerRouting } from './memory/fabric.js';
import { type BackedMemoryRegion, createMemoryRegion } from './memory/region.js';
import { memoryOffsetOf } from './pci/bar-parts.js';
import type { PcieFunction } from './plugin/function.js';
import { asPcieFunction, unwrapLegacy } from './plugin/legacy.js';
import type { CreatedFunction } from './plugin/plugin.js';
import { type AnsweringGate, FunctionServer } from './vfio-user/server.js';

interface Served {
  readonly emulated: EmulatedFunction;
  readonly server: FunctionServer;
}

/** Every function of one emulator: the bus runs them, the fabric connects them, one server each faces QEMU. */
export class Machine {
  readonly #bus: Bus;
  readonly #fabric: Fabric;
  readonly #gate: AnsweringGate = { depth: 0 };
  readonly #functions = new Map<string, Served>();
  readonly #memories: BackedMemoryRegion[] = [];
  readonly #services = new Map<string, unknown>();

  constructor(bus: Bus, peerRouting: PeerRouting) {
    this.#bus = bus;
    this.#fabric = new Fabric({
      peerRouting,
      schedule: (_member, work) => bus.postPeerWrite(work),
    });
  }

  /** A memory region that lives as long as the machine. */
  createMemory(name: string, sizeBytes: number): BackedMemoryRegion {
    const memory = createMemoryRegion(name, sizeBytes);
    this.#memories.push(memory);
    return memory;
  }

  /** The object that all functions of the machine share under `key`; the first one who asks makes it. */
  service<Service>(key: string, create: () => Service): Service {
    if (!this.#services.has(key)) this.#services.set(key, create());
    return this.#services.get(key) as Service;
  }

  /** Puts a function on the bus and serves it on a socket. Throws when the socket cannot be made or the model is wrong. */
  add(name: string, created: CreatedFunction, socketPath: string, log: Log): EmulatedFunction {
    if (this.#functions.has(name)) throw new Error(`there are two functions called ${name}`);
    const emulated = new EmulatedFunction(name, asPcieFunction(created), {
      bus: this.#bus,
      fabric: this.#fabric,
      log,
      sibling: (other) => this.#sibling(other),
    });
    const server = new FunctionServer(emulated, socketPath, {
      log,
      watcher: this.#bus,
      gate: this.#gate,
      serveBus: (timeoutMs) => this.#bus.serveReady(timeoutMs),
    });
    this.#functions.set(name, { emulated, server });
    return emulated;
  }

  control(functionName: string, command: string, args: Readonly<Record<string, unknown>>): unknown {
    return this.#find(functionName).emulated.control(command, args);
  }

  state(functionName?: string): FunctionState[] {
    const served = functionName === undefined ? [...this.#functions.values()] : [this.#find(functionName)];
    return served.map(({ emulated, server }) => ({
      name: emulated.name,
      connected: server.statistics().connected,
      ...(emulated.broken !== undefined && { broken: emulated.broken }),
      counters: structuredClone(emulated.counters),
      barAddresses: Object.fromEntries(
        emulated.card.bars.flatMap((bar) => {
          const address = emulated.barAddress(bar.index);
          return address === undefined ? [] : [[bar.index, address]];
        }),
      ),
      server: server.statistics(),
      model: emulated.inspect() ?? null,
    }));
  }

  resetCounters(): void {
    this.#fabric.resetCounters();
  }

  /** Reads the memory behind a BAR. Throws where the BAR does not exist or traps. */
  readBar(functionName: string, bar: number, offset: number, lengthBytes: number): Uint8Array {
    const part = this.#find(functionName)
      .emulated.memoryParts(bar)
      .find(({ offset: start, sizeBytes }) => offset >= start && offset + lengthBytes <= start + sizeBytes);
    if (part === undefined) {
      throw new Error(`BAR${bar} of ${functionName} has no memory at 0x${offset.toString(16)}, ${lengthBytes} bytes`);
    }
    const bytes = new Uint8Array(lengthBytes);
    part.memory.read(memoryOffsetOf(part) + offset - part.offset, bytes);
    return bytes;
  }

  close(): void {
    for (const { emulated, server } of this.#functions.values()) {
      server.close();
      emulated.close();
    }
    this.#functions.clear();
    for (const memory of this.#memories) memory.close();
  }

  #sibling(name: string): PcieFunction | undefined {
    const served = this.#functions.get(name);
    return served && unwrapLegacy(served.emulated.card);
  }

  #find(name: string): Served {
    const served = this.#functions.get(name);
    if (served === undefined) {
      throw new Error(
        `there is no function ${JSON.stringify(name)}; there are ${[...this.#functions.keys()].join(', ')}`,
      );
    }
    return served;
  }
}
