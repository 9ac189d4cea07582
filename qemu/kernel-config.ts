/**
 * What can be told of a kernel of the user's own without booting it: how it was configured, and
 * whether modules can be built for it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { HostSetupError } from './errors.js';
import { findKernelTree, type KernelTree, kernelConfigPath, kernelConfigPaths } from './kernel.js';

/**
 * Without these no guest comes up: its disks and what mounts them (guest-root/init; images are packed with lz4), its
 * console, the ports that commands go through, and what udev works with.
 */
const bootOptions: readonly string[] = [
  ...['BLK_DEV_INITRD', 'DEVTMPFS', 'TMPFS', 'MODULES', 'BINFMT_SCRIPT', 'UNIX', 'INOTIFY_USER'],
  ...['VIRTIO_PCI', 'VIRTIO_BLK', 'VIRTIO_CONSOLE', 'SQUASHFS', 'SQUASHFS_LZ4', 'OVERLAY_FS', 'SERIAL_8250_CONSOLE'],
];

export interface UserKernel {
  /** As `uname -r` prints it. */
  readonly release: string;
  /** Of `CONFIG_NAME=y` or `=m`: NAME. */
  readonly options: ReadonlySet<string>;
  /** Where its modules can be built. */
  readonly buildTree: string | undefined;
}

/**
 * @throws HostSetupError when there is no kernel at the path, no configuration near it, or one
 * with which no guest boots.
 */
export async function describeUserKernel(path: string): Promise<UserKernel> {
  const tree = await findKernelTree(resolve(path));
  const configPath = kernelConfigPath(tree);
  if (configPath === undefined) {
    throw new HostSetupError(
      `The configuration of the kernel ${tree.bzImagePath} (${tree.release}) was not found; looked for ${kernelConfigPaths(tree).join(', ')}.`,
      `Copy it to one of these places: it is the .config of the tree that the kernel was built in, or /proc/config.gz, unpacked, where it runs.`,
    );
  }
  const options = parseKernelConfig(await readFile(configPath, 'utf8'));
  const lacking = bootOptions.filter((option) => !options.has(option)).map((option) => `CONFIG_${option}`);
  if (lacking.length > 0) {
    throw new HostSetupError(
      `The kernel ${tree.bzImagePath} (${tree.release}) is built without ${lacking.join(', ')}, as ${configPath} says: no guest boots with it.`,
      'Build it with these options, as modules where they can be.',
    );
  }
  return { release: tree.release, options, buildTree: buildTreeOf(tree) };
}

/** Names, without CONFIG_, of the options that are built in or modules. */
export function parseKernelConfig(text: string): ReadonlySet<string> {
  return new Set([...text.matchAll(/^CONFIG_(\w+)=[ym]$/gm)].map(([, name]) => name!));
}

/** The tree of a kernel of the user's own in which modules can be built for it: after `make modules`, that is. */
export async function userBuildTree(path: string): Promise<string | undefined> {
  return buildTreeOf(await findKernelTree(resolve(path)));
}

/** `make modules` leaves the symbols' file; a tree may have been configured anew for another release since. */
function buildTreeOf({ release, modulesFolder, roots }: KernelTree): string | undefined {
  const isTree = (folder: string) =>
    ['Makefile', 'Module.symvers'].every((name) => existsSync(join(folder, name))) &&
    textOf(join(folder, 'include/config/kernel.release')).trim() === release;
  return [...roots, join(modulesFolder, 'build')].find(isTree);
}

function textOf(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
