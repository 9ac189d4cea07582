import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import type { GuestFile } from '../emulator/plugin/guest.js';
import { packageFile } from '../emulator/plugin/package-file.js';
import { compilerRoot, kernelBuildRoot, runInRoot, withScratchFolder } from './builder-root.js';
import { cachedFolder, contentHash } from './cache.js';
import { HostSetupError } from './errors.js';
import type { GuestImage } from './image.js';
import { isDebianKernel } from './kernel.js';
import { userBuildTree } from './kernel-config.js';
import type { Progress } from './provision.js';
import { CommandError, runCommand } from './run-command.js';

export interface GuestBuildOptions {
  /**
   * Kernel modules are built against the headers of this image's kernel; for a kernel of the
   * user's own, in the tree it was built in.
   */
  image: GuestImage;
  /** C files or folders of C files, beside those of `qemu/guest`; each file becomes /usr/local/bin/NAME. */
  programs?: readonly string[];
  /** Folders with a Kbuild file (or a Makefile for kbuild); their modules go to /usr/lib/modules/RELEASE/extra. */
  moduleFolders?: readonly string[];
  /** Debian packages that the programs are compiled with. */
  buildPackages?: readonly string[];
  onProgress?: Progress;
}

/**
 * Compiles programs and kernel modules for the guest with Debian 13's own compiler, or takes them from the cache. The
 * result is passed to `bootGuest` as `extraFiles`.
 *
 * A program is one C file; headers beside it and those of `qemu/guest` may be included. Of its leading `//` lines, `//
 * link: -lfoo` adds compiler flags and `// headers: ../driver` a folder, relative to the file, with further headers.
 * @throws Error with the compiler's output when something does not compile.
 */
export async function buildGuestPrograms(options: GuestBuildOptions): Promise<GuestFile[]> {
  const common = packageFile(import.meta.url, 'qemu/guest');
  const files: GuestFile[] = [];
  for (const path of await programPaths([common, ...(options.programs ?? [])])) {
    files.push(await buildProgram(await readProgram(path, common), options));
  }
  const folders = [...new Set(options.moduleFolders)];
  if (folders.length > 0) files.push(...(await buildModules(folders, options)));
  return files;
}

/** Contents of all files below a folder that a build may read, by relative path. */
async function sourceFiles(folder: string): Promise<Map<string, string>> {
  const sources = new Map<string, string>();
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const entry of entries.filter((found) => found.isFile())) {
    if (!/\.[chS]$|^(?:Kbuild|Kconfig|Makefile)$/.test(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    sources.set(path.slice(folder.length + 1), await readFile(path, 'utf8'));
  }
  return new Map([...sources].sort(([left], [right]) => (left < right ? -1 : 1)));
}

async function writeSources(sources: ReadonlyMap<string, string>, folder: string): Promise<void> {
  for (const [path, text] of sources) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }
}

/** The words after `// KEY:` among a program's leading comment lines, for example of `// link: -lfoo`. */
export function parseDirective(source: string, key: 'link' | 'headers'): string[] {
  for (const line of source.split('\n')) {
    if (!line.startsWith('//')) break;
    if (line.startsWith(`// ${key}:`))
      return line
        .slice(key.length + 4)
        .trim()
        .split(/\s+/)
        .filter(Boolean);
  }
  return [];
}

/** All that the outcome of compiling one program depends on. */
interface ProgramSources {
  name: string;
  /** Path of the program among `files`. */
  main: string;
  /** By path relative to the build's folder. */
  files: ReadonlyMap<string, string>;
  flags: readonly string[];
}

/** @param common The folder whose headers every program may include. */
async function readProgram(path: string, common: string): Promise<ProgramSources> {
  const text = await readFile(path, 'utf8');
  const files = new Map<string, string>([[basename(path), text]]);
  const flags = parseDirective(text, 'link');
  const addHeaders = async (folder: string, place: string) => {
    for (const [name, contents] of await sourceFiles(folder)) {
      if (name.endsWith('.h')) files.set(join(place, name), contents);
    }
  };
  await addHeaders(dirname(path), '');
  for (const [index, folder] of parseDirective(text, 'headers').entries()) {
    await addHeaders(resolve(dirname(path), folder), `headers${index}`);
    flags.push(`-Iheaders${index}`);
  }
  if (dirname(path) !== common) {
    await addHeaders(common, 'common');
    flags.push('-Icommon');
  }
  return { name: basename(path, '.c'), main: basename(path), files, flags };
}

/** Each program's path once. @throws Error when two would have one name in the guest */
export async function programPaths(sources: readonly string[]): Promise<string[]> {
  const paths = new Map<string, string>();
  for (const source of new Set(sources)) {
    const isFile = (await stat(source)).isFile();
    const names = isFile ? [basename(source)] : (await readdir(source)).filter((name) => name.endsWith('.c')).sort();
    for (const name of names) {
      const path = join(isFile ? dirname(source) : source, name);
      const other = paths.get(name);
      if (other !== undefined && other !== path) {
        throw new Error(
          `two programs for the guest are called ${basename(name, '.c')}: ${other} and ${path}; rename one`,
        );
      }
      paths.set(name, path);
    }
  }
  return [...paths.values()];
}

async function buildProgram(program: ProgramSources, options: GuestBuildOptions): Promise<GuestFile> {
  const { name, main, files, flags } = program;
  const { buildPackages, onProgress } = options;
  const build = async (target: string) => {
    const root = await compilerRoot(buildPackages, onProgress);
    onProgress?.(`Compiling ${main} for the guest`);
    await withScratchFolder(root, async (outside, inside) => {
      await writeSources(files, outside);
      await runInRoot(root, compileScript, [inside, name, main, ...flags]).catch((error: unknown) => {
        throw compilerError(error, main);
      });
      await cp(join(outside, name), join(target, name));
    });
  };
  const inputs = { recipe: 2, main, flags, files: [...files] };
  const folder = await cachedFolder('program', inputs, build, { description: main, onProgress });
  return { path: `/usr/local/bin/${name}`, mode: 0o755, contents: await readFile(join(folder, name)) };
}

const compileScript =
  'cd "$1" && out=$2 && in=$3 && shift 3 && ' +
  'exec gcc -std=gnu17 -O2 -g -Wall -Wextra -o "$out" "$in" -pthread "$@"';

function compilerError(error: unknown, what: string): unknown {
  return error instanceof CommandError ? new Error(`${what} does not compile for the guest:\n${error.output}`) : error;
}

async function buildModules(folders: readonly string[], options: GuestBuildOptions): Promise<GuestFile[]> {
  const { image, onProgress } = options;
  const make = await moduleMaker(options);
  const kernel = contentHash([image.kernelPath, image.modulesPath]);
  const built: string[] = [];
  for (const folder of folders) {
    const sources = await sourceFiles(folder);
    const inputs = { recipe: 2, kernel, sources: [...sources] };
    const build = async (target: string) => {
      onProgress?.(`Compiling the kernel module in ${folder}`);
      await makeModule(make, sources, target);
    };
    const description = `${folder} for ${image.kernelRelease}`;
    built.push(await cachedFolder('module', inputs, build, { description, onProgress }));
  }
  const indexInputs = { recipe: 1, kernel, built };
  const buildIndex = async (target: string) => {
    onProgress?.('Indexing the kernel modules');
    await indexModules(image, built, target);
  };
  const description = `for ${built.length} modules and ${image.kernelRelease}`;
  const index = await cachedFolder('module-index', indexInputs, buildIndex, { description, onProgress });
  const files = await Promise.all([...built, index].map((folder) => moduleFiles(folder, image.kernelRelease)));
  return files.flat();
}

/** Writes sources to a folder, builds them there, and lets `work` take what came out. */
type ModuleMaker = (
  sources: ReadonlyMap<string, string>,
  work: (builtFolder: string) => Promise<void>,
) => Promise<void>;

/** Type information for BPF would need the kernel's own vmlinux, which Debian does not ship. */
const KBUILD_ARGUMENTS = ['CONFIG_DEBUG_INFO_BTF_MODULES=', 'modules'];

/**
 * Debian's kernels have headers to build against, in a root of our own. A user's has the tree
 * that it was built in, on this host.
 */
async function moduleMaker({ image, buildPackages, onProgress }: GuestBuildOptions): Promise<ModuleMaker> {
  if (isDebianKernel(image.kernel)) {
    return async (sources, work) => {
      const root = await kernelBuildRoot(image, buildPackages, onProgress);
      const script = `exec make -s -C "/usr/src/linux-headers-$1" M="$2" ${KBUILD_ARGUMENTS.join(' ')} 2>&1`;
      await withScratchFolder(root, async (outside, inside) => {
        await writeSources(sources, outside);
        await runInRoot(root, script, [image.kernelRelease, inside]);
        await work(outside);
      });
    };
  }
  const tree = await userBuildTree(image.kernel);
  if (tree === undefined) {
    throw new HostSetupError(
      `Kernel modules cannot be built here for the kernel ${image.kernel}: it is no tree in which "make modules" was run for ${image.kernelRelease}.`,
      `Build and install them in its own tree, next to its other modules, or use --kernel lts or latest.`,
    );
  }
  return async (sources, work) => {
    const outside = await mkdtemp(join(tmpdir(), 'ghostbus-module-'));
    try {
      await writeSources(sources, outside);
      await runCommand('make', ['-s', '-C', tree, `M=${outside}`, ...KBUILD_ARGUMENTS]);
      await work(outside);
    } finally {
      await rm(outside, { recursive: true });
    }
  };
}

async function makeModule(make: ModuleMaker, sources: ReadonlyMap<string, string>, target: string): Promise<void> {
  const build = make(sources, async (folder) => {
    const modules = (await readdir(folder)).filter((name) => name.endsWith('.ko'));
    if (modules.length === 0) throw new Error('a kernel module was made without a .ko file; its Kbuild needs "obj-m"');
    await mkdir(join(target, 'extra'), { recursive: true });
    for (const name of modules) await cp(join(folder, name), join(target, 'extra', name));
  });
  await build.catch((error: unknown) => {
    throw compilerError(error, [...sources.keys()].join(', '));
  });
}

/** Runs depmod over the image's modules and ours together, so that `modprobe` and udev find ours too. */
async function indexModules(image: GuestImage, built: readonly string[], target: string): Promise<void> {
  const scratch = await mkdtemp(join(tmpdir(), 'ghostbus-depmod-'));
  try {
    const root = join(scratch, 'root');
    await runCommand('unsquashfs', ['-no-progress', '-quiet', '-dest', root, image.modulesPath, 'usr/lib/modules']);
    const modules = join(root, 'usr/lib/modules', image.kernelRelease);
    for (const folder of built) await cp(join(folder, 'extra'), join(modules, 'extra'), { recursive: true });
    await symlink('usr/lib', join(root, 'lib'));
    await runCommand('depmod', ['-b', root, image.kernelRelease]);
    const indexes = (await readdir(modules)).filter((name) => name.endsWith('.bin'));
    for (const name of indexes) await cp(join(modules, name), join(target, name));
  } finally {
    await rm(scratch, { recursive: true });
  }
}

async function moduleFiles(folder: string, release: string): Promise<GuestFile[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map(async (entry) => {
        const path = join(entry.parentPath, entry.name);
        const inGuest = `/usr/lib/modules/${release}${path.slice(folder.length)}`;
        return { path: inGuest, contents: await readFile(path) };
      }),
  );
}
