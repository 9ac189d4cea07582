import assert from 'node:assert/strict';
import { openSync } from 'node:fs';
import { createEventfd, drainEventfd, signalEventfd } from './eventfd.js';
import { closeFd, openFdCount } from './fd.js';
import { Poller } from './poller.js';
import { recvWithFds, sendWithFds, socketPair } from './socket.js';

const ONE_BYTE = new Uint8Array(1);

describe('Poller', () => {
  let poller: Poller;
  let before: number;
  beforeEach(() => {
    before = openFdCount();
    poller = new Poller();
  });
  afterEach(() => {
    poller.close();
    assert.equal(openFdCount(), before);
  });

  function readyTokens(timeoutMs = 0): number[] {
    const count = poller.wait(timeoutMs);
    return Array.from({ length: count }, (_, i) => poller.tokenAt(i)).sort((a, b) => a - b);
  }

  it('names what is ready, for as long as it is', () => {
    const [a, b, c] = [createEventfd(), createEventfd(), createEventfd()];
    poller.add(a, 0);
    poller.add(b, 7);
    poller.add(c, 0xffff_ffff);
    assert.deepEqual(readyTokens(), []);
    signalEventfd(b);
    signalEventfd(c);
    assert.deepEqual(readyTokens(-1), [7, 0xffff_ffff]);
    assert.deepEqual(readyTokens(Number.POSITIVE_INFINITY), [7, 0xffff_ffff]);
    drainEventfd(c);
    assert.deepEqual(readyTokens(0.001), [7]);
    poller.remove(b);
    assert.deepEqual(readyTokens(), []);
    for (const fd of [a, b, c]) closeFd(fd);
  });

  it('reports data and a peer that has gone', () => {
    const [ours, theirs] = socketPair();
    poller.add(ours, 1);
    assert.deepEqual(readyTokens(), []);
    sendWithFds(theirs, ONE_BYTE, 0, 1, []);
    assert.deepEqual(readyTokens(), [1]);
    closeFd(theirs);
    assert.deepEqual(readyTokens(-1), [1]);
    poller.remove(ours);
    closeFd(ours);
  });

  it('on request waits for room to write instead, and not for data', () => {
    const [ours, theirs] = socketPair();
    const block = new Uint8Array(64 * 1024);
    while (typeof sendWithFds(ours, block, 0, block.length, []) === 'number');
    sendWithFds(theirs, ONE_BYTE, 0, 1, []);
    poller.add(ours, 3, 'write');
    assert.deepEqual(readyTokens(), []);
    while (recvWithFds(theirs, block, 0, block.length) !== 'would-block');
    assert.deepEqual(readyTokens(), [3]);
    while (typeof sendWithFds(ours, block, 0, block.length, []) === 'number');
    closeFd(theirs);
    assert.deepEqual(readyTokens(-1), [3]);
    poller.remove(ours);
    closeFd(ours);
  });

  it('lets no descriptor starve when more are ready than one wait reports', () => {
    const fds = Array.from({ length: 300 }, () => createEventfd());
    fds.forEach((fd, token) => {
      poller.add(fd, token);
      signalEventfd(fd);
    });
    const seen = new Set<number>();
    for (let i = 0; i < 10; i++) for (const token of readyTokens()) seen.add(token);
    assert.equal(seen.size, 300);
    for (const fd of fds) closeFd(fd);
  });

  it('waits at least as long as asked', () => {
    for (const timeoutMs of [0.2, 5, 20.5]) {
      const startMs = performance.now();
      assert.equal(poller.wait(timeoutMs), 0);
      assert.ok(performance.now() - startMs >= timeoutMs);
    }
  });

  it('refuses what cannot be waited for', () => {
    const file = openSync('/proc/self/exe', 'r');
    const event = createEventfd();
    poller.add(event, 1);
    assert.throws(() => poller.add(event, 2), { code: 'EEXIST', operation: `adding fd ${event} to epoll` });
    assert.throws(() => poller.add(file, 2), { code: 'EPERM' });
    assert.throws(() => poller.remove(file), /removing fd \d+ from epoll failed/);
    assert.throws(() => poller.add(event, -1), RangeError);
    assert.throws(() => poller.add(event, 2 ** 32), RangeError);
    assert.throws(() => poller.wait(Number.NaN), RangeError);
    poller.wait(0);
    assert.throws(() => poller.tokenAt(0), RangeError);
    for (const fd of [file, event]) closeFd(fd);
  });
});
