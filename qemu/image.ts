import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { GuestFile } from '../emulator/plugin/guest.js';
import { packageFile } from '../emulator/plugin/package-file.js';
import { cachedFolder, contentHash } from './cache.js';
import { writeCpio } from './cpio.js';
import { ensureKernel, type GuestKernel } from './kernel.js';
import type { Progress } from './provision.js';
import { ensureUserland, type Userland } from './userland.js';

/** What a guest boots from. All paths are on the host, in the user's cache, and are never written to. */
export interface GuestImage {
  /** bzImage. */
  kernelPath: string;
  /** As `uname -r` prints it in the guest. */
  kernelRelease: string;
  /** Which kernel was asked for: `lts`, `latest` or a path. */
  kernel: string;
  /** Initial RAM disk with our init. */
  initrdPath: string;
  /** squashfs with user space. */
  userlandPath: string;
  /** squashfs with /usr/lib/modules/RELEASE. */
  modulesPath: string;
}

export interface ImageOptions {
  /** `lts` (Debian 13's kernel), `latest` (Debian 13 backports' kernel), or the path of a kernel of the user's own. */
  kernel: string;
  /** Debian packages to add to user space. */
  packages?: readonly string[];
  /** Folders of /usr/share/doc to keep: some packages have their tests there. */
  documentation?: readonly string[];
  onProgress?: Progress;
}

/**
 * Makes the image for the options, or takes it from the cache. An image stays as it was made, whatever the mirror has
 * since released; removing the cache folder makes a new one.
 * @throws HostSetupError when the host lacks what is needed, or a user's kernel is unsuitable.
 */
export async function ensureImage(options: ImageOptions): Promise<GuestImage> {
  const kernel = await ensureKernel(options.kernel, options.onProgress);
  const userland = await ensureUserland(options);
  return {
    kernelPath: kernel.bzImagePath,
    kernelRelease: kernel.release,
    kernel: options.kernel,
    initrdPath: await ensureInitrd(kernel, userland, options.onProgress),
    userlandPath: userland.imagePath,
    modulesPath: kernel.modulesPath,
  };
}

/** Where the init copies files from into the guest's root. */
const overlayFolder = '/overlay';

/** An archive to be unpacked over the guest's root. */
export function overlayArchive(files: readonly GuestFile[]): Buffer {
  return writeCpio(files.map((file) => ({ ...file, path: resolveMergedUsr(file.path) })));
}

/** Debian's /lib and the like are links into /usr; a folder copied over such a link would fail. */
function resolveMergedUsr(path: string): string {
  return path.replace(/^\/(?:lib|lib64|bin|sbin)\//, '/usr$&');
}

async function ensureInitrd(kernel: GuestKernel, userland: Userland, onProgress?: Progress): Promise<string> {
  const files = await initrdFiles(kernel, userland);
  const inputs = files.map(({ path, mode, contents }) => [
    path,
    mode,
    contentHash(Buffer.from(contents).toString('base64')),
  ]);
  const build = (target: string) => writeFile(join(target, 'initrd'), writeCpio(files));
  const folder = await cachedFolder('initrd', { recipe: 1, inputs }, build, {
    description: `for ${kernel.release}`,
    onProgress,
  });
  return join(folder, 'initrd');
}

async function initrdFiles(kernel: GuestKernel, userland: Userland): Promise<GuestFile[]> {
  const modules = await Promise.all(
    kernel.initrdModulePaths.map(async (path) => ({
      path: `/modules/${basename(path)}`,
      contents: await readFile(path),
    })),
  );
  // The empty files make the folders that the init mounts on.
  const mountPoints = ['dev', 'proc', 'sys', 'userland', 'kernel', 'writable', 'root', 'overlay'];
  return [
    { path: '/bin/busybox', mode: 0o755, contents: await readFile(userland.busyboxPath) },
    ...mountPoints.map((name) => ({ path: `/${name}/.mount-point`, contents: Buffer.alloc(0) })),
    ...modules,
    { path: '/modules.list', contents: Buffer.from(modules.map(({ path }) => `${path}\n`).join('')) },
    ...(await ownFiles()),
  ];
}

/** The files of qemu/guest-root: the init itself at the top, all others for the guest's root. */
async function ownFiles(): Promise<GuestFile[]> {
  const root = packageFile(import.meta.url, 'qemu/guest-root');
  const names = await readdir(root, { recursive: true, withFileTypes: true });
  const files: GuestFile[] = [];
  for (const name of names.filter((entry) => entry.isFile())) {
    const path = join(name.parentPath, name.name);
    const inGuest = path.slice(root.length);
    const { mode } = await stat(path);
    files.push({
      path: inGuest === '/init' ? inGuest : overlayFolder + inGuest,
      mode: mode & 0o111 ? 0o755 : 0o644,
      contents: await readFile(path),
    });
  }
  return files.sort((left, right) => (left.path < right.path ? -1 : 1));
}
