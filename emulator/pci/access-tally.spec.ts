import assert from 'node:assert/strict';
import { AccessTally } from './access-tally.js';

describe('AccessTally', () => {
  it('says which access is the first at its offset', () => {
    const tally = new AccessTally();
    assert.equal(tally.countRead(8), true);
    assert.equal(tally.countWrite(8), false);
    assert.equal(tally.countWrite(12), true);
  });

  it('lists the most used first, equals by offset', () => {
    const tally = new AccessTally();
    tally.countRead(12);
    tally.countRead(4);
    tally.countRead(8);
    tally.countWrite(8);
    assert.deepEqual(tally.list(), [
      { offset: 8, reads: 1, writes: 1 },
      { offset: 4, reads: 1, writes: 0 },
      { offset: 12, reads: 1, writes: 0 },
    ]);
  });

  it('stays bounded and keeps its totals', () => {
    const tally = new AccessTally();
    for (let offset = 0; offset < 100_000; offset++) tally.countWrite(offset);
    assert.equal(tally.countRead(99_999), false);
    assert.equal(tally.list().length, 16384);
    assert.equal(tally.writes, 100_000);
    assert.equal(tally.reads, 1);
  });
});
