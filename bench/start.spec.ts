import assert from 'node:assert/strict';
import { FakeTools } from '../session/test/fake-guest.js';
import { measureStarts, STARTED_DEVICES, startLine } from './start.js';

describe('the benchmark of starts', () => {
  it('boots and restores in turns, after the machine that is restored was made', async () => {
    const order: string[] = [];
    const fake = new FakeTools({
      boot: async ({ functions, warm }) => {
        assert.equal(functions?.length ?? STARTED_DEVICES.length, STARTED_DEVICES.length);
        order.push(functions === undefined ? 'made' : warm === undefined ? 'cold' : 'warm');
      },
    });
    const { coldMs, warmMs } = await measureStarts(fake.tools, () => undefined);
    assert.deepEqual(order, ['made', 'cold', 'warm', 'cold', 'warm']);
    assert.deepEqual([coldMs.length, warmMs.length], [2, 2]);
    assert.deepEqual(fake.kept[0]?.warm, fake.boots[1]?.warm);
  });

  it('tells the ratio of the means, and every time', () => {
    const line = startLine({ accel: 'tcg', coldMs: [30_000, 50_000], warmMs: [5000, 7040] });
    assert.equal(line, '  tcg: 0.15   (5.0 s, 7.0 s against 30.0 s, 50.0 s)');
  });
});
