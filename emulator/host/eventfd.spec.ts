import assert from 'node:assert/strict';
import { createEventfd, drainEventfd, signalEventfd } from './eventfd.js';
import { closeFd } from './fd.js';
import { allocatePinned, eventfd, write } from './libc.js';

/** eventfd(2): the largest value a counter can have. */
const FULL = 0xffff_ffff_ffff_fffen;

function add(fd: number, value: bigint): void {
  const memory = allocatePinned(8);
  memory.view.setBigUint64(0, value, true);
  assert.equal(write(fd, memory.address, 8), 8);
}

describe('eventfd', () => {
  for (const [kind, create] of [
    ['non-blocking', createEventfd],
    ['blocking', () => eventfd(0, 0)],
  ] as const) {
    it(`counts signals and drains them (${kind})`, () => {
      const fd = create();
      assert.equal(drainEventfd(fd), 0n);
      for (let i = 0; i < 3; i++) assert.equal(signalEventfd(fd), true);
      assert.equal(drainEventfd(fd), 3n);
      assert.equal(drainEventfd(fd), 0n);
      closeFd(fd);
    });

    it(`never waits for a full counter (${kind})`, () => {
      const fd = create();
      add(fd, FULL - 1n);
      assert.equal(signalEventfd(fd), true);
      assert.equal(signalEventfd(fd), false);
      assert.equal(drainEventfd(fd), FULL);
      assert.equal(signalEventfd(fd), true);
      assert.equal(drainEventfd(fd), 1n);
      closeFd(fd);
    });
  }

  it('names a closed descriptor', () => {
    const fd = createEventfd();
    closeFd(fd);
    assert.throws(() => signalEventfd(fd), { code: 'EBADF', operation: `signalling eventfd ${fd}` });
    assert.throws(() => drainEventfd(fd), { code: 'EBADF', operation: `draining eventfd ${fd}` });
  });
});
