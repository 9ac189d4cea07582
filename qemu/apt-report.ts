/** What apt says, for people: why packages cannot be installed, and which ones come along from another suite. */

/** What to tell, and what to do about it. */
export interface AptFailure {
  /** The lines in which apt says why, as it prints them. */
  readonly words: string;
  readonly remedy: string;
}

const UNREACHABLE =
  /^(?:[EW]|Error): (?:Failed to fetch|Unable to fetch|Some index files failed to download)|^Err:\d+ .*\n\s+(?!404 |\s)/m;

/** In the order in which they are tried: what apt's words have, and what then helps. */
const REMEDIES: readonly (readonly [words: RegExp, remedy: string])[] = [
  [/does not have a Release file/, 'The mirror has no such suite: check the name after the slash of NAME/SUITE.'],
  [
    /Unable to locate package|no installation candidate|Couldn't find any package|^\S+ (?:Release|Version) '.*' for /m,
    "Check name and suite (packages.debian.org has them all); guests take packages of Debian's component main.",
  ],
  [
    /dpkg/,
    'A script of a package failed while that was installed: leave the package out, or try it from another suite ' +
      '(NAME/SUITE).',
  ],
];
const CONFLICT_REMEDY =
  'Leave out one of those that exclude each other, or take it from another suite: NAME/SUITE, or NAME without one.';

/** A line of mmdebstrap's own about a program that failed: that program has said why before. */
const OF_MMDEBSTRAP = /^E: (?:mmdebstrap|apt-get|apt download|run_\w+|setup|env|chroot|dpkg)\b.*\bfailed?\b/;
const BEGINS_REASON =
  /^(?:E|Error|dpkg: error|dpkg: dependency problems)\b.*|^The following packages have unmet dependencies:|^Unsatisfied dependencies:|^Package \S+ is not available/;

/**
 * @param output What mmdebstrap and the apt below it printed.
 * @returns Undefined when it is not apt that failed.
 */
export function explainApt(output: string): AptFailure | undefined {
  const words = aptsWords(output);
  if (words === '') return undefined;
  if (UNREACHABLE.test(output)) {
    return { words, remedy: 'Check that the mirror is reachable: apt-get update.' };
  }
  return { words, remedy: REMEDIES.find(([pattern]) => pattern.test(words))?.[1] ?? CONFLICT_REMEDY };
}

/** Lines that begin a reason, each with the indented ones that go on with it. */
function aptsWords(output: string): string {
  const kept: string[] = [];
  let isReason = false;
  for (const line of output.split('\n')) {
    if (!/^\s+\S/.test(line)) isReason = BEGINS_REASON.test(line) && !OF_MMDEBSTRAP.test(line);
    if (isReason) kept.push(line);
  }
  return kept.join('\n');
}

/** Packages that come from a suite besides those that were asked for from there. */
export interface FurtherPackages {
  readonly suite: string;
  /** As they were asked for: `NAME/SUITE`. */
  readonly asked: readonly string[];
  readonly names: readonly string[];
}

/** `Inst NAME [OLD] (VERSION RELEASE, RELEASE [ARCHITECTURE])`, a release as `Debian:13.2/stable`, `Debian:testing`. */
const INSTALLED = /^Inst (\S+) (?:\[\S+\] )?\(\S+ (.*) \[\w+\]\)/gm;

/**
 * What a request for packages of named suites takes from these suites.
 * @param simulated Output of `apt-get --simulate install`.
 * @param release Number of the release that all other packages come from, such as 13.
 */
export function furtherPackages(simulated: string, packages: readonly string[], release: string): FurtherPackages[] {
  const releases = new Map<string, readonly string[]>();
  for (const [, name, from] of simulated.matchAll(INSTALLED)) releases.set(name!, from!.split(', '));
  const isOwn = (from: string) => from.startsWith(`Debian:${release}.`) || from.startsWith(`Debian:${release}/`);
  // apt's output has no code names; those that were asked for show what it calls their suite.
  const suites = new Map<string, { readonly asked: string[]; readonly labels: Set<string> }>();
  for (const asked of packages) {
    const [name = '', suite] = asked.split('/');
    if (suite === undefined) continue;
    const found = suites.get(suite) ?? { asked: [], labels: new Set<string>() };
    suites.set(suite, found);
    found.asked.push(asked);
    for (const label of releases.get(name) ?? []) found.labels.add(label);
  }
  const askedNames = new Set(packages.filter((asked) => asked.includes('/')).map((asked) => asked.split('/')[0]));
  return [...suites].flatMap(([suite, { asked, labels }]) => {
    const names = [...releases]
      .filter(([name, from]) => !askedNames.has(name) && !from.some(isOwn) && from.some((label) => labels.has(label)))
      .map(([name]) => name)
      .sort();
    return names.length === 0 ? [] : [{ suite, asked, names }];
  });
}

/** So many names are told. */
const NAMES_TOLD = 12;

/** One line for people. */
export function describeFurther({ suite, asked, names }: FurtherPackages): string {
  const told = names.slice(0, NAMES_TOLD).join(', ');
  const rest = names.length > NAMES_TOLD ? ` and ${names.length - NAMES_TOLD} more` : '';
  const what = names.length === 1 ? '1 further package' : `${names.length} further packages`;
  return `${asked.join(' and ')} ${asked.length === 1 ? 'takes' : 'take'} ${what} from ${suite}: ${told}${rest}`;
}
