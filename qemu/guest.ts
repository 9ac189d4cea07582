import type { GuestFile } from './guest-file.js';
import type { GuestImage } from './image.js';
import type { Qemu } from './provision.js';
import type { AttachedFunction, Topology } from './topology.js';

export type Accelerator = 'auto' | 'kvm' | 'tcg';

export interface BootOptions {
  qemu: Qemu;
  image: GuestImage;
  functions?: readonly AttachedFunction[];
  /** Default `root-ports`. */
  topology?: Topology;
  /** Puts an Intel IOMMU in front of everything; slow, see docs of `topology.ts`. */
  viommu?: boolean;
  /** QEMU's CPU model. Default `EPYC` under TCG (its kernel allows P2P through the host bridge) and `host` under KVM. */
  cpu?: string;
  /** Default 2048. */
  memMiB?: number;
  /** Virtual CPUs; default 2. */
  smp?: number;
  /** Default `auto`: KVM when a guest really runs with it, else TCG. */
  accel?: Accelerator;
  /** Host folder shown at /mnt/share, writable. */
  shareDir?: string;
  extraFiles?: readonly GuestFile[];
  /** Added to the kernel's command line. */
  kernelArgs?: readonly string[];
  /** Modules kept from loading by themselves; default `heldBackModules`. */
  blockedModules?: readonly string[];
  /** From start to the agent's first answer; default 120 000. */
  bootTimeoutMs?: number;
  /** The whole serial console is written there. */
  consoleLogPath?: string;
  onProgress?: (text: string) => void;
}

export interface RunOptions {
  onStdout?: (chunk: Buffer) => void;
  onStderr?: (chunk: Buffer) => void;
  stdin?: Uint8Array;
  /** The command is killed and `GuestTimeoutError` thrown after this time; default none. */
  timeoutMs?: number;
  env?: Readonly<Record<string, string>>;
}

/** How a command ended: either an exit status, or the number of the signal that killed it. */
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
  /** `kvm` or `tcg`, as chosen. */
  readonly accel: 'kvm' | 'tcg';
  /** From QEMU's start to the agent's first answer. */
  readonly bootTimeMs: number;
  readonly qemuPid: number;
  /** Settles when the guest is gone: undefined after `shutdown()` or `kill()`, else the reason. Never rejects. */
  readonly ended: Promise<Error | undefined>;

  /** Runs a program (no shell; argv[0] is searched in PATH) as root and streams its output. */
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** As `run`, with the output collected. */
  capture(argv: readonly string[], options?: Omit<RunOptions, 'onStdout' | 'onStderr'>): Promise<CapturedResult>;
  /** The kernel log since boot. */
  dmesg(): Promise<string>;
  /** The last lines of the serial console. */
  consoleTail(lines?: number): string;
  /** One QMP command; resolves with its `return`. */
  qmp(command: string, args?: Record<string, unknown>): Promise<unknown>;
  /** `device_add` below the free hot-plug port; resolves when QEMU has realized the device. */
  plug(fn: AttachedFunction): Promise<void>;
  /** `device_del`; resolves when the guest has let go and QEMU has deleted the device. */
  unplug(id: string, timeoutMs?: number): Promise<void>;
  /** Guest reboot; resolves when the agent answers again. `reset` resets the machine as the button would. */
  reboot(how?: 'guest' | 'reset', timeoutMs?: number): Promise<void>;
  /** Asks the guest to power off, waits, and kills QEMU when it does not. */
  shutdown(): Promise<void>;
  /** Kills QEMU at once; resolves when the process is gone. */
  kill(): Promise<void>;
  /** Joins the terminal (raw mode) with the guest's login shell; resolves when the shell ends. */
  console(input: NodeJS.ReadStream, output: NodeJS.WriteStream): Promise<void>;
}

/**
 * Boots a guest and waits for its agent.
 * @throws GuestError (panic, time-out, QEMU's end) with the tail of the console; QEMU is gone by then.
 */
export async function bootGuest(_options: BootOptions): Promise<Guest> {
  throw new Error('not written yet');
}
