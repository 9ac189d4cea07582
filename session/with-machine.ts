/** Machines for a test, a benchmark or a script of one's own: served, booted, and gone at the end, whatever happens. */
import { type DeviceSpec, resolveDevices } from '../emulator/device-spec.js';
import type { EmulatorLog } from '../emulator/emulator.js';
import type { Guest } from '../qemu/index.js';
import { withCleanup } from './cleanup.js';
import { type GuestMachine, serveMachine } from './session.js';
import { type GuestSettings, ORDINARY_GUEST } from './settings.js';
import { sessionTools } from './tools.js';
import { WatchedLog } from './watched-log.js';

/** Debian's kernels: what runs on both runs in most places. */
export const KERNELS = ['lts', 'latest'] as const;
export type Kernel = (typeof KERNELS)[number];

/** What is asked of a machine; everything but its devices has a default. */
export interface MachineOptions extends Partial<GuestSettings> {
  /**
   * As after `--device`: `gpu,vram=16G`, `./my-device`. A relative path or a package is looked for from the current
   * folder.
   */
  readonly devices: readonly (string | DeviceSpec)[];
  /** `latest` (default), `lts`, or the path of a kernel of yours. */
  readonly kernel?: string;
  /**
   * Look for requests this long before sleeping, in microseconds. Default 50 where at least four cores exist, else 0.
   */
  readonly spinUs?: number;
  /** The emulator's log. Default: one that keeps warnings and errors for {@link TestMachine.log}. */
  readonly log?: EmulatorLog;
  /** One line of text for each step that takes noticeable time; default: to stderr. */
  readonly progress?: (text: string) => void;
}

export interface TestMachine extends GuestMachine {
  /** Warnings and errors of the emulator so far; empty when a log was given. */
  readonly log: WatchedLog;
}

/**
 * Serves the devices and gives `use` a way to boot guests with them, one after another. Everything is gone when it
 * returns.
 */
export async function withMachine<T>(options: MachineOptions, use: (machine: TestMachine) => Promise<T>): Promise<T> {
  const { devices, spinUs, log: given, progress = printStep, ...settings } = options;
  const log = new WatchedLog();
  const resolved = await resolveDevices(devices);
  return withCleanup(async (cleanup) => {
    const machine = await serveMachine(
      { devices: resolved, spinUs },
      { ...ORDINARY_GUEST, kernel: 'latest', ...settings },
      { tools: sessionTools, log: given ?? log, progress, cleanup },
    );
    return use({ ...machine, log });
  });
}

/** As {@link withMachine}, with one guest that has booted. */
export async function withGuest<T>(
  options: MachineOptions,
  use: (machine: TestMachine & { readonly guest: Guest }) => Promise<T>,
): Promise<T> {
  return withMachine(options, async (machine) => use({ ...machine, guest: await machine.boot() }));
}

function printStep(text: string): void {
  process.stderr.write(`    … ${text}\n`);
}
