import { readFile, stat, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { cachedEntry, cachedFolder, discardEntry } from './cache.js';
import { requireRoomFor } from './cache-prune.js';
import { HostSetupError } from './errors.js';
import type { BootOptions, ModuleToLoad, WarmStart } from './guest.js';
import { type AllowedComplaint, findKernelComplaints, SLOW_HOST } from './kernel-log.js';
import { type MachineOptions, machineArgs } from './machine.js';
import type { Progress, Qemu } from './provision.js';
import { startGuest } from './start-guest.js';

/** A machine that was booted without functions, its drivers loaded, and saved. */
export interface Snapshot {
  readonly statePath: string;
  /** What its console said until then. */
  readonly consoleSoFar: string;
}

/** Nothing is kept of such a machine; one that is booted may still do. */
export class UnfitMachineError extends Error {}

/** Its kernel complained while it booted: every run from it would inherit that. */
class ComplainingMachineError extends UnfitMachineError {}

type SnapshotOptions = Pick<BootOptions, 'qemu' | 'image' | 'blockedModules' | 'onProgress' | 'abort'> & {
  readonly warm: WarmStart;
};

const MIB = 2 ** 20;

/** Tells the guest that it is going to be saved. */
const SNAPSHOT_MARK = { path: '/etc/ghostbus-snapshot', contents: Buffer.alloc(0) };

/**
 * The machine's saved state, from the cache or made now; undefined at the first use, unless it is wanted at once.
 * Machines that differ in anything that is in it have different ones.
 * @throws UnfitMachineError when its kernel complained: every run from it would inherit that.
 * @throws GuestError when it did not boot.
 */
export async function ensureSnapshot(options: SnapshotOptions, machine: MachineOptions): Promise<Snapshot | undefined> {
  const { image, onProgress } = options;
  const drivers = wantedDrivers(options.warm.drivers, options.blockedModules);
  const inputs = await snapshotInputs(options.qemu, machine, drivers);
  const isFirst = await isFirstWish(inputs);
  if (isFirst && !options.warm.atOnce) return undefined;
  const description = `kernel ${image.kernelRelease}, ${machine.memMiB} MiB, ${machine.accel}`;
  const knownFault = await rememberedFault(inputs);
  if (knownFault !== undefined) throw new UnfitMachineError(knownFault);
  const build = async (target: string) => {
    await requireRoom(machine.memMiB * MIB);
    onProgress?.(`Booting kernel ${image.kernelRelease} once, to be restored from now on (${machine.accel})`);
    await makeSnapshot(options, machine, drivers, target);
  };
  const folder = await cachedFolder('snapshot', inputs, build, { description, onProgress }).catch(async (error) => {
    if (error instanceof ComplainingMachineError) await rememberFault(inputs, error.message);
    throw error;
  });
  return { statePath: join(folder, 'state'), consoleSoFar: await readFile(join(folder, 'console'), 'latin1') };
}

/** Throws a saved state away that turned out not to be usable. */
export async function discardSnapshot({ statePath }: Snapshot, why: string, onProgress?: Progress): Promise<void> {
  await discardEntry(dirname(statePath), why, onProgress);
}

/** @throws UnfitMachineError */
async function requireRoom(sizeBytes: number): Promise<void> {
  await requireRoomFor(sizeBytes).catch((error: unknown) => {
    throw error instanceof HostSetupError ? new UnfitMachineError(error.message) : error;
  });
}

async function makeSnapshot(
  options: SnapshotOptions,
  machine: MachineOptions,
  drivers: readonly ModuleToLoad[],
  target: string,
): Promise<void> {
  const { qemu, onProgress, abort } = options;
  const guest = await startGuest(
    {
      qemu,
      extraFiles: [SNAPSHOT_MARK],
      consoleLogPath: join(target, 'console'),
      ...(onProgress && { onProgress }),
      ...(abort && { abort }),
    },
    machine,
    (started, timeoutMs) => started.becomeReady(timeoutMs),
  );
  const end = () => guest.kill();
  abort?.addEventListener('abort', end);
  try {
    await guest.prepareToBeSaved(drivers);
    const [complaint] = findKernelComplaints(await guest.dmesg(), [SLOW_HOST, ...askedFor(drivers)]);
    if (complaint !== undefined) {
      throw new ComplainingMachineError(`its kernel complained while it booted: ${complaint.line}`);
    }
    await guest.saveTo(join(target, 'state'));
  } finally {
    abort?.removeEventListener('abort', end);
    await guest.kill();
  }
}

const FAULT = 'snapshot-fault';
/** A complaint may have been the busy host's fault: the machine is tried again later. */
const FAULT_MS = 86_400_000;

async function rememberFault(inputs: unknown, why: string): Promise<void> {
  const options = { description: `a machine that is always booted: ${why}` };
  await cachedFolder(FAULT, inputs, (target) => writeFile(join(target, 'why'), why), options);
}

async function rememberedFault(inputs: unknown): Promise<string | undefined> {
  const folder = cachedEntry(FAULT, inputs);
  if (folder === undefined) return undefined;
  const path = join(folder, 'why');
  if (Date.now() - (await stat(path)).mtimeMs < FAULT_MS) return readFile(path, 'utf8');
  await discardEntry(folder, 'a day has passed', () => {});
  return undefined;
}

/** A driver's own parameter may taint the kernel (kernel/params.c, param_check_unsafe). */
function askedFor(drivers: readonly ModuleToLoad[]): AllowedComplaint[] {
  const names = drivers.flatMap(([, ...words]) => words.map((word) => word.split('=')[0]));
  return names.map((name) => ({
    pattern: new RegExp(`Setting dangerous option ${name} - tainting kernel`),
    reason: 'a device asked for this parameter',
  }));
}

/** Whether nobody has asked for it before; remembers that now somebody has. */
async function isFirstWish(inputs: unknown): Promise<boolean> {
  let isFirst = false;
  const build = async () => {
    isFirst = true;
  };
  await cachedFolder('snapshot-wish', inputs, build, { description: 'a machine that was booted once so far' });
  return isFirst;
}

function wantedDrivers(drivers: readonly ModuleToLoad[], blockedModules: readonly string[] = []): ModuleToLoad[] {
  return drivers.filter(([name]) => !blockedModules.includes(name)).sort(([left], [right]) => (left < right ? -1 : 1));
}

/** Everything that decides what is in the state, or who can read it. */
async function snapshotInputs(
  qemu: Qemu,
  machine: MachineOptions,
  drivers: readonly ModuleToLoad[],
): Promise<Record<string, unknown>> {
  const { kernelPath, initrdPath, userlandPath, modulesPath } = machine.image;
  const paths = [...qemu.command.slice(0, 1), kernelPath, initrdPath, userlandPath, modulesPath];
  const [host] = cpus();
  return {
    recipe: 1,
    qemu: qemu.version,
    // Which folder is shared is no part of what is saved.
    args: machineArgs({ ...machine, shareDir: machine.shareDir && '/' }),
    files: await Promise.all(paths.map(fileMark)),
    drivers,
    // Under KVM its features are the guest's; under TCG its time stamp counter is.
    processor: host?.model,
  };
}

async function fileMark(path: string): Promise<readonly [string, number, number]> {
  const { size, mtimeMs } = await stat(path);
  return [path, size, mtimeMs];
}
