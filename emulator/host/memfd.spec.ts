import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd, fileIdentity, openFdCount } from './fd.js';
import { memfdCreate } from './libc.js';
import { allocatedBytes, createMemfd, punchHole, sealAgainstShrinking } from './memfd.js';

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;

describe('memfd', () => {
  it('has its full size and takes no memory until touched', () => {
    const fd = createMemfd('hbm', 32 * GIB);
    assert.equal(fileIdentity(fd).sizeBytes, 32 * GIB);
    assert.equal(allocatedBytes(fd), 0);
    writeSync(fd, Buffer.from([1]), 0, 1, 31 * GIB);
    assert.ok(allocatedBytes(fd) > 0 && allocatedBytes(fd) <= 2 * MIB);
    closeFd(fd);
  });

  it('gives memory back through a hole, whose edges need no alignment', () => {
    const fd = createMemfd('hole', 4 * MIB);
    writeSync(fd, Buffer.alloc(4 * MIB, 0xaa), 0, 4 * MIB, 0);
    assert.equal(allocatedBytes(fd), 4 * MIB);
    punchHole(fd, MIB + 1, 2 * MIB);
    assert.ok(allocatedBytes(fd) <= 2 * MIB + 4096);
    assert.equal(fileIdentity(fd).sizeBytes, 4 * MIB);
    const around = Buffer.alloc(3);
    readSync(fd, around, 0, 3, MIB);
    assert.deepEqual([...around], [0xaa, 0, 0]);
    readSync(fd, around, 0, 3, 3 * MIB);
    assert.deepEqual([...around], [0, 0xaa, 0xaa]);
    closeFd(fd);
  });

  it('takes an empty hole and refuses one with bad bounds', () => {
    const fd = createMemfd('hole', 4096);
    punchHole(fd, 0, 0);
    assert.throws(() => punchHole(fd, -4096, 4096), /punching a hole of 4096 bytes at -4096 .* EINVAL/);
    closeFd(fd);
  });

  it('cannot be shrunk by whoever gets the descriptor', () => {
    const fd = createMemfd('sealed', 8192);
    assert.throws(() => ftruncateSync(fd, 4096), { code: 'EPERM' });
    assert.ok(sealAgainstShrinking(fd));
    closeFd(fd);
  });

  it('seals a foreign memfd that allows it', () => {
    const fd = memfdCreate('foreign', MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ftruncateSync(fd, 8192);
    assert.ok(sealAgainstShrinking(fd));
    assert.throws(() => ftruncateSync(fd, 4096), { code: 'EPERM' });
    closeFd(fd);
  });

  it('says so when a file cannot be sealed', () => {
    const memfd = memfdCreate('no-seals', MFD_CLOEXEC);
    const folder = mkdtempSync(join(tmpdir(), 'memfd-'));
    const file = openSync(join(folder, 'ram'), 'w+');
    assert.equal(sealAgainstShrinking(memfd), false);
    assert.equal(sealAgainstShrinking(file), false);
    closeSync(file);
    closeFd(memfd);
    rmSync(folder, { recursive: true });
  });

  it('refuses sizes that are none, and leaves nothing open', () => {
    const before = openFdCount();
    for (const size of [0, -1, 1.5, Number.NaN, 2 ** 53]) assert.throws(() => createMemfd('bad', size), RangeError);
    assert.throws(() => createMemfd('x'.repeat(300), 4096), /creating memfd x+ failed: EINVAL/);
    assert.equal(openFdCount(), before);
  });
});
