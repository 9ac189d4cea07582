import { readFile } from 'node:fs/promises';
import { describeFurther, explainApt, furtherPackages } from './apt-report.js';
import { HostSetupError } from './errors.js';
import { CommandError, runCommand } from './run-command.js';

/** The release that guests and the private QEMU are made from, on whichever host. */
const guestSuite = 'trixie';
const guestRelease = '13';
const backportsSuite = `${guestSuite}-backports`;

/** Debian packages that a Debian 12 or 13 host needs for everything in this folder. */
export const hostPackages: readonly string[] = [
  'mmdebstrap', // unpacks Debian packages into our own folders
  'debian-archive-keyring', // verifies them
  'squashfs-tools', // makes the guest's read-only file systems
  'kmod', // depmod
  'xz-utils', // Debian's kernel modules are compressed with it
  'util-linux', // flock, setpriv, unshare
];

/** How packages are asked for: from the stable suite with backports visible, or with backports preferred throughout. */
export interface DebianRootRequest {
  /** Packages, optionally with the suite that one is to come from: `NAME/trixie-backports`, `NAME/forky`. */
  packages: readonly string[];
  /** `unpacked` only extracts the packages; `configured` runs their maintainer scripts as a real installation does. */
  state: 'unpacked' | 'configured';
  preferBackports?: boolean;
  /** Folders of /usr/share/doc that are kept; all others are left out. */
  documentation?: readonly string[];
  /** Where the tar archive is written. */
  tarPath: string;
  /** Is told when packages from a named suite bring more of that suite with them, before anything is installed. */
  onProgress?: ((text: string) => void) | undefined;
}

/** A package of the backports suite in a request that otherwise takes the stable one. */
export function fromBackports(packageName: string): string {
  return `${packageName}/${backportsSuite}`;
}

/**
 * The suites that a request for packages needs: the guests' own with its backports, and those that packages name. A
 * package that names none comes from the guests' own suite, if that has it.
 */
export function suitesOf(packages: readonly string[]): string[] {
  const named = packages.flatMap((name) => name.split('/').slice(1));
  return [...new Set([guestSuite, backportsSuite, ...named])];
}

/**
 * The Debian mirror among the addresses apt would update from: the one that has the host's own suite, component main.
 * @param printUris Output of `apt-get --print-uris update`.
 */
export function parseMirror(printUris: string, codename: string): string | undefined {
  for (const line of printUris.split('\n')) {
    const uri = /^'([^']+)'/.exec(line)?.[1];
    const at = uri?.indexOf(`/dists/${codename}/main/binary-`) ?? -1;
    if (uri !== undefined && at > 0) return uri.slice(0, at);
  }
  return undefined;
}

/** Settings of the host's apt that reaching the mirror may depend on, as configuration lines. */
export function parseTransportSettings(aptConfigDump: string): string[] {
  return aptConfigDump
    .split('\n')
    .filter(
      (line) => /^Acquire::(?:https?::|Retries |Check-Valid-Until |ForceIPv)/.test(line) && !line.includes(' "";'),
    );
}

async function hostCodename(): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const codename = /^VERSION_CODENAME="?(\w+)"?$/m.exec(text)?.[1];
  if (!/^ID="?debian"?$/m.test(text) || codename === undefined) {
    throw new HostSetupError(
      'Guest images and the private QEMU are made from Debian packages, and this host is not a Debian release.',
      'Run on Debian 12 or 13 (a container will do).',
    );
  }
  return codename;
}

/** The machine's own Debian mirror, as its apt is set up to use it. */
export async function findMirror(): Promise<string> {
  const codename = await hostCodename();
  const mirror = parseMirror(await runCommand('apt-get', ['--print-uris', 'update']), codename);
  if (mirror === undefined) {
    throw new HostSetupError(
      `apt on this host has no source for Debian's suite "${codename}", component main.`,
      'Add one to /etc/apt/sources.list.d and run: apt-get update',
    );
  }
  return mirror;
}

/**
 * Writes a tar archive of a Debian root folder that holds the packages and all they depend on. Works as root, and as
 * another user where user namespaces are allowed.
 * @throws HostSetupError with mmdebstrap's own words.
 */
export async function makeDebianRoot(request: DebianRootRequest): Promise<void> {
  const mirror = await findMirror();
  const settings = parseTransportSettings(await runCommand('apt-config', ['dump']));
  const suites = suitesOf(request.packages);
  // Without a preference apt would take the newest version of everything.
  const preferred = request.preferBackports ? backportsSuite : guestSuite;
  if (request.preferBackports || suites.length > 2) settings.push(`APT::Default-Release "${preferred}";`);
  const sources = suites.map((suite) => `deb ${mirror} ${suite} main\n`).join('');
  const announces =
    request.onProgress !== undefined &&
    request.state === 'configured' &&
    request.packages.some((name) => name.includes('/'));
  const args = [
    `--variant=${request.state === 'unpacked' ? 'extract' : 'essential'}`,
    '--architectures=amd64',
    '--format=tar',
    '--aptopt=APT::Install-Recommends "false";',
    ...settings.map((setting) => `--aptopt=${setting}`),
    ...['doc', 'man', 'locale', 'info'].map((folder) => `--dpkgopt=path-exclude=/usr/share/${folder}/*`),
    // dpkg makes the folders above a pattern only when its first wildcard follows the package's own folder.
    ...(request.documentation ?? []).map((name) => `--dpkgopt=path-include=/usr/share/doc/${name}/*`),
    ...(announces ? [simulationHook(request.packages)] : []),
    `--include=${request.packages.join(',')}`,
    guestSuite,
    request.tarPath,
    '-',
  ];
  const onStderr = announces ? simulationReader(request) : undefined;
  await runCommand('mmdebstrap', args, { input: sources, onStderr }).catch((error: unknown) => {
    throw explainFailure(error, request.packages);
  });
}

/** A line that ends what the simulation prints. */
const SIMULATED = 'ghostbus: simulated';

/**
 * Has apt say what it is about to install, once the essential packages are there: without them it would find other
 * solutions, or none. Why there is none is for the installation to say.
 */
function simulationHook(packages: readonly string[]): string {
  const names = packages.map((name) => `'${name.replaceAll("'", "'\\''")}'`).join(' ');
  const simulate = `APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --simulate install ${names} 2>/dev/null`;
  return `--essential-hook=${simulate} | grep '^Inst ' >&2; echo '${SIMULATED}' >&2`;
}

/** Takes mmdebstrap's messages, and says what packages of named suites bring with them. */
function simulationReader({ packages, onProgress }: DebianRootRequest): (text: string) => void {
  let seen = '';
  let done = false;
  return (text) => {
    if (done) return;
    seen += text;
    done = seen.split('\n').slice(0, -1).includes(SIMULATED);
    if (!done) return;
    for (const further of furtherPackages(seen, packages, guestRelease)) onProgress?.(describeFurther(further));
  };
}

function explainFailure(error: unknown, packages: readonly string[]): unknown {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
    return new HostSetupError('mmdebstrap is not installed.', `Run: apt-get install ${hostPackages.join(' ')}`);
  }
  if (!(error instanceof CommandError)) return error;
  const failure = explainApt(error.output);
  if (failure !== undefined) {
    return new HostSetupError(`Debian packages could not be installed; apt says:\n${failure.words}`, failure.remedy);
  }
  return new HostSetupError(
    `Debian packages could not be unpacked (${packages.join(', ')}): ${error.message.slice(-4000)}`,
    'Check that you are root or user namespaces are allowed (package uidmap, an entry in /etc/subuid), and that the ' +
      'mirror is reachable (apt-get update).',
  );
}

/**
 * Unpacks an archive of `makeDebianRoot`, without device nodes and without needing root.
 * `members` limits it to some paths.
 */
export async function unpackTar(tarPath: string, folder: string, members: readonly string[] = []): Promise<void> {
  const args = ['--extract', `--file=${tarPath}`, `--directory=${folder}`, '--no-same-owner', '--exclude=./dev/*'];
  await runCommand('tar', [...args, ...members.map((member) => `./${member}`)]);
}

/**
 * All of both lists, sorted; a package that `added` wants from a suite (`NAME/forky`) replaces the plain one of `base`.
 */
export function mergePackages(base: readonly string[], added: readonly string[]): string[] {
  const replaced = new Set(added.map((name) => name.split('/')[0]));
  return [...new Set([...base.filter((name) => !replaced.has(name)), ...added])].sort();
}
