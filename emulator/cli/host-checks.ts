/** What this host has and lacks of what ghostbus needs; one function per question. */

import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, statfsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { cacheFolder, cacheNames, findMirror, findQemu, hostPackages, kvmRunsKernel } from '../../qemu/index.js';

const execute = promisify(execFile);

/** Keep in step with `engines` of package.json. */
const OLDEST_NODE = [20, 19] as const;
/** A QEMU and guest images for both kernels take about 2 GiB, unpacking them as much again for a while. */
const CACHE_BYTES_NEEDED = 4 * 2 ** 30;

export const finding = z
  .strictObject({
    what: z.string(),
    verdict: z.enum(['good', 'note', 'missing']).describe('missing keeps ghostbus from working; note does not'),
    detail: z.string(),
    remedy: z.string().exactOptional().describe('the command or step that mends it'),
  })
  .readonly();
export const findings = z.array(finding).readonly().meta({ title: 'ghostbus doctor --json' });

export type Finding = z.infer<typeof finding>;

export function checkNode(version: string = process.versions.node): Finding {
  const what = 'Node.js';
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [oldestMajor, oldestMinor] = OLDEST_NODE;
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) {
    return { what, verdict: 'good', detail: version };
  }
  const remedy = `install Node.js ${OLDEST_NODE.join('.')} or newer: https://nodejs.org/en/download, or on Debian 13: apt-get install nodejs`;
  return { what, verdict: 'missing', detail: `${version} is too old`, remedy };
}

/** @param osRelease Contents of /etc/os-release. */
export function checkDebian(osRelease: string): Finding {
  const what = 'Debian';
  const name = /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(osRelease)?.[1] ?? 'unknown system';
  const codename = /^VERSION_CODENAME="?(\w+)"?$/m.exec(osRelease)?.[1];
  if (/^ID="?debian"?$/m.test(osRelease) && codename !== undefined) {
    const tried = codename === 'bookworm' || codename === 'trixie';
    return { what, verdict: tried ? 'good' : 'note', detail: tried ? name : `${name}; 12 and 13 are what is tested` };
  }
  const remedy = 'images and the private QEMU are made from Debian packages: use Debian 12 or 13, or a container of it';
  return { what, verdict: 'missing', detail: name, remedy };
}

async function checkPackages(): Promise<Finding> {
  const what = 'Debian packages';
  const installed = await Promise.all(hostPackages.map(isInstalled));
  const absent = hostPackages.filter((_, index) => !installed[index]);
  if (absent.length === 0) return { what, verdict: 'good', detail: hostPackages.join(' ') };
  const sudo = process.getuid?.() === 0 ? '' : 'sudo ';
  return {
    what,
    verdict: 'missing',
    detail: `not installed: ${absent.join(' ')}`,
    remedy: `${sudo}apt-get install ${absent.join(' ')}`,
  };
}

async function isInstalled(packageName: string): Promise<boolean> {
  try {
    const { stdout } = await execute('dpkg-query', ['--status', packageName]);
    return stdout.includes('\nStatus: install ok installed\n');
  } catch {
    // dpkg-query fails for packages it has never heard of.
    return false;
  }
}

async function checkMirror(): Promise<Finding> {
  const what = 'Debian mirror';
  try {
    return { what, verdict: 'good', detail: await findMirror() };
  } catch (error) {
    return { what, verdict: 'missing', detail: (error as Error).message, remedy: 'see /etc/apt/sources.list.d' };
  }
}

/** Unpacking Debian packages needs root, or user namespaces with a range of user ids. */
async function checkUnpacking(uid: number | undefined = process.getuid?.()): Promise<Finding> {
  const what = 'unpacking images';
  if (uid === 0) return { what, verdict: 'good', detail: 'as root' };
  try {
    await execute('unshare', ['--user', '--map-auto', '--map-root-user', 'true']);
    return { what, verdict: 'good', detail: 'in a user namespace' };
  } catch (error) {
    return {
      what,
      verdict: 'missing',
      detail: `user namespaces do not work: ${(error as Error).message.split('\n')[1] ?? 'unshare failed'}`,
      remedy:
        'sudo apt-get install uidmap; sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"',
    };
  }
}

export async function checkKvm(path = '/dev/kvm'): Promise<Finding> {
  const what = 'KVM';
  const without = 'guests run under TCG: slower, and everything works';
  if (!existsSync(path)) return { what, verdict: 'note', detail: `no ${path}; ${without}` };
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
  } catch {
    const remedy = 'sudo usermod --append --groups kvm "$USER", then log in again';
    return { what, verdict: 'note', detail: `${path} is not yours to open; ${without}`, remedy };
  }
  const runs = await tryKernelUnderKvm();
  if (runs === undefined) return { what, verdict: 'note', detail: `${path} can be opened; tried at the first boot` };
  if (runs) return { what, verdict: 'good', detail: 'a kernel runs with it' };
  return { what, verdict: 'note', detail: `${path} can be opened, but no kernel runs with it here; ${without}` };
}

/** Undefined while the cache has no QEMU and kernel to try with. */
async function tryKernelUnderKvm(): Promise<boolean | undefined> {
  const folder = cacheFolder();
  const entries = cacheNames(folder);
  const kernel = entries.find(({ kind }) => kind === 'kernel');
  if (kernel === undefined || !entries.some(({ kind }) => kind === 'qemu')) return undefined;
  return kvmRunsKernel(await findQemu(), join(folder, kernel.name, 'bzImage'));
}

/** @param folder The cache folder; it need not exist. */
function checkDisk(folder: string = cacheFolder()): Finding {
  const what = 'disk space';
  let existing = folder;
  while (!existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = statfsSync(existing);
  const freeBytes = bavail * bsize;
  const detail = `${(freeBytes / 2 ** 30).toFixed(1)} GiB free for ${folder}`;
  const cached = cacheNames(folder).length > 0;
  if (cached || freeBytes >= CACHE_BYTES_NEEDED) return { what, verdict: 'good', detail };
  const remedy = `free ${CACHE_BYTES_NEEDED / 2 ** 30} GiB there, or set XDG_CACHE_HOME to a folder on another disk`;
  return { what, verdict: 'missing', detail, remedy };
}

export function checkCache(folder: string = cacheFolder()): Finding {
  const what = 'images';
  const entries = cacheNames(folder);
  const count = (kind: string) => entries.filter((entry) => entry.kind === kind).length;
  const detail =
    entries.length === 0
      ? `none in ${folder} yet; the first run makes them, which takes some minutes`
      : `${folder} has ${count('kernel')} kernels, ${count('userland')} user spaces, ${count('qemu')} QEMU`;
  return { what, verdict: entries.length === 0 ? 'note' : 'good', detail };
}

/** All of them, in the order of a set-up. */
export async function checkHost(): Promise<Finding[]> {
  const osRelease = join('/etc', 'os-release');
  return [
    checkNode(),
    checkDebian(existsSync(osRelease) ? readFileSync(osRelease, 'utf8') : ''),
    await checkPackages(),
    await checkMirror(),
    await checkUnpacking(),
    await checkKvm(),
    checkDisk(),
    checkCache(),
  ];
}
