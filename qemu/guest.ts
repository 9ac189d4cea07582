import type { GuestFile } from '../emulator/plugin/guest.js';
import type { GuestImage } from './image.js';
import type { Qemu } from './provision.js';
import type { AttachedFunction, Topology } from './topology.js';

export type Accelerator = 'auto' | 'kvm' | 'tcg';

/**
 * Instead of booting, takes the state of a machine that was booted once for all of its kind, and plugs the functions
 * in.
 */
export interface WarmStart {
  /** Drivers that it has loaded, where its kernel has them. Further ones are loaded as usual. */
  readonly drivers: readonly ModuleToLoad[];
  /**
   * Make it before the first guest of its kind, for many that follow. By default the first one boots, which takes less
   * time, and it is made for the second: many kernels and options are tried only once.
   */
  readonly atOnce?: boolean;
}

/** A kernel module with its parameters, as modprobe takes them. */
export type ModuleToLoad = readonly [name: string, ...parameters: string[]];

export interface BootOptions {
  qemu: Qemu;
  image: GuestImage;
  functions?: readonly AttachedFunction[];
  /** Default `root-ports`. */
  topology?: Topology;
  /** Puts an Intel IOMMU in front of everything; see `TopologyOptions`. */
  viommu?: boolean;
  /**
   * QEMU's CPU model. Default `EPYC` under TCG (the guest's kernel then allows P2P through the
   * host bridge), `host` under KVM.
   */
  cpu?: string;
  /** Default 2048. */
  memMiB?: number;
  /** Virtual CPUs; default 2. */
  smp?: number;
  /** Default `auto`: KVM when a kernel really runs with it, else TCG. */
  accel?: Accelerator;
  /**
   * Frequency of the host's time stamp counter in kHz, which is the guest's under TCG (QEMU, `cpu_get_host_ticks`). Its
   * kernel is told then; by itself it may get it wrong while the host is busy.
   */
  counterKHz?: number;
  /** Host folder shown at /mnt/share, writable, over 9p. */
  shareDir?: string;
  extraFiles?: readonly GuestFile[];
  /** Added to the kernel's command line. */
  kernelArgs?: readonly string[];
  /** Modules kept from loading by themselves; `modprobe` by name still loads them. */
  blockedModules?: readonly string[];
  /**
   * From start until the agent has answered and udev has loaded the drivers; default 300 000, for
   * hosts that have other work, too.
   */
  bootTimeoutMs?: number;
  /**
   * A guest whose agent does not answer for this long counts as hung, and is ended; default 60
   * 000: TCG on a busy host is slow.
   */
  agentTimeoutMs?: number;
  /** The whole serial console is written there. */
  consoleLogPath?: string;
  /** Where nothing can be kept for it, the guest boots all the same, and `onProgress` is told why. */
  warm?: WarmStart | undefined;
  onProgress?: (text: string) => void;
  /**
   * Aborting it ends a boot that is under way: QEMU is killed and `bootGuest` rejects. It has no meaning afterwards.
   */
  abort?: AbortSignal;
}

export interface RunOptions {
  onStdout?: (chunk: Buffer) => void;
  onStderr?: (chunk: Buffer) => void;
  /** Given whole at the start; without it the command reads /dev/null. */
  stdin?: Uint8Array;
  /**
   * The command and its session are killed and `GuestTimeoutError` thrown after this time;
   * default none. The guest lives on.
   */
  timeoutMs?: number;
  /** Added to PATH, HOME, LANG and TERM. */
  env?: Readonly<Record<string, string>>;
}

/** How a command ended: either an exit status (127: no such program), or the number of the signal that killed it. */
export interface RunResult {
  exitCode: number | undefined;
  signal: number | undefined;
}

export interface CapturedResult extends RunResult {
  stdout: Buffer;
  stderr: Buffer;
}

/** A running virtual machine. Every method rejects with a `GuestError` once the guest panicked, hung or QEMU ended. */
export interface Guest {
  readonly accel: 'kvm' | 'tcg';
  /** From the start until the guest was ready. */
  readonly bootTimeMs: number;
  readonly qemuPid: number;
  /** Names of the kernel modules that were laid into it with `extraFiles`, as the kernel writes them. */
  readonly addedModules: readonly string[];
  /** Settles when QEMU is gone: undefined after `shutdown()` or `kill()`, else the reason. Never rejects. */
  readonly ended: Promise<Error | undefined>;

  /** Runs a program (no shell; argv[0] is searched in PATH) as root and streams its output. */
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** As `run`, with the output collected. */
  capture(argv: readonly string[], options?: Omit<RunOptions, 'onStdout' | 'onStderr'>): Promise<CapturedResult>;
  /** The kernel log of this run: since boot, or since the machine was restored. */
  dmesg(): Promise<string>;
  /** The last lines of the serial console. */
  consoleTail(lines?: number): string;
  /** One QMP command; resolves with its `return`. */
  qmp(command: string, args?: Record<string, unknown>): Promise<unknown>;
  /**
   * `device_add`; resolves when QEMU has realized the device, which is before the guest has found it.
   * @param bus Default: where a function of this id was before, else the free hot-plug port.
   */
  plug(fn: AttachedFunction, bus?: string): Promise<void>;
  /** `device_del`; resolves when the guest has let go and QEMU has deleted the device. */
  unplug(id: string, timeoutMs?: number): Promise<void>;
  /** Waits until udev has handled all events so far: drivers are loaded and have probed. */
  settle(timeoutMs?: number): Promise<void>;
  /**
   * Resolves when the rebooted guest is ready. `reset` resets the machine as the button would;
   * `guest` lets the kernel do it.
   */
  reboot(how?: 'guest' | 'reset', timeoutMs?: number): Promise<void>;
  /**
   * Lets the guest's kernel power off (drivers' shutdown handlers run), and kills QEMU when that takes over 15 seconds.
   */
  shutdown(): Promise<void>;
  /** Kills QEMU at once; resolves when the process is gone. */
  kill(): Promise<void>;
  /** Joins the terminal (raw mode if it is one) with a login shell in the guest; resolves when that shell ends. */
  console(input: NodeJS.ReadStream, output: NodeJS.WriteStream): Promise<void>;
}
