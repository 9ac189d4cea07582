import { createHash } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { access, mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import {
  cacheFolder,
  type EntryPlaces,
  entryPlaces,
  fileSizes,
  findFault,
  flushPath,
  flushTree,
  ignoring,
  parseEntryName,
  readStamp,
  removeEntry,
  removeLeftovers,
  touchStamp,
  UNWRITABLE,
  writeStamp,
} from './cache-entry.js';
import { tidyCache } from './cache-prune.js';
import { noteUse } from './cache-users.js';
import { lockFile } from './file-lock.js';

/** When each entry was made that this process took, by its folder. */
const taken = new Map<string, string>();

/** A short, stable name for any JSON-able description of what goes into something. */
export function contentHash(inputs: unknown): string {
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 20);
}

export interface CacheOptions {
  /** Default: {@link cacheFolder}. */
  root?: string | undefined;
  /** What it is, for people who list the cache. */
  description?: string | undefined;
  /** Receives a line when an entry is broken and thrown away; default: stderr. */
  onProgress?: ((text: string) => void) | undefined;
}

/**
 * The folder of one cache entry. Made by `build` when it is not there: two processes never make the same entry twice,
 * an entry is there whole or not at all, also after a power cut, and what a killed process left behind is removed. One
 * whose files are not there any more, or are of another size, is made anew.
 *
 * Nobody prunes the entry while this process lives. Files in the folder `tmp` of an entry may come and go, others are
 * not to be changed.
 * @param kind Leading part of the folder's name, for people who look; prunes go by it.
 * @param inputs Everything that decides the contents.
 */
export async function cachedFolder(
  kind: string,
  inputs: unknown,
  build: (folder: string) => Promise<void>,
  options: CacheOptions = {},
): Promise<string> {
  const { root = cacheFolder(), description = '', onProgress = sayOnStderr } = options;
  const hash = contentHash(inputs);
  const entry = entryPlaces(root, `${kind}-${hash}`);
  await noteUse(root, entry.name);
  const first = await stateOf(entry);
  if (first === 'whole' || (first === 'unstamped' && !(await isWritable(root)))) return entry.folder;
  const release = await lockFile(entry.lock);
  try {
    await undoDoom(entry);
    const state = await stateOf(entry);
    if (state === 'whole') return entry.folder;
    const stamp = async (folder: string, time: Date) => {
      const madeAt = time.toISOString();
      await writeStamp(entry.stamp, { kind, description, inputs: hash, madeAt, files: fileSizes(folder) });
      taken.set(entry.folder, madeAt);
    };
    if (state === 'unstamped') {
      // Made by a version that had no stamps.
      await ignoring(UNWRITABLE, async () => stamp(entry.folder, (await stat(entry.folder)).mtime));
      return entry.folder;
    }
    if (state !== 'absent') {
      onProgress(`The cached ${entry.name} is broken (${state.fault}); throwing it away and making it anew`);
      await removeEntry(root, entry);
    }
    await make(root, entry, build, stamp);
  } finally {
    await release();
  }
  await tidyCache(root, kind).catch((error: Error) => onProgress(`The cache was not tidied: ${error.message}`));
  return entry.folder;
}

async function make(
  root: string,
  entry: EntryPlaces,
  build: (folder: string) => Promise<void>,
  stamp: (folder: string, madeAt: Date) => Promise<void>,
): Promise<void> {
  await removeLeftovers(root, entry.name);
  await mkdir(entry.unfinished);
  try {
    await build(entry.unfinished);
    await flushTree(entry.unfinished);
    // A stamp without its entry does no harm; an entry without a stamp would be taken for an old version's.
    await stamp(entry.unfinished, new Date());
    await rename(entry.unfinished, entry.folder);
    await flushPath(root);
  } catch (error) {
    await removeLeftovers(root, entry.name);
    await rm(entry.stamp, { force: true });
    throw error;
  }
}

/** The folder of an entry as {@link cachedFolder} would give it, if it is there. */
export function cachedEntry(kind: string, inputs: unknown, root: string = cacheFolder()): string | undefined {
  const { folder } = entryPlaces(root, `${kind}-${contentHash(inputs)}`);
  return existsSync(folder) ? folder : undefined;
}

/**
 * Throws an entry away that turned out to be of no use, for example a snapshot that QEMU refuses, so that the next
 * `cachedFolder` makes it anew. Processes that have its files open keep them.
 * @param folder As `cachedFolder` gave it; nothing happens when it is gone already.
 * @param why For the line that `onProgress` receives; default: stderr.
 */
export async function discardEntry(
  folder: string,
  why: string,
  onProgress: (text: string) => void = sayOnStderr,
): Promise<void> {
  if (!parseEntryName(basename(folder))?.finished) throw new Error(`${folder} is no entry of a cache`);
  const root = dirname(folder);
  const entry = entryPlaces(root, basename(folder));
  const release = await lockFile(entry.lock);
  try {
    const madeAt = (await readStamp(entry.stamp))?.madeAt;
    // Another process may have thrown it away for the same reason, and made it anew meanwhile.
    if (!existsSync(folder) || madeAt !== (taken.get(folder) ?? madeAt)) return;
    onProgress(`Throwing away the cached ${entry.name}: ${why}`);
    await removeEntry(root, entry);
  } finally {
    await release();
  }
}

function sayOnStderr(text: string): void {
  process.stderr.write(`ghostbus: ${text}\n`);
}

type State = 'whole' | 'absent' | 'unstamped' | { fault: string };

/**
 * Also makes now the last use. That comes before the look at the files: whoever prunes takes the stamp away first and
 * then looks who uses the entry, so either the stamp is missed here, or the use is seen there.
 */
async function stateOf({ folder, stamp }: EntryPlaces): Promise<State> {
  const touched = await touchStamp(stamp);
  if (!existsSync(folder)) return 'absent';
  const read = touched ? await readStamp(stamp) : undefined;
  if (read === undefined) return 'unstamped';
  const fault = read === null ? 'its stamp cannot be read' : findFault(folder, read);
  if (read !== null && fault === undefined) taken.set(folder, read.madeAt);
  return fault === undefined ? 'whole' : { fault };
}

/** Of a cache that cannot be written to everything is taken as it is. */
const isWritable = (root: string) =>
  access(root, constants.W_OK).then(
    () => true,
    () => false,
  );

/** Puts back the stamp that a prune took away before it was killed. */
async function undoDoom({ stamp, doomedStamp }: EntryPlaces): Promise<void> {
  await ignoring(['ENOENT'], () => rename(doomedStamp, stamp));
}
