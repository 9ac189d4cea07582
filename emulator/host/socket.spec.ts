import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd, fileIdentity, openFdCount } from './fd.js';
import { createMemfd } from './memfd.js';
import {
  acceptConnection,
  connectUnix,
  listenUnix,
  pendingBytes,
  RECEIVE_FD_LIMIT,
  type Received,
  recvWithFds,
  SEND_FD_LIMIT,
  sendWithFds,
  socketPair,
} from './socket.js';

function receive(fd: number, lengthMax = 4096): Received & { bytes: Uint8Array } {
  const buffer = new Uint8Array(lengthMax);
  const received = recvWithFds(fd, buffer, 0, lengthMax);
  assert.ok(typeof received === 'object', `received ${received}`);
  return { ...received, bytes: buffer.subarray(0, received.byteCount) };
}

function send(fd: number, lengthBytes: number, fill: number, fds: readonly number[] = []): void {
  assert.equal(sendWithFds(fd, new Uint8Array(lengthBytes).fill(fill), 0, lengthBytes, fds), lengthBytes);
}

describe('sockets with descriptors', () => {
  let before: number;
  let a: number;
  let b: number;
  let files: number[];
  beforeEach(() => {
    before = openFdCount();
    [a, b] = socketPair();
    files = [1, 2, 3].map((pages) => createMemfd('passed', pages * 4096));
  });
  afterEach(() => {
    for (const fd of [a, b, ...files]) closeFd(fd);
    assert.equal(openFdCount(), before, 'descriptors leaked');
  });

  it('carries bytes from and to the middle of buffers', () => {
    assert.equal(sendWithFds(a, Uint8Array.of(1, 2, 3, 4, 5), 1, 3, []), 3);
    const buffer = new Uint8Array(10);
    assert.deepEqual(recvWithFds(b, buffer, 4, 6), { byteCount: 3, fds: [], truncatedControl: false });
    assert.deepEqual([...buffer], [0, 0, 0, 0, 2, 3, 4, 0, 0, 0]);
  });

  it('carries bytes through views into one buffer and through foreign memory alike', () => {
    const storage = new Uint8Array(64 * 1024);
    const view = storage.subarray(1000, 1010);
    view.fill(9);
    assert.equal(sendWithFds(a, view, 2, 5, []), 5);
    assert.deepEqual([...receive(b).bytes], [9, 9, 9, 9, 9]);
  });

  it('passes descriptors both ways, closed on exec', () => {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      send(from, 1, 0, files);
      const { fds } = receive(to);
      assert.deepEqual(
        fds.map((fd) => fileIdentity(fd).key),
        files.map((fd) => fileIdentity(fd).key),
      );
      for (const fd of fds) {
        assert.match(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /flags:\s*02\d{6}/);
        closeFd(fd);
      }
    }
  });

  it(`takes up to ${RECEIVE_FD_LIMIT} descriptors`, () => {
    for (const count of [1, 2, 16, 63, RECEIVE_FD_LIMIT]) {
      send(a, 1, 0, Array(count).fill(files[1]));
      const { fds, truncatedControl } = receive(b);
      assert.deepEqual([fds.length, truncatedControl], [count, false]);
      for (const fd of fds) {
        assert.equal(fileIdentity(fd).sizeBytes, 8192);
        closeFd(fd);
      }
    }
  });

  it('says when there were more, and leaks none of them', () => {
    for (const count of [RECEIVE_FD_LIMIT + 1, SEND_FD_LIMIT]) {
      send(a, 1, 0, Array(count).fill(files[0]));
      const { fds, truncatedControl } = receive(b);
      assert.deepEqual([fds.length, truncatedControl], [RECEIVE_FD_LIMIT, true]);
      for (const fd of fds) closeFd(fd);
    }
    assert.throws(() => sendWithFds(a, new Uint8Array(1), 0, 1, Array(SEND_FD_LIMIT + 1).fill(files[0])), RangeError);
    send(a, 1, 0);
    assert.deepEqual(receive(b).fds, []);
  });

  // vfio-user.md §1.4, Linux stream semantics: the numbers are its rows.
  it('1: a read takes messages without descriptors and one with, and stops there', () => {
    send(a, 16, 0xa);
    send(a, 16, 0xb);
    send(a, 24, 0xc, [files[0]!]);
    send(a, 16, 0xd);
    send(a, 16, 0xe, [files[1]!]);
    const first = receive(b);
    assert.deepEqual([first.byteCount, first.fds.length, first.bytes.at(-1)], [56, 1, 0xc]);
    assert.equal(fileIdentity(first.fds[0]!).sizeBytes, 4096);
    const second = receive(b);
    assert.deepEqual([second.byteCount, second.fds.length, second.bytes.at(-1)], [32, 1, 0xe]);
    assert.equal(fileIdentity(second.fds[0]!).sizeBytes, 8192);
    for (const fd of [...first.fds, ...second.fds]) closeFd(fd);
  });

  it('2: a buffer that ends inside a message gets its descriptors with the first piece', () => {
    send(a, 24, 0xc, [files[0]!]);
    const first = receive(b, 10);
    const rest = receive(b);
    assert.deepEqual([first.byteCount, first.fds.length, rest.byteCount, rest.fds.length], [10, 1, 14, 0]);
    closeFd(first.fds[0]!);
  });

  it('3: two messages with descriptors are never mixed in one read', () => {
    send(a, 16, 1, [files[0]!]);
    send(a, 16, 2, [files[1]!]);
    for (const [fill, sizeBytes] of [
      [1, 4096],
      [2, 8192],
    ]) {
      const { bytes, fds } = receive(b);
      assert.deepEqual([bytes.length, bytes.at(-1), fds.length], [16, fill, 1]);
      assert.equal(fileIdentity(fds[0]!).sizeBytes, sizeBytes);
      closeFd(fds[0]!);
    }
  });

  it('tells "nothing yet" from "closed" and from "reset"', () => {
    const buffer = new Uint8Array(8);
    const [c, d] = socketPair();
    assert.equal(recvWithFds(d, buffer, 0, 8), 'would-block');
    send(c, 4, 1);
    closeFd(c);
    assert.equal(receive(d).byteCount, 4);
    assert.equal(recvWithFds(d, buffer, 0, 8), 'closed');
    assert.throws(() => sendWithFds(d, buffer, 0, 8, []), {
      code: 'EPIPE',
      message: `sendmsg of 8 bytes and 0 descriptors on fd ${d} failed: EPIPE (Broken pipe)`,
    });
    closeFd(d);
    const [e, f] = socketPair();
    send(f, 4, 1);
    closeFd(e);
    assert.throws(() => recvWithFds(f, buffer, 0, 8), { code: 'ECONNRESET', operation: `recvmsg on fd ${f}` });
    closeFd(f);
  });

  it('sends in part, then says it would block, and loses nothing', () => {
    const block = new Uint8Array(1 << 20).fill(3);
    let sent = 0;
    for (;;) {
      const count = sendWithFds(a, block, 0, block.length, []);
      if (count === 'would-block') break;
      sent += count;
    }
    assert.ok(sent > 0);
    assert.equal(pendingBytes(b), sent);
    let received = 0;
    while (received < sent) received += receive(b, 1 << 20).byteCount;
    assert.equal(pendingBytes(b), 0);
    assert.equal(received, sent);
  });

  it('refuses transfers outside the buffer and empty ones', () => {
    const buffer = new Uint8Array(8);
    for (const [offset, length] of [
      [0, 0],
      [0, 9],
      [8, 1],
      [-1, 2],
      [0.5, 1],
      [0, Number.NaN],
    ] as const) {
      assert.throws(() => recvWithFds(b, buffer, offset, length), RangeError);
      assert.throws(() => sendWithFds(a, buffer, offset, length, []), RangeError);
    }
    const detached = new Uint8Array(8);
    sendWithFds(a, detached, 0, 8, []);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    assert.throws(() => recvWithFds(b, detached, 0, 8), /of a buffer of 0 bytes/);
  });

  it('passes nothing that is no descriptor, least of all standard input in its place', () => {
    for (const wrong of [undefined, null, Number.NaN, 1.5, -1, '3'] as unknown as number[]) {
      const attempt = () => sendWithFds(a, new Uint8Array(1), 0, 1, [a, wrong]);
      assert.throws(attempt, {
        name: 'TypeError',
        message: `passing descriptors: number 1 of them is ${wrong}, not a descriptor`,
      });
    }
  });

  it('names a bad descriptor among those to pass', () => {
    assert.throws(() => sendWithFds(a, new Uint8Array(1), 0, 1, [9999]), /1 bytes and 1 descriptors .* EBADF/);
  });
});

describe('listening sockets', () => {
  let folder: string;
  let path: string;
  let before: number;
  beforeEach(() => {
    before = openFdCount();
    folder = mkdtempSync(join(tmpdir(), 'socket-'));
    path = join(folder, 'gpu0.sock');
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
    assert.equal(openFdCount(), before, 'descriptors leaked');
  });

  it('accept when somebody connects, and do not wait for it', () => {
    const listener = listenUnix(path);
    assert.equal(acceptConnection(listener), undefined);
    const client = connectUnix(path);
    const server = acceptConnection(listener)!;
    send(client, 5, 1);
    send(server, 6, 2);
    assert.equal(receive(server).byteCount, 5);
    assert.equal(receive(client).byteCount, 6);
    assert.equal(acceptConnection(listener), undefined);
    assert.equal(recvWithFds(server, new Uint8Array(1), 0, 1), 'would-block');
    for (const fd of [client, server, listener]) closeFd(fd);
  });

  it('are private to the user', () => {
    const listener = listenUnix(path);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    closeFd(listener);
  });

  it('replace the file of a dead owner', () => {
    closeFd(listenUnix(path));
    const listener = listenUnix(path);
    const client = connectUnix(path);
    for (const fd of [client, listener]) closeFd(fd);
  });

  it('leave a live owner alone, even one with a full queue', () => {
    const listener = listenUnix(path);
    assert.throws(() => listenUnix(path), { code: 'EADDRINUSE', message: /gpu0\.sock failed: .*a live server has it/ });
    const clients: number[] = [];
    assert.throws(
      () => {
        for (let i = 0; i < 1000; i++) clients.push(connectUnix(path));
      },
      { code: 'EAGAIN' },
    );
    assert.throws(() => listenUnix(path), { code: 'EADDRINUSE' });
    for (const fd of [...clients, listener]) closeFd(fd);
  });

  it('leave a file alone that is no socket', () => {
    writeFileSync(path, 'precious');
    assert.throws(() => listenUnix(path), { code: 'EADDRINUSE', message: /a file that is no socket is there/ });
    assert.equal(readFileSync(path, 'utf8'), 'precious');
  });

  it('take 107 bytes of path and say so when there are more', () => {
    const longest = join(folder, 'x'.repeat(107 - folder.length - 1));
    closeFd(listenUnix(longest));
    assert.ok(statSync(longest).isSocket());
    for (const attempt of [listenUnix, connectUnix]) {
      assert.throws(() => attempt(`${longest}y`), { code: 'ENAMETOOLONG', message: /it has 108 bytes/ });
    }
    // Bytes, not characters.
    assert.throws(() => listenUnix('ü'.repeat(54)), { code: 'ENAMETOOLONG' });
    assert.throws(() => listenUnix(''), RangeError);
    assert.throws(() => listenUnix('/tmp/a\0b'), RangeError);
  });

  it('name the path that could not be used', () => {
    assert.throws(() => listenUnix(join(folder, 'none', 's')), { code: 'ENOENT', message: /binding socket .*none\/s/ });
    assert.throws(() => connectUnix(path), { code: 'ENOENT', message: /connecting to .*gpu0/ });
  });
});
