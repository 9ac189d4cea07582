import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

export type Release = () => Promise<void>;

/** What flock is to end with when somebody else holds the lock, unlike its own failures (sysexits.h EX_TEMPFAIL). */
const HELD_STATUS = 75;

/** Waits for an exclusive lock and resolves with its release. */
export async function lockFile(path: string): Promise<Release> {
  const release = await holdLock(path, []);
  if (typeof release === 'function') return release;
  throw new Error(`cannot lock ${path}: flock ended with status ${release}`);
}

/** As {@link lockFile}, without waiting: undefined when somebody else holds it. */
export async function tryLockFile(path: string): Promise<Release | undefined> {
  const release = await holdLock(path, ['--nonblock', '--conflict-exit-code', String(HELD_STATUS)]);
  if (typeof release === 'function') return release;
  if (release === HELD_STATUS) return undefined;
  throw new Error(`cannot lock ${path}: flock ended with status ${release}`);
}

/**
 * util-linux's flock holds the lock for as long as its standard input is open, so the kernel releases it even when
 * this process is killed; Node itself has no file locks. The holder is in a session of its own: a terminal's Ctrl-C
 * would end it before what it guards is cleaned up.
 * @returns the release, or the status that flock ended with
 */
async function holdLock(path: string, options: readonly string[]): Promise<Release | number | null> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const holder = spawn('flock', ['--exclusive', ...options, path, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
  });
  const closed = once(holder, 'close');
  const first = await Promise.race([once(holder.stdout, 'data'), closed.then(() => undefined)]);
  if (first === undefined) return holder.exitCode;
  holder.stdout.resume();
  return async () => {
    holder.stdin.end();
    await closed;
  };
}
