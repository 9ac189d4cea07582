/**
 * Which running processes use which entries of the cache. Each has a file, named after it, with the names of what it
 * took: an entry is in use while its process lives, since paths are handed on and may be opened, by a QEMU that boots
 * later, at any time.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { appendFile, mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ignoring, UNWRITABLE } from './cache-entry.js';

/** Processes of another host or container cannot be looked at; they count as ended after this time without a use. */
const FOREIGN_LIFE_MS = 86_400_000;

/** Field 22 of proc(5)'s /proc/PID/stat, counted from the one behind the name, which may hold any character. */
const START_TIME_FIELD = 19;

/** When a process started, in clock ticks since boot: with it a number is not taken for an earlier process's. */
function startTicks(pid: string): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[START_TIME_FIELD];
  } catch {
    return undefined;
  }
}

/** Names the set of processes whose numbers mean the same here: one boot of one host, one container. */
function processSpace(): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return `${boot}.${readlinkSync('/proc/self/ns/pid').replace(/\D/g, '')}`;
}

const usersFolder = (root: string): string => join(root, 'users');
const ownFile = `${processSpace()}.${process.pid}.${startTicks('self')}`;
const swept = new Set<string>();

/** Says that this process uses an entry until it ends. Call it before looking whether the entry is there. */
export async function noteUse(root: string, name: string): Promise<void> {
  const folder = usersFolder(root);
  // A cache that cannot be written to cannot be pruned either; and a full disk must not keep a guest from booting.
  await ignoring(UNWRITABLE, async () => {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await appendFile(join(folder, ownFile), `${name}\n`);
    if (swept.has(root)) return;
    swept.add(root);
    await namesInUse(root);
  });
}

/** Names of all entries that running processes use. Files of ended processes are removed on the way. */
export async function namesInUse(root: string): Promise<Set<string>> {
  const folder = usersFolder(root);
  const names = new Set<string>();
  for (const file of (await ignoring(['ENOENT'], () => readdir(folder))) ?? []) {
    const path = join(folder, file);
    if (await isAlive(path, file)) {
      const text = (await ignoring(['ENOENT'], () => readFile(path, 'utf8'))) ?? '';
      for (const name of text.split('\n').filter(Boolean)) names.add(name);
    } else await rm(path, { force: true });
  }
  return names;
}

async function isAlive(path: string, file: string): Promise<boolean> {
  const [, space, pid, ticks] = /^(.*)\.(\d+)\.(\d+)$/.exec(file) ?? [];
  if (space === processSpace() && pid !== undefined) return startTicks(pid) === ticks;
  const state = await ignoring(['ENOENT'], () => stat(path));
  return state !== undefined && Date.now() - state.mtimeMs < FOREIGN_LIFE_MS;
}
