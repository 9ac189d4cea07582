import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

/**
 * `$XDG_CACHE_HOME/ghostbus`, or `~/.cache/ghostbus` (XDG Base Directory Specification). Safe to delete at any time.
 */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  const base = env.XDG_CACHE_HOME;
  // The specification: a relative path is to be ignored.
  return join(base?.startsWith('/') ? base : join(homedir(), '.cache'), 'ghostbus');
}

/** A short, stable name for any JSON-able description of what goes into something. */
export function contentHash(inputs: unknown): string {
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 20);
}

/**
 * The folder of one cache entry. Made by `build` when it is not there: two processes never make the same entry twice,
 * an entry is there whole or not at all, and what a killed process left behind is removed.
 * @param kind Leading part of the folder's name, for people who look.
 * @param inputs Everything that decides the contents.
 */
export async function cachedFolder(
  kind: string,
  inputs: unknown,
  build: (folder: string) => Promise<void>,
  root: string = cacheFolder(),
): Promise<string> {
  const name = `${kind}-${contentHash(inputs)}`;
  const folder = join(root, name);
  if (existsSync(folder)) return folder;
  const locks = join(root, 'locks');
  await mkdir(locks, { recursive: true, mode: 0o700 });
  const release = await lockFile(join(locks, name));
  try {
    if (existsSync(folder)) return folder;
    const unfinished = join(root, `${name}.unfinished`);
    await rm(unfinished, { recursive: true, force: true });
    await mkdir(unfinished);
    try {
      await build(unfinished);
      await rename(unfinished, folder);
    } catch (error) {
      await rm(unfinished, { recursive: true, force: true });
      throw error;
    }
    return folder;
  } finally {
    await release();
  }
}

/**
 * Waits for an exclusive lock and resolves with its release. util-linux's flock holds it for as long as its standard
 * input is open, so the kernel releases it even when this process is killed; Node itself has no file locks.
 */
async function lockFile(path: string): Promise<() => Promise<void>> {
  const holder = spawn('flock', ['--exclusive', path, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const closed = once(holder, 'close');
  const first = await Promise.race([once(holder.stdout, 'data'), closed.then(() => undefined)]);
  if (first === undefined) throw new Error(`cannot lock ${path}: flock ended with status ${holder.exitCode}`);
  holder.stdout.resume();
  return async () => {
    holder.stdin.end();
    await closed;
  };
}
