import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { closeFd, duplicateFd, fileIdentity, openFdCount, setNonBlocking } from './fd.js';
import { eventfd } from './libc.js';
import { createMemfd } from './memfd.js';

/** O_NONBLOCK and O_CLOEXEC as the kernel reports them. */
function fdFlags(fd: number): number {
  return Number.parseInt(/flags:\s*([0-7]+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!, 8);
}

describe('file descriptors', () => {
  it('recognises a file whatever descriptor it is seen through', () => {
    const first = createMemfd('first', 12345);
    const second = createMemfd('second', 4096);
    const copy = duplicateFd(first);
    const identity = fileIdentity(first);
    assert.equal(fileIdentity(copy).key, identity.key);
    assert.notEqual(fileIdentity(second).key, identity.key);
    assert.equal(identity.sizeBytes, 12345);
    assert.equal(identity.key, `${identity.dev}:${identity.ino}`);
    for (const fd of [first, second, copy]) closeFd(fd);
  });

  it('duplicates with close-on-exec', () => {
    const fd = createMemfd('one', 4096);
    const copy = duplicateFd(fd);
    assert.ok(fdFlags(copy) & 0o2000000);
    for (const each of [fd, copy]) closeFd(each);
  });

  it('sets O_NONBLOCK', () => {
    const fd = eventfd(0, 0);
    assert.equal(fdFlags(fd) & 0o4000, 0);
    setNonBlocking(fd);
    assert.ok(fdFlags(fd) & 0o4000);
    closeFd(fd);
  });

  it('counts what is open', () => {
    const before = openFdCount();
    const fd = createMemfd('one', 4096);
    assert.equal(openFdCount(), before + 1);
    closeFd(fd);
    assert.equal(openFdCount(), before);
  });

  it('says which call failed on which descriptor', () => {
    assert.throws(() => duplicateFd(9999), /duplicating fd 9999 failed: EBADF/);
    assert.throws(() => setNonBlocking(9999), /fd 9999 failed: EBADF/);
  });
});
