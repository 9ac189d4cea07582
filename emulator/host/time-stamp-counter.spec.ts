import assert from 'node:assert/strict';
import { openFdCount } from './fd.js';
import { agreedFrequency, type CounterReading, frequencyKHz, timeStampCounterKHz } from './time-stamp-counter.js';

/** A counter whose pieces between readings have these frequencies, in kHz, each a millisecond long. */
function counterOf(...frequencies: readonly number[]): () => CounterReading {
  let ticks = 0n;
  let timeNs = 7_000_000n;
  const pieces = [...frequencies];
  return () => {
    const reading = { ticks, timeNs };
    ticks += BigInt(pieces.shift() ?? 0);
    timeNs += 1_000_000n;
    return reading;
  };
}

describe('the time stamp counter', () => {
  it('counts ticks per millisecond between two readings', () => {
    const first = { ticks: 2n ** 60n, timeNs: 5n };
    assert.equal(frequencyKHz(first, { ticks: 2n ** 60n + 5_000_000n, timeNs: 2_000_005n }), 2_500_000);
  });

  it('has the frequency of which two measurements agree', async () => {
    assert.equal(await agreedFrequency(counterOf(2_000_000, 2_000_200)), 2_000_100);
    assert.equal(await agreedFrequency(counterOf(500_000, 2_000_000, 2_000_000)), 2_000_000);
  });

  it('has none as long as no two agree', async () => {
    assert.equal(await agreedFrequency(counterOf(1_000, 2_000, 3_000, 4_000, 5_000, 6_000)), undefined);
  });

  it('is measured alike twice on this host, and leaves no descriptor', async function () {
    const descriptors = openFdCount();
    const first = await timeStampCounterKHz();
    const second = await timeStampCounterKHz();
    assert.equal(openFdCount(), descriptors);
    if (process.arch !== 'x64') return this.skip();
    assert.ok(first !== undefined && second !== undefined, 'no measurement agreed with another');
    assert.ok(first > 500_000 && first < 10_000_000, `${first} kHz`);
    assert.ok(Math.abs(first / second - 1) < 0.001, `${first} and ${second} kHz`);
  });
});
