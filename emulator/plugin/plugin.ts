/** A plugin as data: its name, its options, and the factory of its functions. */
import type { z } from 'zod';
import type { Log } from '../ambient/log.js';
import type { MemoryRegion } from '../memory/region.js';
import type { Benchmark } from './bench.js';
import { type PluginStamp, stamped } from './brand.js';
import { BUILT_IN_COMMANDS, type Commands } from './command.js';
import type { FunctionModel, PcieFunction } from './function.js';
import type { PluginGuest } from './guest.js';
import type { PluginMatrix } from './matrix.js';

/** What `create` gets beside the options. */
export interface CreateContext {
  /** The name the function will carry, for example `gpu0`; several functions of one instance add their `nameSuffix`. */
  readonly name: string;
  /**
   * 0-based position of this instance among all instances of the plugin; for serial numbers, GUIDs and MAC addresses.
   */
  readonly instance: number;
  readonly log: Log;
  /** A zero-filled, sparse, memfd-backed memory. It costs nothing until touched. */
  createMemory(name: string, sizeBytes: number): MemoryRegion;
  /**
   * The one object that all functions of this emulator share under `key`, made by whoever asks first: the switch
   * between network adapters, for example. Begin `key` with the plugin's name.
   */
  machineService<Service>(key: string, create: () => Service): Service;
}

/** What `create` returns: one card, or several that make one device. */
export type Cards<Model extends FunctionModel = FunctionModel> = PcieFunction<Model> | readonly PcieFunction<Model>[];

/** The model that such cards make. */
export type ModelOf<Created extends Cards> = Created extends Cards<infer Model> ? Model : never;

/**
 * A plugin: a name, options with a schema, and a factory of functions. `Created` is what its own `create` returns: a
 * test that gets one card need not ask whether there are several.
 */
export interface Plugin<
  Options = unknown,
  Model extends FunctionModel = FunctionModel,
  Created extends Cards<Model> = Cards<Model>,
> {
  readonly name: string;
  /** One line for `ghostbus devices`. */
  readonly description: string;
  /**
   * A zod object schema; every key described, every key optional or with a default. Values arrive as strings from
   * `name,key=value,…` (use `z.coerce`, or `byteSize()` of `ghostbus` for sizes such as `16G`). Parsed options are
   * plain data: the bus thread gets a copy. An option `pcap` is the path of a file that gets every packet; `--pcap
   * FILE` sets it for all devices with one.
   */
  readonly options: z.ZodType<Options>;
  create(options: Options, context: CreateContext): Created;
  /** What it brings into a guest. */
  readonly guest?: PluginGuest<Options>;
  /** What tests and people may ask of each of its functions; see `ghostbus ctl`. */
  readonly commands?: Commands<Model>;
  /** What it brings to `ghostbus matrix`. */
  readonly matrix?: PluginMatrix;
  /** What `npm run bench -- --guest` measures of it. */
  readonly bench?: readonly Benchmark[];
}

const NAME = /^[a-z][a-z0-9-]*$/;

/** A plugin as the loader takes it: made by {@link definePlugin}, for a version of this API. */
export type DefinedPlugin<
  Options = unknown,
  Model extends FunctionModel = FunctionModel,
  Created extends Cards<Model> = Cards<Model>,
> = Plugin<Options, Model, Created> & PluginStamp;

/**
 * Declares a plugin: checks and types its argument, which is plain data and functions, and stamps it with the version
 * of this API.
 */
export function definePlugin<Options, Created extends Cards>(
  plugin: Plugin<Options, ModelOf<Created>, Created & Cards<ModelOf<Created>>>,
): DefinedPlugin<Options, ModelOf<Created>, Created & Cards<ModelOf<Created>>> {
  if (typeof plugin.name !== 'string' || !NAME.test(plugin.name)) {
    throw new Error(`plugin name ${JSON.stringify(plugin.name)} must be lower-case letters, digits and dashes`);
  }
  for (const name of Object.keys(plugin.commands ?? {})) {
    if (!NAME.test(name) || BUILT_IN_COMMANDS.includes(name)) {
      throw new Error(
        `plugin ${plugin.name}: command ${JSON.stringify(name)} must be lower-case letters, digits and dashes, ` +
          `and none of ${BUILT_IN_COMMANDS.join(', ')}`,
      );
    }
  }
  return stamped(plugin);
}
