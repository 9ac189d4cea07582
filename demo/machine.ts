import { resolveDevices } from '../emulator/device-spec.js';
import type { Emulator } from '../emulator/emulator.js';
import type { Guest, GuestImage } from '../qemu/index.js';
import { withCleanup } from '../session/cleanup.js';
import { createLog } from '../session/log.js';
import { type SessionTools, startSession } from '../session/session.js';
import { ORDINARY_GUEST } from '../session/settings.js';
import { sessionTools } from '../session/tools.js';
import type { Report } from './report.js';

/** Small, so that the host can look through all of it. */
export const VRAM_BYTES = 256 * 2 ** 20;
export const GPUS: readonly string[] = ['gpu,vram=256M', 'gpu,vram=256M'];
export const ALL_DEVICES: readonly string[] = [...GPUS, 'habana', 'rdma,functions=2', 'example'];

/** The machine under demonstration. */
export interface DemoMachine {
  readonly report: Report;
  readonly emulator: Emulator;
  readonly guest: Guest;
  readonly image: GuestImage;
  /** Kernel, QEMU and boot time, in one line. */
  readonly description: string;
  /** Runs a shell line in the guest; its output. Rejects when it fails. */
  sh(line: string): Promise<string>;
}

interface DemoOptions {
  readonly kernel: string;
  readonly devices: readonly string[];
  readonly verbose: boolean;
  /** Boot, instead of restoring a machine that was booted once. */
  readonly cold: boolean;
}

/** Starts a guest with two GPUs and one of each other function, calls `show`, and ends everything. */
export async function withDemoMachine(
  options: DemoOptions,
  report: Report,
  show: (machine: DemoMachine) => Promise<void>,
  tools: SessionTools = sessionTools,
): Promise<void> {
  const logLevel = options.verbose ? 'info' : 'error';
  const emulatorSettings = { devices: await resolveDevices(options.devices) };
  const guestSettings = { ...ORDINARY_GUEST, kernel: options.kernel, cold: options.cold };
  await withCleanup(async (cleanup) => {
    const { emulator, guest, image, qemu, timings } = await startSession(emulatorSettings, guestSettings, {
      tools,
      log: createLog(logLevel, false),
      progress: (text) => process.stderr.write(`demo: ${text}\n`),
      cleanup,
    });
    const bootSeconds = (timings.bootMs / 1000).toFixed(1);
    const versions = `kernel ${image.kernelRelease}, QEMU ${qemu.version} (${guest.accel})`;
    const description = `${versions}, ready in ${bootSeconds} s`;
    await show({ report, emulator, guest, image, description, sh: (line) => runShell(guest, line) });
  });
}

async function runShell(guest: Guest, line: string): Promise<string> {
  const { exitCode, stdout, stderr } = await guest.capture(['sh', '-c', line], { timeoutMs: 60_000 });
  if (exitCode !== 0)
    throw new Error(`${JSON.stringify(line)} failed in the guest (${exitCode}): ${stderr.toString()}`);
  return stdout.toString();
}
