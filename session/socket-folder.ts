import { lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { connectError, findControlSockets } from './control-socket.js';
import { UsageError } from './exit-status.js';

/** Where a user's own emulators put their folders. */
export function socketRoot(env: NodeJS.ProcessEnv = process.env): string {
  const runtime = env.XDG_RUNTIME_DIR;
  return runtime !== undefined && lstatSync(runtime, { throwIfNoEntry: false })?.isDirectory() ? runtime : tmpdir();
}

export interface SocketFolder {
  readonly path: string;
  /** Removes what we made: the whole folder, or the sockets in a folder that was there before. */
  remove(): void;
}

/** A new folder that only this user can enter. Folders of emulators that were killed are removed on the way. */
export async function newSocketFolder(root: string = socketRoot()): Promise<SocketFolder> {
  const { abandonedFolders } = await findControlSockets(root);
  for (const folder of abandonedFolders) rmSync(folder, { recursive: true, force: true });
  const path = mkdtempSync(join(root, 'ghostbus-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/**
 * The folder that the user names: made when it is not there, else it must be private, and sockets of a dead
 * emulator are removed from it. @throws UsageError
 */
export async function givenSocketFolder(name: string): Promise<SocketFolder> {
  const path = resolve(name);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
  }
  if (!found.isDirectory()) throw new UsageError(`--socket-dir ${name} is not a folder`);
  if (found.uid !== process.getuid?.() || (found.mode & 0o077) !== 0) {
    throw new UsageError(
      `--socket-dir ${name}: others can enter this folder; run: chmod 700 ${path}, or name a new one`,
    );
  }
  await removeDeadSockets(path);
  return {
    path,
    remove: () => {
      for (const socket of socketsIn(path)) rmSync(socket, { force: true });
    },
  };
}

async function removeDeadSockets(folder: string): Promise<void> {
  for (const socket of socketsIn(folder)) {
    if ((await connectError(socket)) === undefined) {
      throw new UsageError(`--socket-dir ${folder}: another process serves ${socket}; end it, or name another folder`);
    }
    rmSync(socket, { force: true });
  }
}

function socketsIn(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isSocket())
    .map((entry) => join(folder, entry.name));
}
