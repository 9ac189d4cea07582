import type { GuestFile } from '../emulator/plugin/guest.js';
import { kvmRunsKernel } from './accel.js';
import { UnreadableStateError } from './errors.js';
import type { BootOptions, Guest, WarmStart } from './guest.js';
import type { MachineOptions } from './machine.js';
import { discardSnapshot, ensureSnapshot, type Snapshot, UnfitMachineError } from './snapshot.js';
import { startGuest } from './start-guest.js';
import { type EmptyMachine, layOutFunctions, layOutSeats, type MachineLayout } from './topology.js';

/**
 * Boots a guest, or restores one with `warm`, and waits for its agent and for udev to have loaded the drivers.
 * @throws GuestError (panic, time-out, QEMU's end) with the tail of the console; QEMU is gone by then.
 */
export async function bootGuest(options: BootOptions): Promise<Guest> {
  const accel = await chooseAccelerator(options);
  const { warm, blockedModules = [], extraFiles = [] } = options;
  const complete = { ...options, extraFiles: [...extraFiles, ...blockingFiles(blockedModules)] };
  const restored = warm === undefined ? undefined : await restoredGuest({ ...complete, warm }, accel);
  return restored ?? coldGuest(complete, accel);
}

/** Configuration for modprobe and udev (modprobe.d(5)). */
function blockingFiles(modules: readonly string[]): GuestFile[] {
  if (modules.length === 0) return [];
  const text = modules.map((name) => `blacklist ${name}\n`).join('');
  return [{ path: '/etc/modprobe.d/ghostbus-blocked.conf', contents: Buffer.from(text) }];
}

async function coldGuest(options: BootOptions, accel: 'kvm' | 'tcg'): Promise<Guest> {
  const { qemu, image, onProgress } = options;
  onProgress?.(`Booting kernel ${image.kernelRelease} (QEMU ${qemu.version}, ${accel})`);
  const machine = machineOf(options, accel, layOutFunctions(options.functions ?? [], options));
  return startGuest(options, machine, (guest, timeoutMs) => guest.becomeReady(timeoutMs));
}

type WarmOptions = BootOptions & { readonly warm: WarmStart };

/**
 * Sees to it that what {@link bootGuest} would restore with these options is in the cache; where nothing can be kept,
 * `onProgress` is told why. @throws GuestError when the machine did not boot
 */
export async function ensureWarmMachine(options: WarmOptions): Promise<void> {
  const accel = await chooseAccelerator(options);
  const layout = seatsOf(options);
  const complete = { ...options, warm: { ...options.warm, atOnce: true } };
  if (layout !== undefined) await snapshotOf(complete, machineOf(options, accel, layout), layout);
}

/** Undefined when this machine has to be booted. */
async function restoredGuest(options: WarmOptions, accel: 'kvm' | 'tcg'): Promise<Guest | undefined> {
  const layout = seatsOf(options);
  if (layout === undefined) return undefined;
  const machine = machineOf(options, accel, layout);
  const first = await snapshotOf(options, machine, layout);
  if (first === undefined) return undefined;
  try {
    return await restore(options, machine, first, layout.seats);
  } catch (error) {
    // QEMU says so and ends; everything later is the guest's own, or its functions'. It also ends when it is told to.
    if (!(error instanceof UnreadableStateError) || options.abort?.aborted) throw error;
    await discardSnapshot(first, error.message, options.onProgress);
  }
  const second = await snapshotOf(options, machine, layout);
  return second && restore(options, machine, second, layout.seats);
}

function seatsOf({ functions = [], onProgress, ...options }: WarmOptions): EmptyMachine | undefined {
  const layout = layOutSeats(functions, options);
  if (layout === undefined) onProgress?.('No machine is kept for functions with BARs as large as these: it is booted');
  return layout;
}

async function snapshotOf(
  options: WarmOptions,
  machine: MachineOptions,
  { devices, placeholders, kernelArgs }: EmptyMachine,
): Promise<Snapshot | undefined> {
  try {
    return await ensureSnapshot(options, {
      ...machine,
      layout: { devices: [...devices, ...placeholders], kernelArgs },
    });
  } catch (error) {
    if (!(error instanceof UnfitMachineError)) throw error;
    options.onProgress?.(`No machine is kept: ${error.message}`);
    return undefined;
  }
}

async function restore(
  options: WarmOptions,
  machine: MachineOptions,
  snapshot: Snapshot,
  seats: readonly string[],
): Promise<Guest> {
  const { qemu, image, functions = [], onProgress } = options;
  onProgress?.(`Restoring a machine with kernel ${image.kernelRelease} (QEMU ${qemu.version}, ${machine.accel})`);
  const { statePath, consoleSoFar } = snapshot;
  return startGuest({ ...options, consoleSoFar }, { ...machine, incoming: true }, (guest, timeoutMs) =>
    guest.becomeRestored({ statePath, functions, seats }, timeoutMs),
  );
}

function machineOf(options: BootOptions, accel: 'kvm' | 'tcg', layout: MachineLayout): MachineOptions {
  return {
    image: options.image,
    layout,
    accel,
    cpu: options.cpu ?? (accel === 'kvm' ? 'host' : 'EPYC'),
    memMiB: options.memMiB ?? 2048,
    smp: options.smp ?? 2,
    shareDir: options.shareDir,
    counterKHz: options.counterKHz,
    kernelArgs: options.kernelArgs ?? [],
  };
}

async function chooseAccelerator(options: BootOptions): Promise<'kvm' | 'tcg'> {
  if (options.accel === 'kvm' || options.accel === 'tcg') return options.accel;
  return (await kvmRunsKernel(options.qemu, options.image.kernelPath)) ? 'kvm' : 'tcg';
}
