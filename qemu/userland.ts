import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedFolder } from './cache.js';
import { makeDebianRoot, unpackTar } from './debian.js';
import type { Progress } from './provision.js';
import { runCommand } from './run-command.js';

const basePackages: readonly string[] = [
  'busybox-static', // process 1, and all of the initial RAM disk
  'ibverbs-providers',
  'ibverbs-utils',
  'iproute2',
  'kmod',
  'libdrm-amdgpu1',
  'pciutils',
  'procps',
  'python3',
  'qemu-guest-agent',
  'rdma-core',
  'udev',
];

export interface Userland {
  /** squashfs. */
  imagePath: string;
  /** The guest's own static busybox, for the initial RAM disk. */
  busyboxPath: string;
}

/** Debian 13 user space with the packages, from the cache or made now. */
export async function ensureUserland(packages: readonly string[], onProgress?: Progress): Promise<Userland> {
  const all = mergePackages(basePackages, packages);
  const folder = await cachedFolder('userland', { recipe: 2, packages: all }, async (target) => {
    onProgress?.(`Making the guest's user space from Debian packages (once)`);
    const tarPath = join(target, 'root.tar');
    await makeDebianRoot({ packages: all, state: 'configured', tarPath });
    await unpackTar(tarPath, target, ['usr/bin/busybox']);
    onProgress?.(`Packing the guest's user space`);
    await packTar(tarPath, join(target, 'userland.squashfs'));
    await rm(tarPath);
  });
  return { imagePath: join(folder, 'userland.squashfs'), busyboxPath: join(folder, 'usr/bin/busybox') };
}

/**
 * All of both lists, sorted; a package that `added` wants from a suite (`NAME/forky`) replaces the plain one of `base`.
 */
export function mergePackages(base: readonly string[], added: readonly string[]): string[] {
  const replaced = new Set(added.map((name) => name.split('/')[0]));
  return [...new Set([...base.filter((name) => !replaced.has(name)), ...added])].sort();
}

/** From the archive rather than from a folder: that keeps owners and device nodes without needing root. */
async function packTar(tarPath: string, imagePath: string): Promise<void> {
  // lz4: the guest's processor may be emulated, and its decompression is several times cheaper than the others'.
  const script = 'exec mksquashfs - "$2" -tar -comp lz4 -noappend -quiet -no-progress < "$1"';
  await runCommand('sh', ['-c', script, 'sh', tarPath, imagePath]);
}
