import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { closeFd, createMemfd, MappedFile, openFdCount, recvWithFds, sendWithFds, socketPair } from './index.js';

/**
 * Runs on another thread, as the bus does: waits for a memfd on its socket, increments the first word of that memory
 * and answers with one byte; ends when the socket closes.
 */
const WORKER = `
  import(require('node:worker_threads').workerData.module).then((host) => {
    const { socket } = require('node:worker_threads').workerData;
    const poller = new host.Poller();
    poller.add(socket, 1);
    const buffer = new Uint8Array(64);
    for (;;) {
      poller.wait(-1);
      const received = host.recvWithFds(socket, buffer, 0, 64);
      if (received === 'closed') break;
      const file = new host.MappedFile(received.fds[0], 4096, { writable: true });
      host.closeFd(received.fds[0]);
      file.writeU32(0, file.readU32(0) + 1);
      file.close();
      host.sendWithFds(socket, buffer, 0, 1, []);
    }
    poller.close();
    host.closeFd(socket);
  });
`;

describe('host/', () => {
  it('works in a worker thread next to the main thread', async () => {
    const before = openFdCount();
    const [ours, theirs] = socketPair();
    const workerData = { module: new URL('./index.js', import.meta.url).href, socket: theirs };
    const worker = new Worker(WORKER, { eval: true, workerData });
    const exited = once(worker, 'exit');
    const fd = createMemfd('shared', 4096);
    const file = new MappedFile(fd, 4096, { writable: true });
    const answer = new Uint8Array(1);
    for (let round = 1; round <= 100; round++) {
      sendWithFds(ours, answer, 0, 1, [fd]);
      while (recvWithFds(ours, answer, 0, 1) === 'would-block') await new Promise((resolve) => setImmediate(resolve));
      assert.equal(file.readU32(0), round);
    }
    file.close();
    for (const each of [ours, fd]) closeFd(each);
    assert.deepEqual(await exited, [0]);
    assert.equal(openFdCount(), before);
  });

  it('is the only folder that imports koffi, in one file', () => {
    const root = new URL('../../', import.meta.url);
    const importers = ['emulator', 'plugins', 'qemu']
      .flatMap((folder) => javascriptFiles(root, folder))
      .filter((file) => /from ['"]koffi['"]/.test(readFileSync(new URL(file, root), 'utf8')));
    assert.deepEqual(importers, ['emulator/host/libc.js']);
  });
});

function javascriptFiles(root: URL, folder: string): string[] {
  try {
    return readdirSync(new URL(folder, root), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.js') && !file.endsWith('.spec.js'))
      .map((file) => `${folder}/${file}`);
  } catch (error) {
    // A folder that has nothing compiled yet has no importers.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
