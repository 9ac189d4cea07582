/** A plugin as data: its name, its options, and the factory of its functions. */
import type { z } from 'zod';
import type { Log } from '../ambient/log.js';
import type { MemoryRegion } from '../memory/region.js';
import type { Benchmark } from './bench.js';
import type { FunctionModel, PcieFunction } from './function.js';
import type { LegacyFunction } from './legacy.js';
import type { PluginMatrix } from './matrix.js';

/** What `create` gets beside the options. */
export interface CreateContext {
  /** The name the function will carry, for example `gpu0`; several functions of one instance add their `nameSuffix`. */
  readonly name: string;
  /** 0-based position of this instance among all instances of the plugin; for serial numbers, GUIDs and MAC addresses. */
  readonly instance: number;
  readonly log: Log;
  /** A zero-filled, sparse, memfd-backed memory. It costs nothing until touched. */
  createMemory(name: string, sizeBytes: number): MemoryRegion;
  /**
   * The one object that all functions of this emulator share under `key`, made by whoever asks first: the switch between
   * network adapters, for example. Begin `key` with the plugin's name.
   */
  machineService<Service>(key: string, create: () => Service): Service;
}

/** A file that the guest needs so that the stock driver accepts the function: a firmware stub, a configuration snippet. */
export interface GuestFile {
  /** Absolute path in the guest. */
  readonly path: string;
  readonly contents: Uint8Array;
  readonly mode?: number;
}

/** A plugin: a name, options with a schema, and a factory of functions. */
export interface Plugin<Options = unknown, Model extends FunctionModel = FunctionModel> {
  readonly name: string;
  /** One line for `ghostbus devices`. */
  readonly description: string;
  /**
   * A zod object schema; every key described, every key optional or with a default. Values arrive as strings from
   * `name,key=value,…` (use `z.coerce`, or `byteSize()` of `./options.js` for sizes such as `16G`).
   */
  readonly options: z.ZodType<Options>;
  create(options: Options, context: CreateContext): CreatedFunction<Model> | readonly CreatedFunction<Model>[];
  /** Files that every guest with this device needs. */
  guestFiles?(options: Options): readonly GuestFile[];
  /** Guest kernel modules that drive it; shown by `ghostbus devices`. */
  readonly drivers?: readonly string[];
  /** What it brings to `ghostbus matrix`. */
  readonly matrix?: PluginMatrix;
  /** What `npm run bench -- --guest` measures of it. */
  readonly bench?: readonly Benchmark[];
}

/** Until the last device makes its model by {@link PcieFunction.powerOn}. */
export type CreatedFunction<Model extends FunctionModel = FunctionModel> = PcieFunction<Model> | LegacyFunction;

/** Declares a plugin. It only checks and types its argument: a plugin is plain data and functions. */
export function definePlugin<Options, Model extends FunctionModel>(
  plugin: Plugin<Options, Model>,
): Plugin<Options, Model> {
  if (!/^[a-z][a-z0-9-]*$/.test(plugin.name)) {
    throw new Error(`plugin name ${JSON.stringify(plugin.name)} must be lower-case letters, digits and dashes`);
  }
  return plugin;
}
