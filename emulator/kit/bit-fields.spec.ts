import assert from 'node:assert/strict';
import { BitFields32, BitFields64 } from './bit-fields.js';

const FENCE = new BitFields32({ decrement: [0, 4], target: [16, 8], id: [30, 2] });
const ENTRY = new BitFields64({ valid: [0, 1], system: [1, 1], address: [12, 36], fragment: [59, 5] });

describe('kit: bit fields', () => {
  it('gets and sets fields of 32 bits', () => {
    assert.equal(FENCE.get(0xc0ff_0005, 'id'), 3);
    assert.equal(FENCE.get(0xc0ff_0005, 'target'), 0xff);
    assert.equal(FENCE.set(0, 'id', 2), 0x8000_0000);
    assert.equal(FENCE.set(0xffff_ffff, 'target', 0), 0xff00_ffff);
    assert.ok(FENCE.has(1, 'decrement'));
    assert.ok(!FENCE.has(0x10, 'decrement'));
  });

  it('packs and unpacks words', () => {
    const word = FENCE.pack({ id: 3, target: 1, decrement: 1 });
    assert.equal(word, 0xc001_0001);
    assert.deepEqual(FENCE.unpack(word), { decrement: 1, target: 1, id: 3 });
    const entry = ENTRY.pack({ valid: 1, address: 0xf_1234_5678n, fragment: 9 });
    assert.equal(entry, 0x4800_f123_4567_8001n);
    assert.deepEqual(ENTRY.unpack(entry), { valid: 1, system: 0, address: 0xf_1234_5678n, fragment: 9 });
  });

  it('gives narrow fields of 64-bit words as numbers, wide ones as bigint', () => {
    const fragment: number = ENTRY.get(0xffff_ffff_ffff_ffffn, 'fragment');
    const address: bigint = ENTRY.get(0xffff_ffff_ffff_ffffn, 'address');
    assert.deepEqual([fragment, address], [31, 0xf_ffff_ffffn]);
    assert.equal(ENTRY.set(0n, 'fragment', 1), 1n << 59n);
    assert.ok(ENTRY.has(2n, 'system'));
    assert.ok(!ENTRY.has(1n, 'address'));
  });

  it('drops bits beyond the field', () => {
    assert.equal(FENCE.set(0, 'decrement', 0x1f), 0xf);
    assert.equal(FENCE.set(0, 'decrement', -1), 0xf);
    assert.equal(ENTRY.set(0n, 'valid', 3), 1n);
    assert.equal(ENTRY.set(-1n, 'address', 0n), 0xffff_0000_0000_0fffn);
  });

  it('makes masks', () => {
    assert.equal(FENCE.mask('id', 'decrement'), 0xc000_000f);
    assert.equal(ENTRY.mask('address'), 0xffff_ffff_f000n);
    assert.equal(new BitFields32({ all: [0, 32] }).mask('all'), 0xffff_ffff);
  });

  it('refuses fields outside the word and fields that overlap', () => {
    assert.throws(
      () => new BitFields32({ wide: [31, 2] }),
      /field wide of 2 bits at bit 31 does not lie in a word of 32 bits/,
    );
    assert.throws(() => new BitFields64({ none: [3, 0] }), /field none of 0 bits/);
    assert.throws(() => new BitFields32({ a: [0, 4], b: [3, 2] }), /fields a and b share bit 3/);
  });
});
