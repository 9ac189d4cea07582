import assert from 'node:assert/strict';
import { type ClockReading, clockFault, compareClocks } from './guest-clock.js';

/** What a guest's clock of this speed says, half-way through an answer that takes `tookMs`. */
function readingAt(askedMs: number, speed: number, tookMs: number): ClockReading {
  return { guestMs: 1e12 + (askedMs + tookMs / 2) * speed, askedMs, answeredMs: askedMs + tookMs };
}

describe('the clock of a guest against the host’s', () => {
  for (const [speed, tookMs, verdict] of [
    [1, 100, 'right'],
    [1.2, 20, 'right'],
    [0.83, 20, 'right'],
    [1.3, 20, 'wrong'],
    [0.75, 20, 'wrong'],
    [13, 400, 'wrong'],
    [1 / 13, 400, 'wrong'],
    [0, 20, 'wrong'],
    [-1, 20, 'wrong'],
    [1, 500, 'unsure'],
    [1.3, 200, 'unsure'],
    [0.75, 200, 'unsure'],
  ] as const) {
    it(`is ${verdict} at ${speed.toFixed(2)} times its speed, with answers in ${tookMs} ms, after a second`, () => {
      const comparison = compareClocks(readingAt(5_000, speed, tookMs), readingAt(6_000, speed, tookMs));
      assert.equal(comparison.verdict, verdict);
      const [low, high] = [comparison.least, comparison.most].sort((one, other) => one - other);
      assert.ok(low! <= speed && speed <= high!, JSON.stringify(comparison));
    });
  }

  it('is unsure when the second answer was asked for before the first had come', () => {
    assert.equal(compareClocks(readingAt(0, 1, 100), readingAt(50, 1, 100)).verdict, 'unsure');
  });

  /** Reads every second; counts. */
  const series = (speed: number, tookMs: number) => {
    const asked: number[] = [];
    const read = async () => {
      asked.push(asked.length);
      return readingAt(asked.length * 1000, speed, tookMs);
    };
    return { asked, fault: () => clockFault(readingAt(0, speed, tookMs), read, 0) };
  };

  it('is read once more when that is sure', async () => {
    const right = series(1, 20);
    assert.equal(await right.fault(), undefined);
    assert.equal(right.asked.length, 1);
  });

  it('is read again while slow answers leave it unsure', async () => {
    const right = series(1, 500);
    assert.equal(await right.fault(), undefined);
    assert.equal(right.asked.length, 3);
  });

  it('counts as right while it is in doubt, and is not asked for ever', async () => {
    const nearly = series(1.3, 3000);
    assert.equal(await nearly.fault(), undefined);
    assert.equal(nearly.asked.length, 7);
  });

  it('may be set once meanwhile', async () => {
    const readings = [
      { ...readingAt(1000, 1, 20), guestMs: 5e12 },
      { ...readingAt(2000, 1, 20), guestMs: 5e12 + 1000 },
    ];
    assert.equal(await clockFault(readingAt(0, 1, 20), async () => readings.shift()!, 0), undefined);
    assert.deepEqual(readings, []);
  });

  it('is complained about with its speed and what follows', async () => {
    assert.match((await series(13, 20).fault()) ?? '', /at least 12\.7 times too fast: .* too short\.$/);
    assert.match((await series(0.25, 20).fault()) ?? '', /at 0\.26 of its speed at most: .* too long\.$/);
  });
});
