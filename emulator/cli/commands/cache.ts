import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import {
  type CacheEntry,
  cacheFolder,
  defaultRules,
  listCache,
  type PruneRule,
  pruneCache,
  removeRemains,
  SNAPSHOT_LIMIT_VARIABLE,
  snapshotLimit,
} from '../../../qemu/index.js';
import { UsageError } from '../../../session/exit-status.js';
import { parseByteSize } from '../../plugin/options.js';
import { type CacheReport, type PruneReport, reportedEntry, sumOfSizes } from '../cache-report.js';

function options(yargs: Argv) {
  return yargs
    .usage(
      '$0 cache [list] [--kind KIND] [--json]\n' +
        '$0 cache prune [--kind KIND] [--older-than AGE] [--max-size SIZE] [--dry-run] [--json]\n\n' +
        'Lists what is kept in the cache, or removes what was not used for the longest time.',
    )
    .positional('action', { choices: ['list', 'prune'] as const, default: 'list' as const, describe: 'What to do' })
    .options({
      kind: { type: 'string', requiresArg: true, description: 'Only entries of this kind, for example snapshot' },
      'older-than': {
        type: 'string',
        requiresArg: true,
        description: 'Remove what was not used for this time: a number with m, h, d or w, for example 7d',
      },
      'max-size': {
        type: 'string',
        requiresArg: true,
        description: 'Remove until the rest takes no more than this, for example 10G',
      },
      'dry-run': { type: 'boolean', default: false, description: 'Only say what prune would remove' },
      json: { type: 'boolean', default: false, description: 'Print JSON' },
    } as const)
    .example('$0 cache prune --older-than 7d', 'remove what was not used for a week')
    .example('$0 cache prune --kind snapshot --max-size 0', 'remove all snapshots that nobody uses')
    .epilogue(
      'What a running process uses stays. Without --older-than and --max-size, prune does what is also done whenever a ' +
        `snapshot is made: it leaves at most 8G of snapshots (${SNAPSHOT_LIMIT_VARIABLE} says otherwise), and removes ` +
        'programs, modules and initial RAM disks that were not used for 30 days, and what killed processes left.',
    );
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;
const UNIT_MS: Readonly<Record<string, number>> = { m: MINUTE_MS, h: HOUR_MS, d: DAY_MS, w: 7 * DAY_MS };

/** @throws UsageError */
export function parseAge(text: string): number {
  const [, count, unit] = /^(\d+)([mhdw])$/.exec(text) ?? [];
  if (unit !== undefined) return Number(count) * UNIT_MS[unit]!;
  throw new UsageError(`--older-than ${text}: write a number with m, h, d or w, for example 7d`);
}

/** Less than two of a unit are told in the next smaller one. */
export function formatAge(ms: number): string {
  if (ms >= 2 * DAY_MS) return `${Math.floor(ms / DAY_MS)} d`;
  if (ms >= 2 * HOUR_MS) return `${Math.floor(ms / HOUR_MS)} h`;
  return `${Math.max(0, Math.floor(ms / MINUTE_MS))} min`;
}

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const KIB = 2 ** 10;

export function formatSize(bytes: number): string {
  if (bytes >= GIB) return `${(bytes / GIB).toFixed(1)} GiB`;
  return bytes >= MIB ? `${(bytes / MIB).toFixed(0)} MiB` : `${Math.ceil(bytes / KIB)} KiB`;
}

const HEADER = ['SIZE', 'USED', 'MADE', 'STATE', 'NAME', 'WHAT'];
/** Longer descriptions, of user spaces with many packages, are cut. */
const DESCRIPTION_COLUMNS = 60;

/** A table of entries; times are told as how long ago. */
export function formatEntries(entries: readonly CacheEntry[], now: number = Date.now()): string {
  const rows = entries.map(({ name, description, state, madeAt, lastUsedAt, sizeBytes }) => {
    const ages = [lastUsedAt, madeAt].map((time) => formatAge(now - Number(time)));
    return [formatSize(sizeBytes), ...ages, state, name, shortened(description)];
  });
  const table = [HEADER, ...rows];
  const widths = HEADER.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  const numeric = new Set(['SIZE', 'USED', 'MADE']);
  return table
    .map((row) =>
      row
        .map((cell, index) =>
          numeric.has(HEADER[index]!) ? cell.padStart(widths[index]!) : cell.padEnd(widths[index]!),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const shortened = (text: string): string =>
  text.length > DESCRIPTION_COLUMNS ? `${text.slice(0, DESCRIPTION_COLUMNS - 1)}…` : text;

const counted = ({ length }: readonly unknown[]): string => (length === 1 ? '1 entry' : `${length} entries`);

/** The rules that a command line means, one after another. @throws UsageError */
export function pruneRules(args: Partial<Pick<Arguments, 'kind' | 'olderThan' | 'maxSize'>>): PruneRule[] {
  const kinds = args.kind === undefined ? undefined : [args.kind];
  if (args.olderThan === undefined && args.maxSize === undefined) return [{ kinds }, ...defaultRules(args.kind)];
  const olderThanMs = args.olderThan === undefined ? undefined : parseAge(args.olderThan);
  return [{ kinds, olderThanMs, maxBytes: args.maxSize === undefined ? undefined : parseMaxSize(args.maxSize) }];
}

function parseMaxSize(text: string): number {
  try {
    return parseByteSize(text);
  } catch (error) {
    throw new UsageError(`--max-size: ${(error as Error).message}`);
  }
}

async function list(args: Arguments, folder: string): Promise<void> {
  const entries = await listCache(folder, args.kind === undefined ? undefined : [args.kind]);
  const totalBytes = sumOfSizes(entries);
  const snapshotBytes = sumOfSizes(entries.filter(({ kind }) => kind === 'snapshot'));
  const snapshotLimitBytes = snapshotLimit();
  if (args.json) {
    const report: CacheReport = {
      ...{ folder, entries: entries.map(reportedEntry) },
      ...{ totalBytes, snapshotBytes, snapshotLimitBytes },
    };
    console.log(JSON.stringify(report, undefined, 2));
    return;
  }
  if (entries.length > 0) console.log(`${formatEntries(entries)}\n`);
  console.log(
    `${counted(entries)}, ${formatSize(totalBytes)}, in ${folder}; ` +
      `snapshots ${formatSize(snapshotBytes)} of at most ${formatSize(snapshotLimitBytes)}`,
  );
}

async function prune(args: Arguments, folder: string): Promise<void> {
  const rules = pruneRules(args);
  const removed = new Map<string, CacheEntry>();
  for (const rule of rules) {
    for (const entry of await pruneCache(folder, rule, args.dryRun)) removed.set(entry.name, entry);
  }
  if (!args.dryRun) await removeRemains(folder);
  const entries = [...removed.values()];
  const freedBytes = sumOfSizes(entries);
  if (args.json) {
    const report: PruneReport = { folder, dryRun: args.dryRun, removed: entries.map(reportedEntry), freedBytes };
    console.log(JSON.stringify(report, undefined, 2));
    return;
  }
  if (entries.length > 0) console.log(`${formatEntries(entries)}\n`);
  console.log(
    `${counted(entries)}, ${formatSize(freedBytes)}, ${args.dryRun ? 'would be removed' : 'removed'} from ${folder}`,
  );
}

async function handler(args: Arguments): Promise<void> {
  if (args.action === 'prune') return prune(args, cacheFolder());
  if (args.olderThan !== undefined || args.maxSize !== undefined || args.dryRun) {
    throw new UsageError('--older-than, --max-size and --dry-run are for: ghostbus cache prune');
  }
  return list(args, cacheFolder());
}

export const cacheCommand: CommandModule<object, Arguments> = {
  command: 'cache [action]',
  describe: 'List what the cache holds, or remove what was not used for long',
  builder: options as never,
  handler,
};
