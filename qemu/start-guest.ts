import { open } from 'node:fs/promises';
import type { Writable } from 'node:stream';
import { makeFilesDisk } from './files-disk.js';
import type { BootOptions } from './guest.js';
import { kernelModuleNames } from './kernel-log.js';
import { execPortCount, inheritedFds, type MachineOptions, machineArgs } from './machine.js';
import { QemuProcess } from './qemu-process.js';
import { RunningGuest } from './running-guest.js';

const streamCount = inheritedFds.firstExecPort - inheritedFds.qmp + execPortCount;
const AGENT_TIMEOUT_MS = 60_000;
/** For hosts that have other work, too. */
const BOOT_TIMEOUT_MS = 300_000;

/** Linux's net/9p/trans_virtio.c has no freeze and no restore: its queue is gone after the device's reset. */
const SHARE_LOST =
  'The guest has slept and is awake again. Its shared folder is not: what touches /mnt/share waits for ever.';

export type StartOptions = Pick<
  BootOptions,
  'qemu' | 'extraFiles' | 'agentTimeoutMs' | 'bootTimeoutMs' | 'consoleLogPath' | 'onProgress' | 'abort'
> & {
  /** What the console's log begins with. */
  consoleSoFar?: string;
};

/**
 * Starts QEMU with the machine, and waits until the guest is ready in the way that is given. When that fails, or was
 * aborted, QEMU is gone by the time that this rejects.
 */
export async function startGuest(
  options: StartOptions,
  machine: MachineOptions,
  becomeReady: (guest: RunningGuest, timeoutMs: number) => Promise<void>,
): Promise<RunningGuest> {
  const { qemu, extraFiles = [], abort } = options;
  const files = await makeFilesDisk(extraFiles);
  try {
    const log = await openConsoleLog(options);
    const process = await QemuProcess.start(qemu, machineArgs(machine), streamCount, [files.fd]);
    const guest = new RunningGuest({
      process,
      accel: machine.accel,
      layout: machine.layout,
      addedModules: kernelModuleNames(extraFiles),
      agentTimeoutMs: options.agentTimeoutMs ?? AGENT_TIMEOUT_MS,
      log,
      awake: () => {
        if (machine.shareDir !== undefined) options.onProgress?.(SHARE_LOST);
      },
    });
    const end = () => guest.kill();
    abort?.addEventListener('abort', end);
    if (abort?.aborted) await end();
    await becomeReady(guest, options.bootTimeoutMs ?? BOOT_TIMEOUT_MS);
    abort?.removeEventListener('abort', end);
    return guest;
  } finally {
    await files.close();
  }
}

/**
 * The guest goes on when the file cannot take more, as on a full disk. Rejects with Node's error when it cannot be
 * opened.
 */
async function openConsoleLog({
  consoleLogPath,
  consoleSoFar = '',
  onProgress,
}: StartOptions): Promise<Writable | undefined> {
  if (consoleLogPath === undefined) return undefined;
  const stream = (await open(consoleLogPath, 'w')).createWriteStream();
  stream.on('error', (error) =>
    onProgress?.(`The console is no longer written to ${consoleLogPath}: ${error.message}`),
  );
  stream.write(consoleSoFar);
  return stream;
}
