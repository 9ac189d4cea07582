import { constants } from 'node:fs';
import { access, rm, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { cachedFolder } from './cache.js';
import { makeDebianRoot, unpackTar } from './debian.js';
import { HostSetupError } from './errors.js';
import { CommandError, runCommand } from './run-command.js';

/** A QEMU that has `-device vfio-user-pci`. */
export interface Qemu {
  /** Program and leading arguments; the machine's arguments follow. */
  command: readonly [string, ...string[]];
  /** As QEMU prints it, for example `11.1.3`. */
  version: string;
  /** Where it was found: `$GHOSTBUS_QEMU`, PATH, or unpacked from Debian packages into the user's cache. */
  source: 'environment' | 'path' | 'private';
}

/** Receives one line of plain text for each step that takes noticeable time. */
export type Progress = (text: string) => void;

export interface FindQemuOptions {
  onProgress?: Progress;
}

const programName = 'qemu-system-x86_64';

/**
 * Finds a QEMU with `-device vfio-user-pci`: `$GHOSTBUS_QEMU`, then PATH, then a private one that is unpacked from
 * Debian packages into the user's cache (once).
 * @throws HostSetupError when none can be had on this host, or `$GHOSTBUS_QEMU` is set to one that will not do.
 */
export async function findQemu(options: FindQemuOptions = {}): Promise<Qemu> {
  const chosen = process.env.GHOSTBUS_QEMU;
  if (chosen) {
    const version = await probeQemu([chosen]);
    if (version !== undefined) return { command: [chosen], version, source: 'environment' };
    throw new HostSetupError(
      `GHOSTBUS_QEMU names ${chosen}, which cannot be run or has no vfio-user-pci device.`,
      'Set it to a QEMU 10.1 or newer that was built with vfio-user, or unset it.',
    );
  }
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const program = join(folder, programName);
    if (!(await isExecutable(program))) continue;
    const version = await probeQemu([program]);
    if (version !== undefined) return { command: [program], version, source: 'path' };
  }
  return privateQemu(options.onProgress);
}

async function privateQemu(onProgress?: Progress): Promise<Qemu> {
  const build = async (target: string) => {
    onProgress?.('Unpacking a private QEMU from Debian packages (once)');
    const tarPath = join(target, 'root.tar');
    await makeDebianRoot({ packages: ['qemu-system-x86'], state: 'unpacked', preferBackports: true, tarPath });
    await unpackTar(tarPath, target);
    await rm(tarPath);
    await writeFile(join(target, programName), launcher, { mode: 0o755 });
  };
  const description = "Debian's QEMU";
  const folder = await cachedFolder('qemu', { recipe: 2 }, build, { description, onProgress });
  const program = join(folder, programName);
  const version = await probeQemu([program]);
  if (version === undefined) {
    throw new HostSetupError(
      `The private QEMU in ${folder} cannot be run here, or has no vfio-user-pci device.`,
      `See what it says: ${program} -device help`,
    );
  }
  return { command: [program], version, source: 'private' };
}

/** Runs the unpacked QEMU with the C library it was built for, whatever the host's is. */
const launcher = `#!/bin/sh
usr=\${0%/*}/usr
exec "$usr/lib64/ld-linux-x86-64.so.2" --library-path "$usr/lib/x86_64-linux-gnu" "$usr/bin/${programName}" \\
  -L "$usr/share/qemu" -L "$usr/share/seabios" "$@"
`;

/** The version of a QEMU that can do what we need, or undefined. */
async function probeQemu(command: readonly [string, ...string[]]): Promise<string | undefined> {
  const [program, ...leading] = command;
  try {
    const devices = await runCommand(program, [...leading, '-device', 'help'], { timeoutMs: 30_000 });
    if (!devices.includes('"vfio-user-pci"')) return undefined;
    return parseQemuVersion(await runCommand(program, [...leading, '--version'], { timeoutMs: 30_000 }));
  } catch (error) {
    if (error instanceof CommandError || (error as NodeJS.ErrnoException).code !== undefined) return undefined;
    throw error;
  }
}

/** `11.1.3` out of the first line of `qemu-system-x86_64 --version`. */
function parseQemuVersion(text: string): string | undefined {
  return /^QEMU emulator version (\d+\.\d+\.\d+)/.exec(text)?.[1];
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}
