/** The options that `run`, `shell` and `serve` share, and what they mean. */
import { statSync } from 'node:fs';
import { join, parse, resolve } from 'node:path';
import type { ArgumentsCamelCase, Argv } from 'yargs';
import { type Accelerator, isDebianKernel, type Topology, topologies } from '../../qemu/index.js';
import { UsageError } from '../../session/exit-status.js';
import { createLog, type LogLevel, logLevels } from '../../session/log.js';
import type { EmulatorSettings, GuestSettings, MachineSettings } from '../../session/settings.js';
import { writableFile } from '../../session/writable-file.js';
import { parseDeviceSpec, type ResolvedDevice, resolveOptions } from '../device-spec.js';
import { type EmulatorLog, SPIN_US } from '../emulator.js';
import { BUILT_IN_PLUGINS, type LoadedPlugin, loadPlugin } from '../find-plugin.js';
import { parseByteSize } from '../plugin/options.js';
import { describeOptions } from './describe-plugin.js';

const MIB = 2 ** 20;
/** Less than this and Debian's kernel does not reach user space. */
const SMALLEST_GUEST_BYTES = 384 * MIB;
/** Of x86's default size (Linux Documentation/admin-guide/mm/hugetlbpage.rst). */
const HUGE_PAGE_BYTES = 2 * MIB;

/** `--device`, with what becomes of the devices here. */
export function deviceOption(description: string) {
  return {
    alias: 'd',
    type: 'string',
    array: true,
    requiresArg: true,
    default: [] as string[],
    defaultDescription: 'none',
    description,
  } as const;
}

/** Of all that starts guests. */
export const coldOption = {
  type: 'boolean',
  default: false,
  description: 'Boot, with all functions there from the start, instead of restoring a machine that was booted once',
} as const;

/** Options about the emulator itself. */
export function emulatorOptions<T>(yargs: Argv<T>) {
  return yargs.options({
    device: deviceOption(
      'Function to attach: name[,key=value…]; may be repeated. `ghostbus devices` lists names and keys',
    ),
    spin: {
      type: 'boolean',
      description:
        'Let the bus thread look for requests a little longer before it sleeps; default: where at least 4 cores exist',
    },
    pcap: {
      type: 'string',
      requiresArg: true,
      description: 'Record in this file what functions with a network send each other, as Ethernet frames',
    },
    'log-level': { choices: logLevels, default: 'warn' as LogLevel, description: 'What to tell on stderr' },
    'log-json': { type: 'boolean', default: false, description: 'Write log records as JSON lines' },
    verbose: { alias: 'v', type: 'boolean', default: false, description: 'Short for --log-level debug' },
  } as const);
}

/** Options about how the functions hang below the root complex. */
export function machineOptions<T>(yargs: Argv<T>) {
  return yargs.options({
    topology: {
      choices: topologies,
      default: 'root-ports' as Topology,
      description: 'Each function below its own root port, or all below one switch (without or with ACS redirection)',
    },
    viommu: { type: 'boolean', default: false, description: 'Put an Intel IOMMU in front of everything (slow)' },
    mem: { type: 'string', requiresArg: true, default: '2G', description: "The guest's memory" },
  } as const);
}

/** Options about the guest that ghostbus boots itself. */
export function guestOptions<T>(yargs: Argv<T>) {
  return machineOptions(yargs).options({
    kernel: {
      alias: 'k',
      type: 'string',
      requiresArg: true,
      default: 'latest',
      description:
        'lts (Debian 13: 6.12), latest (its backports: 7.x), or the path of a bzImage or build folder of yours',
    },
    cpu: { type: 'string', requiresArg: true, description: "QEMU's CPU model; default EPYC, or host under KVM" },
    smp: { type: 'number', requiresArg: true, default: 2, description: 'Virtual CPUs' },
    hugepages: {
      type: 'number',
      requiresArg: true,
      default: 0,
      description: "Huge pages of 2 MiB that the guest's kernel sets aside at boot; /dev/hugepages gives them out",
    },
    accel: { choices: ['auto', 'kvm', 'tcg'], default: 'auto' as Accelerator, description: 'Accelerator' },
    package: {
      alias: 'p',
      type: 'string',
      array: true,
      requiresArg: true,
      default: [] as string[],
      defaultDescription: 'none',
      description: 'Debian package to add to the guest, NAME or NAME/SUITE; may be repeated',
    },
    module: {
      type: 'string',
      array: true,
      requiresArg: true,
      default: [] as string[],
      defaultDescription: 'none',
      description: "Folder with a Kbuild file: a driver of yours, built against the guest's kernel; may be repeated",
    },
    workarounds: {
      type: 'boolean',
      default: true,
      description: 'Load small modules of ours around known defects of stock drivers (docs/upstream); --no-workarounds',
    },
    'allow-unbound': {
      type: 'boolean',
      default: false,
      description: 'Go on when a driver in the guest has not taken the function that it is for',
    },
    cold: coldOption,
    share: { type: 'string', requiresArg: true, description: 'Host folder shown at /mnt/share in the guest, writable' },
    'console-log': { type: 'string', requiresArg: true, description: "Write the guest's whole console to this file" },
  } as const);
}

type Options<F extends (yargs: Argv<object>) => Argv<unknown>> =
  ReturnType<F> extends Argv<infer T> ? ArgumentsCamelCase<T> : never;
export type EmulatorArguments = Options<typeof emulatorOptions>;
export type MachineArguments = Options<typeof machineOptions>;
export type GuestArguments = Options<typeof guestOptions>;

/** Loads the devices' plugins and checks their options. @throws UsageError */
export async function emulatorSettings(args: EmulatorArguments): Promise<EmulatorSettings> {
  const devices = await usage(() => chosenDevices(args.device, args.pcap));
  return { devices, spinUs: args.spin === undefined ? undefined : args.spin ? SPIN_US : 0 };
}

/** A file of each of several runs: the run's number stands before the ending, as in `console-7.log`. */
export function fileOfRun(path: string, run: number): string {
  const { dir, name, ext } = parse(path);
  return join(dir, `${name}-${run}${ext}`);
}

/** The same devices with files of their own for what they record. */
export function devicesOfRun(devices: readonly ResolvedDevice[], run: number): ResolvedDevice[] {
  return devices.map((device) => {
    const options = device.options as Readonly<Record<string, unknown>>;
    const file = options[CAPTURE_OPTION];
    return typeof file === 'string'
      ? { ...device, options: { ...options, [CAPTURE_OPTION]: fileOfRun(file, run) } }
      : device;
  });
}

/** Where the log goes that `args` ask for. */
export function chosenLog({ verbose, logLevel, logJson }: EmulatorArguments): EmulatorLog {
  return createLog(verbose ? 'debug' : logLevel, logJson);
}

async function chosenDevices(texts: readonly string[], pcap: string | undefined): Promise<ResolvedDevice[]> {
  const chosen = await Promise.all(
    texts.map(async (text) => {
      const { plugin, options } = parseDeviceSpec(text);
      return { asked: plugin, loaded: await loadPlugin(plugin), options };
    }),
  );
  const captures = chosen.map(({ loaded }) => pcap !== undefined && canCapture(loaded));
  if (pcap !== undefined && !captures.includes(true)) {
    const ours = (await Promise.all(BUILT_IN_PLUGINS.map((name) => loadPlugin(name)))).filter(canCapture);
    const names = ours.map(({ plugin }) => `--device ${plugin.name}`).join(' or ');
    throw new UsageError(`--pcap records frames of functions with a network, and there is none: add ${names}`);
  }
  return chosen.map(({ asked, loaded, options }, index) =>
    resolveOptions(loaded, captures[index] ? { [CAPTURE_OPTION]: resolve(pcap!), ...options } : options, asked),
  );
}

/** What `--pcap` is short for, of every device that has it. */
const CAPTURE_OPTION = 'pcap';

function canCapture({ plugin }: LoadedPlugin): boolean {
  return describeOptions(plugin.options).some(({ key }) => key === CAPTURE_OPTION);
}

/** @throws UsageError */
export function machineSettings(args: MachineArguments): MachineSettings {
  return { topology: args.topology, viommu: args.viommu, memMiB: parseGuestMemory(args.mem) };
}

/** @throws UsageError */
export function guestSettings(args: GuestArguments): GuestSettings {
  if (!Number.isInteger(args.smp) || args.smp < 1 || args.smp > 255) {
    throw new UsageError(`--smp takes a whole number from 1 to 255`);
  }
  const machine = machineSettings(args);
  return {
    ...machine,
    hugePages: hugePagesOf(args.hugepages, machine),
    kernel: kernelOf(args.kernel),
    cpu: args.cpu,
    smp: args.smp,
    accel: args.accel,
    packages: args.package,
    moduleFolders: args.module.map((folder) => existingFolder('--module', folder)),
    workarounds: args.workarounds,
    expectBound: !args.allowUnbound,
    cold: args.cold,
    shareDir: args.share === undefined ? undefined : existingFolder('--share', args.share),
    consoleLogPath: args.consoleLog === undefined ? undefined : writableFile('--console-log', args.consoleLog),
  };
}

/** @throws UsageError when they are not a number, or the guest could not boot with the memory that they leave */
function hugePagesOf(count: number, { memMiB }: MachineSettings): number {
  if (!Number.isInteger(count) || count < 0) throw new UsageError('--hugepages takes a whole number, of 2 MiB each');
  const largest = Math.floor((memMiB * MIB - SMALLEST_GUEST_BYTES) / HUGE_PAGE_BYTES);
  if (count > largest) {
    throw new UsageError(`--hugepages ${count}: a guest of ${memMiB} MiB can spare ${largest}; give it more by --mem`);
  }
  return count;
}

/** @throws UsageError */
export function parseGuestMemory(text: string): number {
  let sizeBytes: number;
  try {
    sizeBytes = parseByteSize(text);
  } catch (error) {
    throw new UsageError(`--mem: ${(error as Error).message}`);
  }
  if (sizeBytes < SMALLEST_GUEST_BYTES || sizeBytes % MIB !== 0) {
    throw new UsageError(`--mem ${text}: give at least 384M, in whole MiB, for example 2G`);
  }
  return sizeBytes / MIB;
}

function kernelOf(text: string): string {
  if (isDebianKernel(text)) return text;
  const path = resolve(text);
  if (statSync(path, { throwIfNoEntry: false }) !== undefined) return path;
  throw new UsageError(`--kernel ${text} is neither lts nor latest nor a path of a bzImage or a kernel build folder`);
}

function existingFolder(option: string, folder: string): string {
  const path = resolve(folder);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return path;
  throw new UsageError(`${option} ${folder} is not a folder`);
}

/** Runs `work`; what it throws is the command line's fault. */
export async function usage<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}
