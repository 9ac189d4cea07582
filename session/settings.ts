/** What can be asked of a session: the emulator's side and the guest's. */
import type { DeviceSpec } from '../emulator/device-spec.js';
import type { Accelerator, Topology } from '../qemu/index.js';
import type { LogLevel } from './log.js';

export interface EmulatorSettings {
  readonly devices: readonly DeviceSpec[];
  readonly spinUs: number | undefined;
  readonly logLevel: LogLevel;
  readonly logJson: boolean;
}

export interface MachineSettings {
  readonly topology: Topology;
  readonly viommu: boolean;
  readonly memMiB: number;
}

export interface GuestSettings extends MachineSettings {
  readonly kernel: string;
  readonly cpu: string | undefined;
  readonly smp: number;
  readonly accel: Accelerator;
  readonly packages: readonly string[];
  readonly moduleFolders: readonly string[];
  readonly workarounds: boolean;
  /** Build our driver for example devices; default true. */
  readonly ownDrivers?: boolean;
  readonly shareDir: string | undefined;
  readonly consoleLogPath: string | undefined;
  /** Added to the kernel's command line. */
  readonly kernelArgs?: readonly string[];
}

/** A guest about which nothing is asked but its kernel. */
export const ORDINARY_GUEST: Omit<GuestSettings, 'kernel'> = {
  topology: 'root-ports',
  viommu: false,
  memMiB: 2048,
  cpu: undefined,
  smp: 2,
  accel: 'auto',
  packages: [],
  moduleFolders: [],
  workarounds: true,
  shareDir: undefined,
  consoleLogPath: undefined,
};
