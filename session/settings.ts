/** What can be asked of a session: the emulator's side and the guest's. */
import type { ResolvedDevice } from '../emulator/device-spec.js';
import type { PeerRouting } from '../emulator/memory/fabric.js';
import type { Accelerator, Topology } from '../qemu/index.js';

export interface EmulatorSettings {
  readonly devices: readonly ResolvedDevice[];
  /** See `EmulatorOptions.spinUs`. */
  readonly spinUs?: number | undefined;
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
  /** Folders of /usr/share/doc that the guest has; some packages have their tests there. */
  readonly documentation?: readonly string[];
  /** Folders of C programs, beside those of the devices. */
  readonly programs?: readonly string[];
  readonly moduleFolders: readonly string[];
  readonly workarounds: boolean;
  /** Names of plugins whose own drivers stay out of the guest. */
  readonly withoutOwnDriver?: readonly string[];
  /** Boot, instead of restoring a machine that was booted once. */
  readonly cold?: boolean;
  /** Make the machine that is restored before the first guest; see `WarmStart.atOnce`. */
  readonly warmAtOnce?: boolean;
  readonly shareDir: string | undefined;
  readonly consoleLogPath: string | undefined;
  /** Pages of 2 MiB that the kernel sets aside at boot, for `/dev/hugepages` and `MAP_HUGETLB`. Default none. */
  readonly hugePages?: number;
  /** Added to the kernel's command line. */
  readonly kernelArgs?: readonly string[];
  /** Modules kept from loading by themselves. */
  readonly blockedModules?: readonly string[];
  /**
   * Whether a boot fails when a driver of the guest has not taken the function that it is for; true unless given. False
   * for drivers that refuse on purpose.
   */
  readonly expectBound?: boolean;
  /** How a peer's BAR is reached. Default: as topology and IOMMU have it. */
  readonly peerRouting?: PeerRouting;
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
