/** Who takes part: the devices of every machine, and all that exports and imports in it. */
import { type DeviceSpec, type ResolvedDevice, resolveOptions } from '../emulator/device-spec.js';
import { BUILT_IN_PLUGINS, type LoadedPlugin, loadPlugin } from '../emulator/find-plugin.js';
import type { Exporter, Importer, MatrixDriver } from '../emulator/plugin/index.js';
import { guestMemoryExporters } from './guest-memory.js';

export interface MatrixCatalogue {
  /** Loaded and with their options parsed, for every machine. The order gives the functions' names. */
  readonly devices: readonly ResolvedDevice[];
  /** Names of the plugins whose own drivers stay out of the guest. */
  readonly withoutOwnDriver: readonly string[];
  /** In the order of rows. */
  readonly exporters: readonly Exporter[];
  /** In the order of the rows of one exporter. */
  readonly importers: readonly Importer[];
}

/** A plugin that takes part. */
export interface Participant extends LoadedPlugin {
  /** As it was asked for. Its options go to each instance. */
  readonly asked: DeviceSpec;
}

/**
 * The devices that ship with the program, then `added`, whose options go to each of their instances.
 * @throws Error when one cannot be loaded, refuses its options or brings nothing to the matrix, or two take one name
 */
export async function loadCatalogue(added: readonly DeviceSpec[] = []): Promise<MatrixCatalogue> {
  const load = async (asked: DeviceSpec) => ({ ...(await loadPlugin(asked.plugin)), asked });
  const ours = await Promise.all(BUILT_IN_PLUGINS.map((plugin) => load({ plugin, options: {} })));
  const others = await Promise.all(added.map(load));
  const partakers = ours.filter(({ plugin }) => plugin.matrix !== undefined);
  // Devices that the matrix drives by other drivers than their own come after the rest.
  return catalogueOf([
    ...partakers.filter(hasOwnDriver),
    ...partakers.filter((each) => !hasOwnDriver(each)),
    ...others,
  ]);
}

function hasOwnDriver({ plugin }: Participant): boolean {
  return plugin.matrix?.ownDriver !== false;
}

function devicesOf({ asked, ...loaded }: Participant): ResolvedDevice[] {
  const { instances = [] } = loaded.plugin.matrix ?? {};
  return instances.map((options) => resolveOptions(loaded, { ...options, ...asked.options }, asked.plugin));
}

/** @throws Error when one brings nothing to the matrix or refuses its options, or two take one name */
export function catalogueOf(participants: readonly Participant[]): MatrixCatalogue {
  const contributions = participants.map(({ plugin }) => {
    if (plugin.matrix === undefined) {
      throw new Error(`the plugin ${plugin.name} has no part in the matrix: it declares no "matrix"`);
    }
    return { plugin: plugin.name, ...plugin.matrix };
  });
  const exporters = contributions.flatMap((each) => each.exporters ?? []);
  const catalogue = {
    withoutOwnDriver: contributions.flatMap(({ plugin, ownDriver = true }) => (ownDriver ? [] : [plugin])),
    exporters: [...exporters, ...guestMemoryExporters].sort((one, other) => rank(one) - rank(other)),
    importers: contributions.flatMap((each) => each.importers ?? []),
  };
  checkNames(
    'plugins',
    contributions.map(({ plugin }) => plugin),
  );
  checkNames(
    'exporters',
    catalogue.exporters.map(({ name }) => name),
  );
  checkNames(
    'importers',
    catalogue.importers.map(({ name }) => name),
  );
  return { ...catalogue, devices: participants.flatMap(devicesOf) };
}

/** Memory of functions, their doorbells, the guest's memory. */
function rank({ functionName, doorbell }: Exporter): number {
  if (functionName === undefined) return 2;
  return doorbell === undefined ? 0 : 1;
}

/** They are parts of cells' names, and stand with commas between in options. */
function checkNames(what: string, names: readonly string[]): void {
  const odd = names.find((name) => !/^[a-z0-9-]+$/.test(name));
  if (odd !== undefined) {
    throw new Error(
      `one of the matrix's ${what} is called ${JSON.stringify(odd)}: use lower-case letters, digits, dashes`,
    );
  }
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`two of the matrix's ${what} are called ${twice}: give one another name`);
}

/** Everything of the kernel that exporters and importers stand on, each once, in the order in which it is set up. */
export function driversOf({ exporters, importers }: Pick<MatrixCatalogue, 'exporters' | 'importers'>): MatrixDriver[] {
  return [...new Set([...exporters, ...importers].map(({ driver }) => driver))];
}
