import { existsSync } from 'node:fs';
import { copyFile, mkdir, open, readdir, readFile, rm, stat, symlink } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { cachedFolder } from './cache.js';
import { fromBackports, makeDebianRoot, unpackTar } from './debian.js';
import { HostSetupError } from './errors.js';
import type { Progress } from './provision.js';
import { runCommand } from './run-command.js';

/** A kernel ready to boot, with its modules as a squashfs and those for the initial RAM disk beside it. */
export interface GuestKernel {
  bzImagePath: string;
  release: string;
  modulesPath: string;
  /** Modules that the initial RAM disk needs, uncompressed, in loading order. Empty when all are built in. */
  initrdModulePaths: readonly string[];
}

/** What finds, mounts and overlays the root file system. */
const initrdModules = ['virtio_pci', 'virtio_blk', 'squashfs', 'overlay'];
const initrdOptions = 'CONFIG_VIRTIO_PCI, CONFIG_VIRTIO_BLK, CONFIG_SQUASHFS with SQUASHFS_LZ4, and CONFIG_OVERLAY_FS';

/** Counts up when kernels are packed differently. */
const RECIPE = 2;

const debianPackages = { lts: 'linux-image-amd64', latest: fromBackports('linux-image-amd64') } as const;

/** Debian's kernels, as `--kernel` names them; anything else that it takes is a path. */
export type DebianKernel = keyof typeof debianPackages;

export function isDebianKernel(choice: string): choice is DebianKernel {
  return Object.hasOwn(debianPackages, choice);
}

/** A kernel and its modules as they lie in a folder, before packing. */
export interface KernelTree {
  bzImagePath: string;
  release: string;
  /** The folder named after the release. */
  modulesFolder: string;
  /** The folder that was given, or those in which a file that was given may have its modules. */
  roots: readonly string[];
}

/**
 * The kernel named by `choice`: `lts`, `latest`, or a path. A path may be
 * - a folder as `make dir-pkg` leaves it (`tar-install/`) or a Debian kernel package unpacks to:
 *   `boot/vmlinuz-*` and `lib/modules/`,
 * - a kernel build tree (`arch/x86/boot/bzImage`) after `make INSTALL_MOD_PATH=. modules_install`,
 * - a bzImage file with `lib/modules/RELEASE` in its own folder or the one above.
 * @throws HostSetupError saying what is missing from a kernel of the user's own.
 */
export async function ensureKernel(choice: string, onProgress?: Progress): Promise<GuestKernel> {
  const folder = isDebianKernel(choice) ? debianKernel(choice, onProgress) : userKernel(choice, onProgress);
  return readPackedKernel(await folder);
}

async function debianKernel(choice: DebianKernel, onProgress?: Progress): Promise<string> {
  const packageName = debianPackages[choice];
  const build = async (target: string) => {
    onProgress?.(`Fetching Debian's ${choice} kernel (once)`);
    const root = join(target, 'root');
    await mkdir(root);
    const tarPath = join(target, 'root.tar');
    await makeDebianRoot({ packages: [packageName], state: 'unpacked', tarPath });
    await unpackTar(tarPath, root);
    await rm(tarPath);
    await packKernel(await findKernelTree(root), target, onProgress);
    await rm(root, { recursive: true });
  };
  const description = `Debian's ${choice} kernel`;
  return cachedFolder('kernel', { recipe: RECIPE, packageName }, build, { description, onProgress });
}

async function userKernel(path: string, onProgress?: Progress): Promise<string> {
  const tree = await findKernelTree(resolve(path));
  const config = kernelConfigPath(tree) ?? [];
  const marks = [tree.bzImagePath, tree.modulesFolder, join(tree.modulesFolder, 'modules.order')].concat(config);
  const states = await Promise.all(marks.map((mark) => stat(mark).catch(() => undefined)));
  const inputs = states.map((state, index) => [marks[index], state?.size, state?.mtimeMs]);
  const build = (target: string) => packKernel(tree, target, onProgress);
  const description = `${tree.release} of ${path}`;
  return cachedFolder('kernel', { recipe: RECIPE, inputs }, build, { description, onProgress });
}

/** @throws HostSetupError saying what is missing. */
export async function findKernelTree(path: string): Promise<KernelTree> {
  const state = await stat(path).catch(() => undefined);
  if (state === undefined) {
    throw new HostSetupError(`There is no kernel at ${path}.`, 'Give --kernel lts, latest, or the path of a kernel.');
  }
  const roots = state.isDirectory() ? [path] : [dirname(path), dirname(dirname(path))];
  const bzImagePath = state.isDirectory() ? await findBzImage(path) : path;
  const release = await readKernelRelease(bzImagePath);
  const candidates = roots.flatMap((root) => ['usr/lib', 'lib'].map((lib) => join(root, lib, 'modules', release)));
  const modulesFolder = candidates.find((candidate) => existsSync(candidate));
  if (modulesFolder === undefined) {
    throw new HostSetupError(
      `The kernel ${bzImagePath} (${release}) has no modules; looked for ${candidates.join(', ')}.`,
      `In the kernel's tree, run: make INSTALL_MOD_PATH=${roots[0]} modules_install`,
    );
  }
  return { bzImagePath, release, modulesFolder, roots };
}

/** Where `make dir-pkg`, `make install`, distributions, and the build itself leave a configuration. */
export function kernelConfigPaths({ release, modulesFolder, roots, bzImagePath }: KernelTree): string[] {
  const besideImage = join(dirname(bzImagePath), `config-${release}`);
  return [
    ...roots.flatMap((root) => [join(root, '.config'), join(root, 'boot', `config-${release}`)]),
    besideImage,
    join(modulesFolder, 'config'),
    join(modulesFolder, 'build', '.config'),
  ].filter((path, index, all) => all.indexOf(path) === index);
}

/** The kernel's configuration, if it lies in one of its places. */
export function kernelConfigPath(tree: KernelTree): string | undefined {
  return kernelConfigPaths(tree).find((path) => existsSync(path));
}

async function findBzImage(folder: string): Promise<string> {
  const found: string[] = [];
  for (const name of await listFolder(join(folder, 'boot'))) {
    if (name.startsWith('vmlinuz')) found.push(join(folder, 'boot', name));
  }
  // Debian's packages from 6.17 on keep the kernel among its modules.
  for (const release of await listFolder(join(folder, 'usr/lib/modules'))) {
    found.push(join(folder, 'usr/lib/modules', release, 'vmlinuz'));
  }
  found.push(join(folder, 'arch/x86/boot/bzImage'), join(folder, 'bzImage'), join(folder, 'vmlinuz'));
  const existing = found.filter((path) => existsSync(path));
  if (existing[0] !== undefined) return existing[0];
  throw new HostSetupError(
    `No kernel in ${folder}: looked for boot/vmlinuz-*, arch/x86/boot/bzImage, bzImage and vmlinuz.`,
    'Give the bzImage itself, the tar-install folder of "make dir-pkg", or a built kernel tree.',
  );
}

async function listFolder(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
}

/**
 * The release string in a bzImage's header.
 * @throws HostSetupError when the file is not a bzImage.
 */
async function readKernelRelease(path: string): Promise<string> {
  const file = await open(path);
  try {
    const header = Buffer.alloc(0x8000);
    await file.read(header, 0, header.length, 0);
    const release = parseKernelRelease(header);
    if (release !== undefined) return release;
  } finally {
    await file.close();
  }
  throw new HostSetupError(`${path} is not an x86 kernel (bzImage).`, 'Give the bzImage, not vmlinux or a package.');
}

/**
 * @param header The first 32 KiB of the file. Offsets: Linux Documentation/arch/x86/boot.rst,
 * "The Real-Mode Kernel Header".
 */
export function parseKernelRelease(header: Buffer): string | undefined {
  const magicOffset = 0x202;
  const versionPointerOffset = 0x20e;
  if (header.length < 0x400 || header.toString('latin1', magicOffset, magicOffset + 4) !== 'HdrS') return undefined;
  const start = header.readUInt16LE(versionPointerOffset) + 0x200;
  const end = header.indexOf(0, start);
  return /^\S+/.exec(header.toString('latin1', start, end))?.[0];
}

async function packKernel(tree: KernelTree, target: string, onProgress?: Progress): Promise<void> {
  onProgress?.(`Packing the modules of kernel ${tree.release}`);
  await copyFile(tree.bzImagePath, join(target, 'bzImage'));
  const root = join(target, 'modules');
  const modules = join(root, 'usr/lib/modules', tree.release);
  await mkdir(dirname(modules), { recursive: true });
  await runCommand('cp', ['-r', '--no-dereference', tree.modulesFolder, modules]);
  for (const unneeded of ['build', 'source', 'vmlinuz', 'System.map']) {
    await rm(join(modules, unneeded), { recursive: true, force: true });
  }
  await layOutConfig(tree, root);
  await decompressModules(modules);
  // depmod looks below lib/modules, and the guest's /lib is a link to usr/lib.
  await symlink('usr/lib', join(root, 'lib'));
  await runCommand('depmod', ['-b', root, tree.release]).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    throw new HostSetupError('depmod is not installed.', 'Run: apt-get install kmod');
  });
  await keepInitrdModules(modules, join(target, 'initrd-modules'));
  const image = join(target, 'modules.squashfs');
  await runCommand('mksquashfs', [root, image, '-comp', 'lz4', '-all-root', '-noappend', '-quiet', '-no-progress']);
  await rm(root, { recursive: true });
}

/** In Debian a kernel's configuration lies in /boot: programs look there for what the kernel can do. */
async function layOutConfig(tree: KernelTree, root: string): Promise<void> {
  const config = kernelConfigPath(tree);
  if (config === undefined) return;
  await mkdir(join(root, 'boot'));
  await copyFile(config, join(root, 'boot', `config-${tree.release}`));
}

const moduleCompressions: readonly (readonly [suffix: string, decompress: readonly string[]])[] = [
  ['xz', ['xz', '-d']],
  ['zst', ['zstd', '-q', '-d', '--rm']],
  ['gz', ['gzip', '-d']],
];

/** Decompressing once here saves every boot from doing it, on an emulated processor. */
async function decompressModules(folder: string): Promise<void> {
  const script =
    'folder=$1; suffix=$2; shift 2; find "$folder" -name "*.ko.$suffix" -print0 | xargs -0 -r -n 64 -P 4 "$@"';
  for (const [suffix, decompress] of moduleCompressions) {
    await runCommand('sh', ['-c', script, 'sh', folder, suffix, ...decompress]);
  }
}

async function keepInitrdModules(modules: string, target: string): Promise<void> {
  await mkdir(target);
  const dependencies = parseModulesDep(await readFile(join(modules, 'modules.dep'), 'utf8'));
  const builtin = await readFile(join(modules, 'modules.builtin'), 'utf8').catch(() => '');
  const builtinNames = new Set(builtin.split('\n').map(moduleName));
  const missing = initrdModules.filter((name) => !dependencies.has(name) && !builtinNames.has(name));
  if (missing.length > 0) {
    throw new HostSetupError(
      `The kernel has neither built in nor as module: ${missing.join(', ')}.`,
      `Build it with ${initrdOptions}.`,
    );
  }
  const paths = loadingOrder(initrdModules, dependencies);
  for (const [index, path] of paths.entries()) {
    await copyFile(join(modules, path), join(target, `${String(index).padStart(2, '0')}-${basename(path)}`));
  }
}

/** Module name -> its path and those of all modules it needs, as in modules.dep. */
export type ModuleDependencies = ReadonlyMap<string, readonly string[]>;

/** Module names are the same with `-` and `_`. */
function moduleName(path: string): string {
  return basename(path.trim())
    .replace(/\.ko.*$/, '')
    .replaceAll('-', '_');
}

export function parseModulesDep(text: string): ModuleDependencies {
  const dependencies = new Map<string, readonly string[]>();
  for (const line of text.split('\n')) {
    const [path, needed] = line.split(':');
    if (!path || needed === undefined) continue;
    dependencies.set(moduleName(path), [path, ...needed.trim().split(/\s+/).filter(Boolean)]);
  }
  return dependencies;
}

/** Paths to load, each after what it needs; names that are not modules (built in) are left out. */
export function loadingOrder(names: readonly string[], dependencies: ModuleDependencies): string[] {
  const order: string[] = [];
  for (const name of names) {
    // modules.dep lists needed modules nearest first, so the last one has to be loaded first.
    for (const path of [...(dependencies.get(name) ?? [])].reverse()) {
      if (!order.includes(path)) order.push(path);
    }
  }
  return order;
}

async function readPackedKernel(folder: string): Promise<GuestKernel> {
  const bzImagePath = join(folder, 'bzImage');
  const names = (await readdir(join(folder, 'initrd-modules'))).sort();
  return {
    bzImagePath,
    release: await readKernelRelease(bzImagePath),
    modulesPath: join(folder, 'modules.squashfs'),
    initrdModulePaths: names.map((name) => join(folder, 'initrd-modules', name)),
  };
}
