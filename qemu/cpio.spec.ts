import assert from 'node:assert/strict';
import { writeCpio } from './cpio.js';

describe('writeCpio', () => {
  it('writes headers, names and contents as the kernel documents them', () => {
    const archive = writeCpio([{ path: '/a', mode: 0o755, contents: Buffer.from('hello') }]);
    assert.equal(archive.toString('latin1', 0, 6), '070701');
    assert.equal(archive.toString('latin1', 14, 22), '000081ed', 'mode: regular file, 0755');
    assert.equal(archive.toString('latin1', 54, 62), '00000005', 'size');
    assert.equal(archive.toString('latin1', 94, 102), '00000002', 'length of the name with its NUL');
    assert.equal(archive.toString('latin1', 110, 111), 'a');
    assert.equal(archive.toString('latin1', 112, 117), 'hello');
    assert.equal(archive.toString('latin1', 120, 126), '070701', 'next header on a 4-byte boundary');
    assert.ok(archive.includes('TRAILER!!!\0'));
    assert.equal(archive.length % 4, 0);
  });

  it('adds each parent folder once, before what is in it', () => {
    const archive = writeCpio([
      { path: '/lib/firmware/x', contents: Buffer.from('1') },
      { path: '/lib/firmware/y', contents: Buffer.from('22') },
    ]).toString('latin1');
    const names = [...archive.matchAll(/070701[0-9a-f]{104}([^\0]+)\0/g)].map((match) => match[1]);
    assert.deepEqual(names, ['lib', 'lib/firmware', 'lib/firmware/x', 'lib/firmware/y', 'TRAILER!!!']);
  });

  it('refuses paths that would leave the root', () => {
    for (const path of ['relative', '/a/../b', '/a//b', '/a/', '/']) {
      assert.throws(() => writeCpio([{ path, contents: Buffer.alloc(0) }]), /plain absolute path/, path);
    }
  });
});
