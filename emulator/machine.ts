import type { Log } from './ambient/log.js';
import type { Bus } from './bus.js';
import { EmulatedFunction, type FunctionObserver } from './function.js';
import { Fabric, type PeerRouting } from './memory/fabric.js';
import { type BackedMemoryRegion, createMemoryRegion } from './memory/region.js';
import { memoryOffsetOf } from './pci/bar-parts.js';
import type { Commands } from './plugin/command.js';
import type { PcieFunction } from './plugin/function.js';
import type { CreateContext } from './plugin/plugin.js';

/** What a function is put on the bus with. */
export interface FunctionSettings {
  readonly log: Log;
  /** Those of its plugin. */
  readonly commands?: Commands | undefined;
  readonly observer?: FunctionObserver;
}

/** Every function of one emulator, and what they share: the bus runs them, the fabric connects them. */
export class Machine {
  readonly bus: Bus;
  readonly #fabric: Fabric;
  readonly #functions = new Map<string, EmulatedFunction>();
  readonly #memories: BackedMemoryRegion[] = [];
  readonly #services = new Map<string, unknown>();

  constructor(bus: Bus, peerRouting: PeerRouting) {
    this.bus = bus;
    this.#fabric = new Fabric({
      peerRouting,
      schedule: ({ name }, work) =>
        bus.postPeerWrite(() => {
          bus.attribute(name);
          work();
        }),
    });
  }

  get functions(): readonly EmulatedFunction[] {
    return [...this.#functions.values()];
  }

  /** What a plugin's `create` gets for the instance `name`. Memory lives as long as the machine. */
  context<Logger extends Log>(name: string, instance: number, log: Logger): CreateContext & { readonly log: Logger } {
    return {
      name,
      instance,
      log,
      createMemory: (memoryName, sizeBytes) => {
        const memory = createMemoryRegion(`${name}.${memoryName}`, sizeBytes);
        this.#memories.push(memory);
        return memory;
      },
      machineService: <Service>(key: string, create: () => Service) => {
        if (!this.#services.has(key)) this.#services.set(key, create());
        return this.#services.get(key) as Service;
      },
    };
  }

  /** Puts a function on the bus. Throws when there is one of that name, or the card or its model is wrong. */
  add(name: string, card: PcieFunction, { log, commands, observer }: FunctionSettings): EmulatedFunction {
    if (this.#functions.has(name)) throw new Error(`there are two functions called ${name}`);
    const emulated = new EmulatedFunction(name, card, {
      bus: this.bus,
      fabric: this.#fabric,
      log,
      sibling: (other) => this.#functions.get(other)?.card,
      ...(commands && { commands }),
      ...(observer && { observer }),
    });
    this.#functions.set(name, emulated);
    return emulated;
  }

  /** Throws an Error that lists the functions when there is none of this name. */
  find(name: string): EmulatedFunction {
    const emulated = this.#functions.get(name);
    if (emulated === undefined) {
      throw new Error(
        `there is no function ${JSON.stringify(name)}; there are ${[...this.#functions.keys()].join(', ')}`,
      );
    }
    return emulated;
  }

  resetCounters(): void {
    this.#fabric.resetCounters();
  }

  /** Reads the memory behind a BAR. Throws where the BAR does not exist or traps. */
  readBar(functionName: string, bar: number, offset: number, lengthBytes: number): Uint8Array {
    const part = this.find(functionName)
      .memoryParts(bar)
      .find(({ offset: start, sizeBytes }) => offset >= start && offset + lengthBytes <= start + sizeBytes);
    if (part === undefined) {
      throw new Error(`BAR${bar} of ${functionName} has no memory at 0x${offset.toString(16)}, ${lengthBytes} bytes`);
    }
    const bytes = new Uint8Array(lengthBytes);
    part.memory.read(memoryOffsetOf(part) + offset - part.offset, bytes);
    return bytes;
  }

  close(): void {
    for (const emulated of this.#functions.values()) emulated.close();
    this.#functions.clear();
    for (const memory of this.#memories) memory.close();
  }
}
