import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'mocha';
import { Doorbells } from './doorbells.js';

describe('gpu doorbells', () => {
  let doorbells: Doorbells;
  let rung: string[];
  const action = (name: string) => (low: number, high: number) => rung.push(`${name} ${low} ${high}`);

  beforeEach(() => {
    doorbells = new Doorbells();
    rung = [];
  });

  it('ring whoever claims them, by 64 bits or by halves', () => {
    doorbells.claim({}, 6, action('a'));
    doorbells.write64(0x18, 0x1_0000_0002n);
    doorbells.write(0x18, 4, 5);
    doorbells.write(0x1c, 4, 6);
    assert.deepEqual(rung, ['a 2 1', 'a 5 1', 'a 5 6']);
    assert.deepEqual([doorbells.read(0x18), doorbells.read64(0x18)], [5, 0x6_0000_0005n]);
  });

  it('ignore writes too narrow for a pointer', () => {
    doorbells.claim({}, 0, action('a'));
    doorbells.write(0, 2, 1);
    assert.deepEqual(rung, []);
  });

  it('follow an owner that moves, and leave the others', () => {
    const [first, second] = [{}, {}];
    doorbells.claim(first, 0, action('first'));
    // sdma_v4_0_gfx_resume enables the doorbell before it sets its offset: for a moment it lies on the KIQ's.
    doorbells.claim(second, 0, action('second'));
    doorbells.claim(second, 0x200, action('second'));
    doorbells.write64(0, 1n);
    doorbells.write64(0x800, 2n);
    assert.deepEqual(rung, ['first 1 0', 'second 2 0']);
    doorbells.claim(first, undefined, action('first'));
    doorbells.write64(0, 3n);
    assert.equal(rung.length, 2);
    assert.match(JSON.stringify(doorbells.inspect()), /"unclaimed":\[\{"index":0,"writes":1\}\]/);
  });
});
