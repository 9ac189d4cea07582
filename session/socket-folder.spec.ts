import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UsageError } from './exit-status.js';
import { givenSocketFolder, newSocketFolder, socketRoot } from './socket-folder.js';

/** What a killed process leaves. */
function leaveDeadSocket(path: string): void {
  const script = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script, path]);
  assert.ok(existsSync(path));
}

describe('socket folder', () => {
  let root = '';
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'spec-'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  it('lies in the runtime folder when that exists, else among temporary files', () => {
    assert.equal(socketRoot({ XDG_RUNTIME_DIR: root }), root);
    assert.equal(socketRoot({ XDG_RUNTIME_DIR: join(root, 'absent') }), tmpdir());
    assert.equal(socketRoot({}), tmpdir());
  });

  it('is private when it is new, and goes wholly', async () => {
    const folder = await newSocketFolder(root);
    assert.equal(statSync(folder.path).mode & 0o777, 0o700);
    writeFileSync(join(folder.path, 'gpu0.sock'), '');
    folder.remove();
    assert.deepEqual(readdirSync(root), []);
  });

  it('removes what a killed emulator left, and nothing else', async () => {
    for (const name of ['ghostbus-dead', 'ghostbus-starting', 'unrelated']) mkdirSync(join(root, name));
    leaveDeadSocket(join(root, 'ghostbus-dead', 'control.sock'));
    const folder = await newSocketFolder(root);
    folder.remove();
    assert.deepEqual(readdirSync(root).sort(), ['ghostbus-starting', 'unrelated']);
  });

  it('is made private where the user says, and goes again', async () => {
    const path = join(root, 'deep', 'sockets');
    const folder = await givenSocketFolder(path);
    assert.equal(statSync(path).mode & 0o777, 0o700);
    folder.remove();
    assert.equal(existsSync(path), false);
  });

  it('that was there before loses its sockets only', async () => {
    const path = join(root, 'mine');
    mkdirSync(path, { mode: 0o700 });
    writeFileSync(join(path, 'letter.txt'), 'keep me');
    leaveDeadSocket(join(path, 'gpu0.sock'));
    const folder = await givenSocketFolder(path);
    assert.deepEqual(readdirSync(path), ['letter.txt']);
    leaveDeadSocket(join(path, 'gpu0.sock'));
    folder.remove();
    assert.deepEqual(readdirSync(path), ['letter.txt']);
  });

  it('is refused when others can enter it, when it is no folder, and when it is in use', async () => {
    const open = join(root, 'open');
    mkdirSync(open);
    chmodSync(open, 0o755);
    await assert.rejects(
      givenSocketFolder(open),
      (error) => error instanceof UsageError && /chmod 700/.test(error.message),
    );
    writeFileSync(join(root, 'file'), '');
    await assert.rejects(givenSocketFolder(join(root, 'file')), /is not a folder/);
    const used = join(root, 'used');
    mkdirSync(used, { mode: 0o700 });
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(used, 'gpu0.sock'), resolve));
    await assert.rejects(givenSocketFolder(used), /another process serves/);
    await new Promise((resolve) => server.close(resolve));
  });
});
