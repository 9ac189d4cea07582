/** What is measured in guests, and of which device. */
import { type DeviceSpec, parseDeviceSpec } from '../emulator/device-spec.js';
import { BUILT_IN_PLUGINS, type LoadedPlugin, loadPlugin } from '../emulator/find-plugin.js';
import type { Benchmark } from '../emulator/plugin/index.js';

export interface Measured {
  readonly loaded: LoadedPlugin;
  /** The device as it was asked for. The benchmark has options beside its. */
  readonly asked: DeviceSpec;
  readonly benchmark: Benchmark;
}

/** Where relative paths begin: `npm run` goes to the package's folder, and says where it was called. */
export function callersFolder(environment: NodeJS.ProcessEnv = process.env): string {
  return environment.INIT_CWD ?? process.cwd();
}

/** What our devices measure of themselves, and those of `texts`, which are looked for from `folder`. */
export async function measuredDevices(texts: readonly string[], folder: string): Promise<Measured[]> {
  const specs = [...BUILT_IN_PLUGINS.map((plugin) => ({ plugin, options: {} })), ...texts.map(parseDeviceSpec)];
  const measured = await Promise.all(
    specs.map(async (asked) => {
      const loaded = await loadPlugin(asked.plugin, folder);
      return (loaded.plugin.bench ?? []).map((benchmark) => ({ loaded, asked, benchmark }));
    }),
  );
  return measured.flat();
}
