import assert from 'node:assert/strict';
import { isPowerOfTwo, Ring } from './ring.js';

/** Positions; positions with a wrap bit (Gaudi's prime queues); 16-bit and 24-bit counters (mlx5's queues). */
const POSITIONS = new Ring({ entries: 8 });
const WRAP_BIT = new Ring({ entries: 8, counterRange: 16 });
const WIDE = new Ring({ entries: 8, counterRange: 2 ** 24 });

describe('kit: ring', () => {
  it('tells used and free, over the wrap too', () => {
    const rows = [
      [POSITIONS, 0, 0, 0, 7],
      [POSITIONS, 7, 0, 7, 0],
      [POSITIONS, 1, 6, 3, 4],
      [WRAP_BIT, 8, 0, 8, 0],
      [WRAP_BIT, 1, 9, 8, 0],
      [WRAP_BIT, 2, 15, 3, 5],
      [WIDE, 0x000002, 0xfffffe, 4, 4],
    ] as const;
    for (const [ring, producer, consumer, used, free] of rows) {
      assert.equal(ring.used(producer, consumer), used);
      assert.equal(ring.free(producer, consumer), free);
      assert.equal(ring.isFull(producer, consumer), free === 0);
      assert.equal(ring.isEmpty(producer, consumer), used === 0);
      assert.ok(ring.isPlausible(producer, consumer));
    }
  });

  it('leaves an entry free only where full would look like empty', () => {
    assert.deepEqual(
      [POSITIONS, WRAP_BIT, WIDE].map(({ capacity }) => capacity),
      [7, 8, 8],
    );
  });

  it('finds the slot and the time round', () => {
    assert.deepEqual([WRAP_BIT.slot(11), WRAP_BIT.round(11)], [3, 1]);
    assert.deepEqual([WIDE.slot(0xffffff), WIDE.round(0xffffff) & 1], [7, 1]);
    assert.deepEqual([POSITIONS.slot(11), POSITIONS.round(11)], [3, 0]);
  });

  it('advances and wraps', () => {
    assert.equal(POSITIONS.advance(7), 0);
    assert.equal(WRAP_BIT.advance(7), 8);
    assert.equal(WRAP_BIT.advance(15, 3), 2);
    assert.equal(WIDE.advance(0xffffff), 0);
  });

  it('knows counters that cannot be true', () => {
    for (const [producer, consumer] of [
      [9, 0],
      [16, 8],
      [-1, 0],
      [0.5, 0],
      [Number.NaN, 0],
    ] as const) {
      assert.equal(WRAP_BIT.isPlausible(producer, consumer), false, `${producer}, ${consumer}`);
    }
    assert.equal(WRAP_BIT.used(9, 0), 9);
    assert.equal(WRAP_BIT.free(9, 0), 0);
    assert.equal(WRAP_BIT.isFull(9, 0), true);
  });

  it('orders wide counters over the wrap', () => {
    assert.ok(WIDE.isAfter(1, 0xffffff));
    assert.ok(!WIDE.isAfter(0xffffff, 1));
    assert.ok(!WIDE.isAfter(5, 5));
  });

  it('refuses shapes that make no sense', () => {
    assert.throws(() => new Ring({ entries: 0 }), /a ring of 0 entries/);
    assert.throws(() => new Ring({ entries: 8, counterRange: 12 }), /cannot wrap at 12/);
  });

  it('tells powers of two', () => {
    assert.deepEqual([1, 2, 2 ** 40, 0, 3, -4, 0.5, 2 ** 52 + 1].map(isPowerOfTwo), [
      true,
      true,
      true,
      false,
      false,
      false,
      false,
      false,
    ]);
  });
});
