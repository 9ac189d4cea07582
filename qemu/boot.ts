import { mkdtempSync } from 'node:fs';
import { open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { kvmRunsKernel } from './accel.js';
import type { BootOptions, Guest } from './guest.js';
import { overlayArchive } from './image.js';
import { kernelModuleNames } from './kernel-log.js';
import { execPortCount, inheritedFds, machineArgs } from './machine.js';
import { QemuProcess } from './qemu-process.js';
import { RunningGuest } from './running-guest.js';
import { layOutFunctions } from './topology.js';

const streamCount = inheritedFds.firstExecPort - inheritedFds.qmp + execPortCount;

/** Linux's net/9p/trans_virtio.c has no freeze and no restore: its queue is gone after the device's reset. */
const SHARE_LOST =
  'The guest has slept and is awake again. Its shared folder is not: what touches /mnt/share waits for ever.';

/**
 * Boots a guest, waits for its agent and for udev to have loaded the drivers.
 * @throws GuestError (panic, time-out, QEMU's end) with the tail of the console; QEMU is gone by then.
 */
export async function bootGuest(options: BootOptions): Promise<Guest> {
  const { qemu, image } = options;
  const layout = layOutFunctions(options.functions ?? [], options);
  const accel = await chooseAccelerator(options);
  // Private to us (0700), and only until the kernel has read it.
  const scratch = mkdtempSync(join(tmpdir(), 'ghostbus-boot-'));
  try {
    const args = machineArgs({
      image,
      layout,
      accel,
      initrdPath: await bootInitrd(options, scratch),
      cpu: options.cpu ?? (accel === 'kvm' ? 'host' : 'EPYC'),
      memMiB: options.memMiB ?? 2048,
      smp: options.smp ?? 2,
      shareDir: options.shareDir,
      counterKHz: options.counterKHz,
      kernelArgs: options.kernelArgs ?? [],
      blockedModules: options.blockedModules ?? [],
    });
    options.onProgress?.(`Booting kernel ${image.kernelRelease} (QEMU ${qemu.version}, ${accel})`);
    const log = await openConsoleLog(options);
    const process = await QemuProcess.start(qemu, args, streamCount);
    const addedModules = kernelModuleNames(options.extraFiles ?? []);
    const { agentTimeoutMs = 60_000 } = options;
    const awake = () => {
      if (options.shareDir !== undefined) options.onProgress?.(SHARE_LOST);
    };
    const guest = new RunningGuest({ process, accel, layout, addedModules, agentTimeoutMs, log, awake });
    const end = () => guest.kill();
    options.abort?.addEventListener('abort', end);
    if (options.abort?.aborted) await end();
    await guest.becomeReady(options.bootTimeoutMs ?? 300_000);
    options.abort?.removeEventListener('abort', end);
    return guest;
  } finally {
    await rm(scratch, { recursive: true });
  }
}

/**
 * The guest goes on when the file cannot take more, as on a full disk. Rejects with Node's error
 * when it cannot be opened.
 */
async function openConsoleLog({ consoleLogPath, onProgress }: BootOptions): Promise<Writable | undefined> {
  if (consoleLogPath === undefined) return undefined;
  const stream = (await open(consoleLogPath, 'w')).createWriteStream();
  stream.on('error', (error) =>
    onProgress?.(`The console is no longer written to ${consoleLogPath}: ${error.message}`),
  );
  return stream;
}

async function chooseAccelerator(options: BootOptions): Promise<'kvm' | 'tcg'> {
  if (options.accel === 'kvm' || options.accel === 'tcg') return options.accel;
  return (await kvmRunsKernel(options.qemu, options.image.kernelPath)) ? 'kvm' : 'tcg';
}

async function bootInitrd({ image, extraFiles = [] }: BootOptions, scratch: string): Promise<string> {
  if (extraFiles.length === 0) return image.initrdPath;
  const path = join(scratch, 'initrd');
  await writeFile(path, Buffer.concat([await readFile(image.initrdPath), overlayArchive(extraFiles)]));
  return path;
}
