/** What the cache holds, and what of it can go: by the last use, the oldest first, and never what is in use. */
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { formatByteSize, parseByteSize } from '../emulator/plugin/options.js';
import {
  cacheFolder,
  entryPlaces,
  ignoring,
  parseEntryName,
  readStamp,
  removeEntry,
  removeLeftovers,
  STAMPS,
} from './cache-entry.js';
import { namesInUse } from './cache-users.js';
import { HostSetupError } from './errors.js';
import { tryLockFile } from './file-lock.js';

export const CACHE_STATES = ['ready', 'in use', 'being made', 'left over'] as const;

export interface CacheEntry {
  /** Its folder's name in the cache. */
  name: string;
  kind: string;
  /** What it is, as far as it was told when it was made. */
  description: string;
  /** `in use` by a running process; `left over` from one that ended while it made or removed the entry. */
  state: (typeof CACHE_STATES)[number];
  madeAt: Date;
  lastUsedAt: Date;
  /** On the disk. What several entries share is counted for the one that was made first. */
  sizeBytes: number;
}

const SNAPSHOT = 'snapshot';
/** Kinds that are made anew in moments, mostly named after sources that change. */
const SUPERSEDED_KINDS: readonly string[] = [
  'initrd',
  'kvm',
  'module',
  'module-index',
  'program',
  'snapshot-fault',
  'snapshot-wish',
];
const DAY_MS = 86_400_000;
const SUPERSEDED_DAYS = 30;
const SUPERSEDED_MS = SUPERSEDED_DAYS * DAY_MS;

/** The environment variable with the most that all snapshots together may take. */
export const SNAPSHOT_LIMIT_VARIABLE = 'GHOSTBUS_SNAPSHOT_LIMIT';
const DEFAULT_SNAPSHOT_LIMIT = '8G';

/** In bytes on the disk. @throws HostSetupError when the variable is set to what is no size */
export function snapshotLimit(env: NodeJS.ProcessEnv = process.env): number {
  const text = env[SNAPSHOT_LIMIT_VARIABLE] || DEFAULT_SNAPSHOT_LIMIT;
  try {
    return parseByteSize(text);
  } catch (error) {
    throw new HostSetupError(
      `${SNAPSHOT_LIMIT_VARIABLE}: ${(error as Error).message}`,
      `Set it to a size, or unset it for ${DEFAULT_SNAPSHOT_LIMIT}.`,
    );
  }
}

/** All entries, or those of some kinds, the last used first. The cache need not exist. */
export async function listCache(root: string = cacheFolder(), kinds?: readonly string[]): Promise<CacheEntry[]> {
  const inUse = await namesInUse(root);
  const found: Omit<CacheEntry, 'sizeBytes'>[] = [];
  for (const file of (await ignoring(['ENOENT'], () => readdir(root))) ?? []) {
    const parsed = parseEntryName(file);
    if (parsed === undefined || (kinds !== undefined && !kinds.includes(parsed.kind))) continue;
    const { name, kind, finished } = parsed;
    const folderState = await ignoring(['ENOENT'], () => stat(join(root, file)));
    // Another process may just have finished or removed it.
    if (folderState === undefined) continue;
    const { stamp, doomedStamp, lock } = entryPlaces(root, name);
    const stampPath = existsSync(stamp) ? stamp : doomedStamp;
    const read = finished ? await readStamp(stampPath) : undefined;
    const used = finished ? await ignoring(['ENOENT'], () => stat(stampPath)) : undefined;
    found.push({
      name: file,
      kind,
      description: read?.description ?? '',
      state: finished ? (inUse.has(name) ? 'in use' : 'ready') : (await isLocked(lock)) ? 'being made' : 'left over',
      madeAt: read?.madeAt === undefined ? folderState.mtime : new Date(read.madeAt),
      lastUsedAt: (used ?? folderState).mtime,
    });
  }
  const counted = new Set<string>();
  return found
    .sort((left, right) => Number(left.madeAt) - Number(right.madeAt))
    .map((entry) => ({ ...entry, sizeBytes: allocatedBytes(join(root, entry.name), counted) }))
    .sort((left, right) => Number(right.lastUsedAt) - Number(left.lastUsedAt));
}

async function isLocked(lock: string): Promise<boolean> {
  if (!existsSync(dirname(lock))) return false;
  const release = await tryLockFile(lock);
  await release?.();
  return release === undefined;
}

/** Unit of `st_blocks` (stat(2)), whatever the file system's own blocks are. */
const BLOCK_BYTES = 512;

/** Files may be sparse, and have several names: `counted` are the inodes that count no more. */
function allocatedBytes(path: string, counted: Set<string>): number {
  const state = lstatSync(path, { throwIfNoEntry: false });
  if (state === undefined) return 0;
  let bytes = state.blocks * BLOCK_BYTES;
  if (state.isDirectory()) {
    for (const name of namesIn(path)) bytes += allocatedBytes(join(path, name), counted);
  } else if (state.nlink > 1) {
    const inode = `${state.dev}:${state.ino}`;
    if (counted.has(inode)) return 0;
    counted.add(inode);
  }
  return bytes;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Names of the entries that are there whole, with their kinds. The cache need not exist. */
export function cacheNames(root: string = cacheFolder()): { name: string; kind: string }[] {
  return namesIn(root).flatMap((file) => {
    const parsed = parseEntryName(file);
    return parsed?.finished ? [{ name: file, kind: parsed.kind }] : [];
  });
}

/** What may go. With neither age nor size, nothing does but what is left over. */
export interface PruneRule {
  /** Other kinds are left alone, and do not count. */
  kinds?: readonly string[] | undefined;
  /** Entries that were not used for longer than this. */
  olderThanMs?: number | undefined;
  /** Entries until all others together take no more, those that were not used for the longest time first. */
  maxBytes?: number | undefined;
}

/** What a rule removes of a listing of its kinds. */
export function chooseEntries(
  entries: readonly CacheEntry[],
  { olderThanMs = Number.POSITIVE_INFINITY, maxBytes = Number.POSITIVE_INFINITY }: PruneRule,
  now: number = Date.now(),
): CacheEntry[] {
  let keptBytes = entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const oldestFirst = [...entries].sort((left, right) => Number(left.lastUsedAt) - Number(right.lastUsedAt));
  const leftOver = oldestFirst.filter(({ state }) => state === 'left over');
  const ready = oldestFirst.filter(({ state }) => state === 'ready');
  return [...leftOver, ...ready].filter(({ state, lastUsedAt, sizeBytes }) => {
    const goes = state === 'left over' || now - Number(lastUsedAt) > olderThanMs || keptBytes > maxBytes;
    if (goes) keptBytes -= sizeBytes;
    return goes;
  });
}

/** The rules by which the cache is pruned without being asked to. @throws HostSetupError as {@link snapshotLimit} */
export function defaultRules(kind?: string): PruneRule[] {
  return [
    { kinds: [SNAPSHOT], maxBytes: snapshotLimit() },
    { kinds: SUPERSEDED_KINDS, olderThanMs: SUPERSEDED_MS },
  ]
    .map((rule) => ({ ...rule, kinds: rule.kinds.filter((name) => kind === undefined || name === kind) }))
    .filter(({ kinds }) => kinds.length > 0);
}

/**
 * Removes what the rule says, and resolves with what is gone; with `dryRun`, with what would be.
 */
export async function pruneCache(root: string, rule: PruneRule, dryRun = false): Promise<CacheEntry[]> {
  const chosen = chooseEntries(await listCache(root, rule.kinds), rule);
  if (dryRun) return chosen;
  const gone: CacheEntry[] = [];
  for (const entry of chosen) if (await removeUnused(root, entry)) gone.push(entry);
  return gone;
}

/**
 * Removes an entry as it was listed, unless somebody makes it or has used it since. Users do not lock an entry, which
 * would cost each boot dozens of locks. They say that they use it, then touch its stamp; here the stamp is taken away,
 * then the users are looked at. So a user either was seen, or missed the stamp: that one waits for the lock that is
 * held here, and looks again.
 * @returns whether it is gone
 */
export async function removeUnused(root: string, listed: CacheEntry): Promise<boolean> {
  const { name, finished } = parseEntryName(listed.name)!;
  const entry = entryPlaces(root, name);
  const release = await tryLockFile(entry.lock);
  if (release === undefined) return false;
  try {
    if (!finished) {
      await removeLeftovers(root, name);
      return true;
    }
    await ignoring(['ENOENT'], () => rename(entry.stamp, entry.doomedStamp));
    const doomed = await ignoring(['ENOENT'], () => stat(entry.doomedStamp));
    const usedSince = doomed !== undefined && Number(doomed.mtime) > Number(listed.lastUsedAt);
    if (usedSince || (await namesInUse(root)).has(name)) {
      await ignoring(['ENOENT'], () => rename(entry.doomedStamp, entry.stamp));
      return false;
    }
    await removeEntry(root, entry);
    return true;
  } finally {
    await release();
  }
}

const tidied = new Set<string>();

/**
 * Applies the default rules after an entry was made: at once when it is a snapshot, else once in the life of a process.
 */
export async function tidyCache(root: string, kindMade: string): Promise<void> {
  if (kindMade !== SNAPSHOT && tidied.has(root)) return;
  tidied.add(root);
  for (const rule of defaultRules()) await pruneCache(root, rule);
  await removeRemains(root);
}

/** Removes what killed processes left of any kind, and stamps of entries that somebody removed by hand. */
export async function removeRemains(root: string): Promise<void> {
  const files = (await ignoring(['ENOENT'], () => readdir(root))) ?? [];
  const names = new Set(files);
  const stamps = (await ignoring(['ENOENT'], () => readdir(join(root, STAMPS)))) ?? [];
  const unfinished = files.map(parseEntryName).filter((parsed) => parsed !== undefined && !parsed.finished);
  const orphans = new Set([
    ...unfinished.map((parsed) => parsed!.name),
    ...stamps.map((file) => file.replace(/\.json(\..*)?$/, '')).filter((name) => !names.has(name)),
  ]);
  for (const name of orphans) {
    const entry = entryPlaces(root, name);
    const release = await tryLockFile(entry.lock);
    if (release === undefined) continue;
    try {
      await removeLeftovers(root, name);
      if (existsSync(entry.folder)) continue;
      for (const path of [entry.stamp, entry.doomedStamp, `${entry.stamp}.new`]) await rm(path, { force: true });
    } finally {
      await release();
    }
  }
}

/** A disk that is full to the brim breaks more than a guest. */
const FREE_MARGIN_BYTES = 2 ** 30;

async function freeBytesOf(root: string): Promise<number> {
  let existing = root;
  while (!existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = await statfs(existing);
  return bavail * bsize;
}

/**
 * Makes sure that a snapshot of this size leaves 1 GiB of the disk free; older snapshots that nobody uses give way.
 * @throws HostSetupError when it would not
 */
export async function requireRoomFor(
  sizeBytes: number,
  root: string = cacheFolder(),
  measureFree: (root: string) => Promise<number> = freeBytesOf,
): Promise<void> {
  const lacksRoom = async () => (await measureFree(root)) - sizeBytes < FREE_MARGIN_BYTES;
  if (!(await lacksRoom())) return;
  const snapshots = chooseEntries(await listCache(root, [SNAPSHOT]), { maxBytes: 0 });
  for (const snapshot of snapshots) {
    await removeUnused(root, snapshot);
    if (!(await lacksRoom())) return;
  }
  const mib = (bytes: number) => `${Math.floor(bytes / 2 ** 20)} MiB`;
  throw new HostSetupError(
    `A snapshot of ${mib(sizeBytes)} would leave less than ${formatByteSize(FREE_MARGIN_BYTES)} free on the disk of ` +
      `${root}, which has ${mib(await measureFree(root))}.`,
    'Free some space there (ghostbus cache list says what the cache holds), or set XDG_CACHE_HOME to another disk.',
  );
}
