/** How entries of the cache lie on the disk, and the stamp that each has: what it is, and how large its files are. */
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { runCommand } from './run-command.js';

/**
 * `$XDG_CACHE_HOME/ghostbus`, or `~/.cache/ghostbus` (XDG Base Directory Specification). Safe to delete at any time.
 */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  const base = env.XDG_CACHE_HOME;
  // The specification: a relative path is to be ignored.
  return join(base?.startsWith('/') ? base : join(homedir(), '.cache'), 'ghostbus');
}

/** What a stamp says. Its file's modification time is the last use of the entry. */
export interface Stamp {
  kind: string;
  /** For people; may be empty. */
  description: string;
  /** Hash of all that decides the contents. */
  inputs: string;
  /** ISO 8601. */
  madeAt: string;
  /** Size in bytes of each file by its path in the entry. */
  files: Readonly<Record<string, number>>;
}

export interface EntryPlaces {
  name: string;
  folder: string;
  /** Where it is made, and where it goes before it is removed. */
  unfinished: string;
  lock: string;
  /**
   * Beside the entry and not in it: entries are copied into guests, and into one another by hard links, as they are.
   */
  stamp: string;
  /** Where the stamp goes while somebody makes sure that the entry may be removed. */
  doomedStamp: string;
}

const LOCKS = 'locks';
export const STAMPS = 'stamps';

export function entryPlaces(root: string, name: string): EntryPlaces {
  return {
    name,
    folder: join(root, name),
    unfinished: join(root, `${name}.unfinished`),
    lock: join(root, LOCKS, name),
    stamp: join(root, STAMPS, `${name}.json`),
    doomedStamp: join(root, STAMPS, `${name}.json.doomed`),
  };
}

/** Kind and hash of what is, or was to be, an entry; undefined for other names. */
export function parseEntryName(file: string): { name: string; kind: string; finished: boolean } | undefined {
  const [, name, kind, rest] = /^((.+)-[0-9a-f]{20})(\.unfinished(?:\..*)?)?$/.exec(file) ?? [];
  return name === undefined || kind === undefined ? undefined : { name, kind, finished: rest === undefined };
}

/** Errors of a disk, folder or file that this process cannot write to. */
export const UNWRITABLE: readonly string[] = ['EACCES', 'EDQUOT', 'ENOSPC', 'EPERM', 'EROFS'];

/** The result of `work`, or undefined when it fails with one of the error codes. */
export async function ignoring<T>(codes: readonly string[], work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (codes.includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/** Folders that builds inside an entry use and empty again (`withScratchFolder`) are no part of it. */
const SCRATCH = 'tmp';

/** Size of each file, links too, by its path. */
export function fileSizes(folder: string): Record<string, number> {
  const paths = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile() || file.isSymbolicLink())
    .map((file) => join(file.parentPath, file.name).slice(folder.length + 1))
    .filter((path) => !path.startsWith(`${SCRATCH}/`));
  return Object.fromEntries(
    paths.flatMap((path) => {
      const state = lstatSync(join(folder, path), { throwIfNoEntry: false });
      return state === undefined ? [] : [[path, state.size]];
    }),
  );
}

/** What is wrong with the entry's files, or undefined. Contents are not read: that would cost seconds at each use. */
export function findFault(folder: string, { files }: Stamp): string | undefined {
  for (const [path, size] of Object.entries(files)) {
    const found = lstatSync(join(folder, path), { throwIfNoEntry: false });
    if (found === undefined) return `${path} is missing`;
    if (found.size !== size) return `${path} has ${found.size} bytes instead of ${size}`;
  }
  return undefined;
}

/** The stamp; undefined when there is none, null when it cannot be understood. */
export async function readStamp(path: string): Promise<Stamp | null | undefined> {
  const text = await ignoring(['ENOENT'], () => readFile(path, 'utf8'));
  if (text === undefined) return undefined;
  try {
    const stamp = JSON.parse(text) as Stamp | null;
    return typeof stamp?.files === 'object' && stamp.files !== null ? stamp : null;
  } catch {
    return null;
  }
}

/** Whole or not at all, also after a power cut. */
export async function writeStamp(path: string, stamp: Stamp): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const written = `${path}.new`;
  const file = await open(written, 'w', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(stamp)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(written, path);
  await flushPath(dirname(path));
}

/** Makes now the time of the last use. False when there is no stamp. */
export async function touchStamp(path: string): Promise<boolean> {
  const now = new Date();
  try {
    await utimes(path, now, now);
    return true;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && !UNWRITABLE.includes(code)) throw error;
    return code !== 'ENOENT' && existsSync(path);
  }
}

/** With more files than this, having the system write all that it holds back is cheaper than asking for each file. */
const FEW_FILES = 64;

/** Resolves when the disk has all files below the folder. */
export async function flushTree(folder: string): Promise<void> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  if (entries.length > FEW_FILES) {
    await runCommand('sync', ['--file-system', folder]);
    return;
  }
  for (const entry of entries.filter((found) => found.isFile() || found.isDirectory())) {
    await flushPath(join(entry.parentPath, entry.name));
  }
  await flushPath(folder);
}

export async function flushPath(path: string): Promise<void> {
  const file = await open(path);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Removes what an ended process left half-made or half-removed. The entry's lock must be held. */
export async function removeLeftovers(root: string, name: string): Promise<void> {
  for (const file of await readdir(root)) {
    const parsed = parseEntryName(file);
    if (parsed?.name === name && !parsed.finished) await rm(join(root, file), { recursive: true, force: true });
  }
}

/**
 * Removes an entry; a process that is killed meanwhile leaves no half of it. The entry's lock must be held.
 */
export async function removeEntry(root: string, { name, folder, unfinished, stamp, doomedStamp }: EntryPlaces) {
  await removeLeftovers(root, name);
  await ignoring(['ENOENT'], () => rename(folder, unfinished));
  for (const path of [stamp, doomedStamp]) await rm(path, { force: true });
  await removeLeftovers(root, name);
}
