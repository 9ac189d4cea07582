/** What the devices of a session bring into its guest, gathered from the data of their plugins. */
import { isAbsolute } from 'node:path';
import { BUILT_IN_PLUGINS, loadPlugin } from '../emulator/find-plugin.js';
import type { GuestFile, GuestKernel, GuestModule, Plugin } from '../emulator/plugin/index.js';
import { type ModuleToLoad, mergePackages } from '../qemu/index.js';

/** A device with its options as its plugin parsed them. */
export interface GuestDevice {
  readonly plugin: Plugin;
  readonly options: unknown;
}

/** Folders of the devices' C programs, each once. */
export function guestPrograms(devices: readonly GuestDevice[]): string[] {
  return [...new Set(devices.flatMap(({ plugin }) => plugin.guest?.programs ?? []))];
}

/** Kernel modules that the devices bring for a kernel, each once. */
export function guestModules(devices: readonly GuestDevice[], kernel: GuestKernel): GuestModule[] {
  const modules = new Map<string, GuestModule>();
  for (const { plugin } of devices) {
    for (const module of plugin.guest?.modules?.(kernel) ?? []) modules.set(module.folder, module);
  }
  return [...modules.values()];
}

/**
 * Files of the devices, each once, and their modules' options as configuration of modprobe.
 * @throws Error when a file has no absolute path or no bytes, and when two devices want different contents of one file,
 *   or different values of one module's parameter
 */
export function guestFiles(devices: readonly GuestDevice[]): GuestFile[] {
  const files = new Map<string, { readonly file: GuestFile; readonly plugin: string }>();
  for (const { plugin, options } of devices) {
    for (const file of plugin.guest?.files?.(options) ?? []) {
      checkFile(plugin.name, file);
      const other = files.get(file.path);
      if (other !== undefined && Buffer.compare(other.file.contents, file.contents) !== 0) {
        throw new Error(
          `${other.plugin} and ${plugin.name} bring different contents of ${file.path} into the guest: ` +
            'use one of them in a guest',
        );
      }
      files.set(file.path, { file, plugin: plugin.name });
    }
  }
  return [...[...files.values()].map(({ file }) => file), ...modprobeFiles(devices)];
}

/** JavaScript may give anything. */
function checkFile(plugin: string, { path, contents }: GuestFile): void {
  if (typeof path !== 'string' || !isAbsolute(path)) {
    throw new Error(`${plugin} brings a file ${JSON.stringify(path)} into the guest: its path must be absolute`);
  }
  if (!(contents instanceof Uint8Array)) {
    throw new Error(
      `${plugin} brings ${path} into the guest with contents that are a ${typeof contents}: give bytes, ` +
        'for text Buffer.from(text)',
    );
  }
}

/**
 * Drivers that a guest with the devices has loaded before it has the devices, with the parameters that these want.
 * Those of the plugins that ship with the program are always among them, so that ordinary guests are restored from one
 * machine.
 */
export async function guestDrivers(devices: readonly GuestDevice[]): Promise<ModuleToLoad[]> {
  const ours = await Promise.all(BUILT_IN_PLUGINS.map((name) => loadPlugin(name)));
  const names = [...ours, ...devices].flatMap(({ plugin }) => plugin.guest?.drivers ?? []);
  const parameters = moduleParameters(devices);
  return [...new Set(names)].map((name) => [name, ...(parameters.get(name)?.values() ?? [])]);
}

/** One file of modprobe.d(5) for each module that has options: modprobe and udev load it with them. */
function modprobeFiles(devices: readonly GuestDevice[]): GuestFile[] {
  return [...moduleParameters(devices)].map(([module, words]) => ({
    path: `/etc/modprobe.d/ghostbus-${module}.conf`,
    contents: Buffer.from(`# For the emulated functions.\noptions ${[module, ...words.values()].join(' ')}\n`),
  }));
}

/** Words for each module, by the parameter's name. */
function moduleParameters(devices: readonly GuestDevice[]): Map<string, Map<string, string>> {
  const parameters = new Map<string, Map<string, string>>();
  for (const { plugin, options } of devices) {
    for (const [module, text] of Object.entries(plugin.guest?.moduleOptions?.(options) ?? {})) {
      const known = parameters.get(module) ?? new Map<string, string>();
      parameters.set(module, known);
      for (const word of text.split(/\s+/).filter(Boolean)) {
        const [name = ''] = word.split('=');
        const other = known.get(name);
        if (other !== undefined && other !== word) {
          throw new Error(
            `${plugin.name} wants module ${module} with ${word}, another device with ${other}: ` +
              'one guest has one of them',
          );
        }
        known.set(name, word);
      }
    }
  }
  return parameters;
}

/** Debian packages: in the guest's user space, and where its programs are compiled. */
export interface GuestPackages {
  readonly packages: readonly string[];
  readonly buildPackages: readonly string[];
}

/**
 * Packages for a guest with the devices. Those of the plugins that ship with the program are always among them, so that
 * ordinary guests share one user space and one compiler, which take minutes to make.
 */
export async function guestPackages(
  devices: readonly GuestDevice[],
  furtherPackages: readonly string[] = [],
): Promise<GuestPackages> {
  const ours = await Promise.all(BUILT_IN_PLUGINS.map((name) => loadPlugin(name)));
  const plugins = [...ours, ...devices].map(({ plugin }) => plugin);
  const merged = (lists: readonly (readonly string[])[]) =>
    lists.reduce<readonly string[]>((all, names) => mergePackages(all, names), []);
  return {
    packages: merged([...plugins.map(({ guest }) => guest?.packages ?? []), furtherPackages]),
    buildPackages: merged(plugins.map(({ guest }) => guest?.buildPackages ?? [])),
  };
}
