/** What every guest test starts from: served functions, a booted guest, and nothing left behind. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { parseDeviceSpec } from '../../emulator/device-spec.js';
import { type Emulator, type EmulatorOptions, startEmulator } from '../../emulator/emulator.js';
import {
  type AllowedComplaint,
  type BootOptions,
  bootGuest,
  buildGuestPrograms,
  ensureImage,
  findKernelComplaints,
  findQemu,
  type Guest,
  kernelHeaderTree,
} from '../../qemu/index.js';
import { guestAddresses } from '../../session/guest-addresses.js';
import { WatchedLog } from '../../session/watched-log.js';

export const KERNELS = ['lts', 'latest'] as const;
export type Kernel = (typeof KERNELS)[number];

const EXAMPLE_DRIVER = fileURLToPath(new URL('../../../plugins/example/guest-driver', import.meta.url));

export const progress = (text: string) => console.error(`    … ${text}`);

/** The headers of a guest's kernel, with `include/` below. */
export async function kernelHeaders(kernel: Kernel): Promise<string> {
  const { kernelRelease } = await ensureImage({ kernel, packages: [], onProgress: progress });
  return kernelHeaderTree(kernel, kernelRelease, progress);
}

export interface ServedMachine {
  readonly emulator: Emulator;
  readonly log: WatchedLog;
  boot(options?: Partial<BootOptions>): Promise<Guest>;
}

/** Serves `devices` and gives `use` a way to boot guests with them; everything is gone when it returns. */
export async function withMachine(
  kernel: Kernel,
  devices: readonly string[],
  use: (machine: ServedMachine) => Promise<void>,
  {
    packages = [],
    moduleFolders = [],
    ...options
  }: Partial<EmulatorOptions> & { packages?: readonly string[]; moduleFolders?: readonly string[] } = {},
): Promise<void> {
  const qemu = await findQemu({ onProgress: progress });
  const image = await ensureImage({ kernel, packages: [...packages], onProgress: progress });
  const programs = await buildGuestPrograms({
    image,
    moduleFolders: [EXAMPLE_DRIVER, ...moduleFolders],
    onProgress: progress,
  });
  const log = new WatchedLog();
  const emulator = await startEmulator({ devices: devices.map(parseDeviceSpec), log, ...options });
  const guests: Guest[] = [];
  try {
    await use({
      emulator,
      log,
      boot: async (bootOptions = {}) => {
        const functions = emulator.functions.map(({ name, socketPath }) => ({ id: name, socketPath }));
        const extraFiles = [...emulator.guestFiles, ...programs];
        const guest = await bootGuest({ qemu, image, functions, extraFiles, ...bootOptions });
        guests.push(guest);
        return guest;
      },
    });
  } finally {
    for (const guest of guests) await guest.kill();
    await emulator.stop();
  }
}

/** Runs a shell script in the guest; fails with its output unless it exits 0. Returns standard output. */
export async function sh(guest: Guest, script: string): Promise<string> {
  const { exitCode, signal, stdout, stderr } = await guest.capture(['sh', '-euc', script]);
  assert.equal(
    exitCode,
    0,
    `guest script ended with ${exitCode ?? `signal ${signal}`}:\n${script}\n${stdout}\n${stderr}`,
  );
  return stdout.toString();
}

/** What sounds like a complaint and is none. */
const HARMLESS: readonly AllowedComplaint[] = [
  {
    pattern: /clocksource: .*(Watchdog remote CPU \d+ read timed out|timekeeping watchdog)/,
    reason:
      'kernel/time/clocksource.c compares clocks across virtual CPUs, one of which the host did not run meanwhile',
  },
  {
    pattern: /ghostbus_(example|bar_export): (loading out-of-tree module|module verification failed)/,
    reason: 'these modules are ours, built outside the kernel and not signed',
  },
  {
    pattern: /habanalabs [0-9a-f:.]+: Waiting for all processes to exit \(timeout of/,
    reason: 'drivers/accel/habanalabs/common/device.c hl_device_fini announces at unbind how long it would wait',
  },
];

/** Fails when the guest's kernel complained about anything that is not allowed with a reason. */
export async function assertCleanKernelLog(guest: Guest, allowed: readonly AllowedComplaint[] = []): Promise<void> {
  const complaints = findKernelComplaints(await guest.dmesg(), [...HARMLESS, ...allowed]);
  assert.deepEqual(complaints, [], `the guest's kernel complained:\n${complaints.map(({ line }) => line).join('\n')}`);
}

/** The guest's address (`0000:01:00.0`) of each served function, by name. */
export const addressesOf = guestAddresses;
