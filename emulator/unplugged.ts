/** Functions that are on no bus: made to be looked at. */
import type { Log } from './ambient/log.js';
import { createFunctions } from './create-functions.js';
import { parseOptions } from './device-spec.js';
import { type BackedMemoryRegion, createMemoryRegion } from './memory/region.js';
import type { CreateContext, PcieFunction, Plugin } from './plugin/index.js';

const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** Makes the plugin's functions with its default options and gives them to `use`; their memory goes afterwards. */
export function withUnplugged<T>(plugin: Plugin, use: (functions: readonly PcieFunction[]) => T): T {
  const regions: BackedMemoryRegion[] = [];
  try {
    const context: CreateContext = {
      name: `${plugin.name}0`,
      instance: 0,
      log: silent,
      createMemory: (name, sizeBytes) => {
        const region = createMemoryRegion(name, sizeBytes);
        regions.push(region);
        return region;
      },
      machineService: (_key, create) => create(),
    };
    return use(createFunctions(plugin, parseOptions(plugin, {}), context));
  } finally {
    for (const region of regions) region.close();
  }
}
