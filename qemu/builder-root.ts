import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedFolder } from './cache.js';
import { fromBackports, makeDebianRoot, mergePackages, unpackTar } from './debian.js';
import { HostSetupError } from './errors.js';
import type { GuestImage } from './image.js';
import type { Progress } from './provision.js';
import { runCommand } from './run-command.js';

const basePackages: readonly string[] = ['gcc', 'libc6-dev', 'make'];

/**
 * A Debian 13 root folder with a compiler and further packages, such as libraries that guest programs use. Commands run
 * in it by `runInRoot`.
 */
export async function compilerRoot(packages: readonly string[] = [], onProgress?: Progress): Promise<string> {
  const compilerPackages = mergePackages(basePackages, packages);
  const build = async (target: string) => {
    onProgress?.("Making a folder with the guest's compiler from Debian packages (once)");
    const tarPath = `${target}.tar`;
    try {
      await makeDebianRoot({ packages: compilerPackages, state: 'configured', tarPath, onProgress });
      await unpackTar(tarPath, target);
      await addWhatBuildsNeed(target);
    } finally {
      await rm(tarPath, { force: true });
    }
  };
  const description = compilerPackages.join(' ');
  return cachedFolder('compiler', { recipe: 3, compilerPackages }, build, { description, onProgress });
}

/**
 * The compiler's root with the headers of the image's kernel added, which is one of Debian's.
 * @throws HostSetupError when the mirror does not have the headers of just this release (any more).
 */
export async function kernelBuildRoot(
  { kernel, kernelRelease: release }: Pick<GuestImage, 'kernel' | 'kernelRelease'>,
  packages?: readonly string[],
  onProgress?: Progress,
): Promise<string> {
  const compiler = await compilerRoot(packages, onProgress);
  const name = `linux-headers-${release}`;
  const build = async (target: string) => {
    onProgress?.(`Fetching the headers of kernel ${release} (once)`);
    const tarPath = `${target}.tar`;
    try {
      const packages = [kernel === 'latest' ? fromBackports(name) : name];
      await makeDebianRoot({ packages, state: 'unpacked', tarPath }).catch((error: unknown) => {
        if (!(error instanceof HostSetupError)) throw error;
        const remedy = `If the mirror has a newer kernel by now, remove the cached kernel of release ${release} and try again.`;
        throw new HostSetupError(error.message, remedy);
      });
      // Hard links: the compiler takes no second gigabyte. tar replaces files instead of writing into them.
      await runCommand('cp', ['-al', `${compiler}/.`, target]);
      await unpackTar(tarPath, target, ['usr/src', 'usr/lib']);
    } finally {
      await rm(tarPath, { force: true });
    }
  };
  const description = `compiler and headers of ${release}`;
  return cachedFolder('kernel-headers', { recipe: 1, compiler, name }, build, { description, onProgress });
}

/**
 * The folder of that kernel's source tree as far as Debian's headers package has it: `include/` and more below.
 * @throws HostSetupError as {@link kernelBuildRoot}
 */
export async function kernelHeaderTree(...request: Parameters<typeof kernelBuildRoot>): Promise<string> {
  const sources = join(await kernelBuildRoot(...request), 'usr/src');
  const found = (await readdir(sources)).filter((name) => name.endsWith('-common'));
  if (found.length === 1) return join(sources, found[0]!);
  throw new Error(`${sources} has ${found.length} folders of a kernel's common headers; remove it and try again`);
}

// Linux Documentation/admin-guide/devices.txt, character major 1.
const deviceNodes: readonly (readonly [name: string, minor: number])[] = [
  ['null', 3],
  ['zero', 5],
  ['urandom', 9],
];

const isRoot = process.getuid?.() === 0;

/**
 * Mounting /proc and /dev would need more rights than a container has. So root makes the few devices that a
 * build opens (any other user gets the host's /dev, see `runInRoot`), and objtool finds in a plain file
 * where its stack lies: it insists on knowing, though it only uses that to word its message should it crash
 * (Linux tools/objtool/signal.c read_stack_limit).
 */
async function addWhatBuildsNeed(root: string): Promise<void> {
  await mkdir(join(root, 'proc/self'), { recursive: true });
  await writeFile(join(root, 'proc/self/maps'), '7ff000000000-7ffffffff000 rw-p 00000000 00:00 0    [stack]\n');
  await mkdir(join(root, 'dev'), { recursive: true });
  if (!isRoot) return;
  for (const [name, minor] of deviceNodes) {
    await runCommand('mknod', ['-m', '666', join(root, 'dev', name), 'c', '1', String(minor)]);
  }
}

/**
 * Makes a folder inside a root, gives it to `work`, and removes it. `work` gets its path seen
 * from outside and from inside.
 */
export async function withScratchFolder<T>(
  root: string,
  work: (outside: string, inside: string) => Promise<T>,
): Promise<T> {
  const outside = await mkdtemp(join(root, 'tmp', 'build-'));
  try {
    return await work(outside, outside.slice(root.length));
  } finally {
    await rm(outside, { recursive: true });
  }
}

/**
 * Runs a shell script with the root folder as /. Positional parameters are passed as they are.
 * @throws CommandError with its output.
 */
export async function runInRoot(root: string, script: string, parameters: readonly string[] = []): Promise<string> {
  const command = ['/bin/sh', '-c', `${script}`, 'sh', ...parameters];
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };
  if (isRoot) return runCommand('chroot', [root, ...command], { env });
  const enter = 'mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"';
  return runCommand('unshare', ['--map-root-user', '--mount', 'sh', '-c', enter, root, ...command], { env });
}
