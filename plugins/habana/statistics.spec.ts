import assert from 'node:assert/strict';
import { RegisterBlock } from 'ghostbus';
import { Statistics } from './statistics.js';

describe('habana: statistics', () => {
  it('keep counting over resets', () => {
    const statistics = new Statistics();
    statistics.of('DMA0', 'transfers', 'bytes').bytes += 3;
    statistics.of('DMA0', 'transfers', 'bytes').bytes += 4;
    assert.deepEqual(statistics.of('DMA0', 'transfers', 'bytes'), { transfers: 0, bytes: 7 });
    assert.deepEqual(statistics.of('DMA1', 'bytes'), { bytes: 0 });
  });

  it('add what earlier devices met at registers nobody declared', () => {
    const statistics = new Statistics();
    const make = () => new RegisterBlock({ name: 'GIC', sizeBytes: 64 }, {});
    const first = make();
    first.read(8, 4);
    first.write(4, 4, 1);
    statistics.keepUnimplemented([first]);
    const second = make();
    second.read(4, 4);
    assert.deepEqual(statistics.unimplemented([second]), [
      { register: 'GIC+0x4', reads: 1, writes: 1 },
      { register: 'GIC+0x8', reads: 1, writes: 0 },
    ]);
  });
});
