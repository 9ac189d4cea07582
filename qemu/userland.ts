import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedFolder } from './cache.js';
import { makeDebianRoot, mergePackages, unpackTar } from './debian.js';
import type { Progress } from './provision.js';
import { runCommand } from './run-command.js';

const basePackages: readonly string[] = [
  'busybox-static', // process 1, and all of the initial RAM disk
  'iproute2',
  'kmod',
  'pciutils',
  'procps',
  'python3',
  'qemu-guest-agent',
  'sudo', // test suites call it, as root too
  'udev',
];

export interface Userland {
  /** squashfs. */
  imagePath: string;
  /** The guest's own static busybox, for the initial RAM disk. */
  busyboxPath: string;
}

export interface UserlandOptions {
  packages?: readonly string[];
  /** Folders of /usr/share/doc that are kept; all others are left out. */
  documentation?: readonly string[];
  onProgress?: Progress | undefined;
}

/** Debian 13 user space with the packages, from the cache or made now. */
export async function ensureUserland({
  packages = [],
  documentation = [],
  onProgress,
}: UserlandOptions): Promise<Userland> {
  const all = mergePackages(basePackages, packages);
  const inputs = { recipe: 2, packages: all, ...(documentation.length > 0 && { documentation }) };
  const build = async (target: string) => {
    onProgress?.(`Making the guest's user space from Debian packages (once)`);
    const tarPath = join(target, 'root.tar');
    await makeDebianRoot({ packages: all, documentation, state: 'configured', tarPath, onProgress });
    await unpackTar(tarPath, target, ['usr/bin/busybox']);
    onProgress?.(`Packing the guest's user space`);
    await packTar(tarPath, join(target, 'userland.squashfs'));
    await rm(tarPath);
  };
  const description = `with ${packages.join(' ') || 'nothing added'}`;
  const folder = await cachedFolder('userland', inputs, build, { description, onProgress });
  return { imagePath: join(folder, 'userland.squashfs'), busyboxPath: join(folder, 'usr/bin/busybox') };
}

/** From the archive rather than from a folder: that keeps owners and device nodes without needing root. */
async function packTar(tarPath: string, imagePath: string): Promise<void> {
  // lz4: the guest's processor may be emulated, and its decompression is several times cheaper than the others'.
  const script = 'exec mksquashfs - "$2" -tar -comp lz4 -noappend -quiet -no-progress < "$1"';
  await runCommand('sh', ['-c', script, 'sh', tarPath, imagePath]);
}
