import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { closeBuses, pm4, TestDriver } from '../test/driver.js';

const AT = 0x6000;

/** [operation, in memory, source, left in memory] for 32 bits; the codes are those of vega10_enum.h. */
const CASES: readonly (readonly [name: string, code: number, old: number, source: number, left: number])[] = [
  ['swap', 0x07, 1, 2, 2],
  ['add, wrapping', 0x0f, 0xffff_ffff, 3, 2],
  ['sub, wrapping', 0x10, 1, 2, 0xffff_ffff],
  ['smin', 0x11, 5, 0xffff_fffe, 0xffff_fffe],
  ['umin', 0x12, 5, 0xffff_fffe, 5],
  ['smax', 0x13, 5, 0xffff_fffe, 5],
  ['umax', 0x14, 5, 0xffff_fffe, 0xffff_fffe],
  ['and', 0x15, 0b1100, 0b1010, 0b1000],
  ['or', 0x16, 0b1100, 0b1010, 0b1110],
  ['xor', 0x17, 0b1100, 0b1010, 0b0110],
  ['inc', 0x18, 6, 7, 7],
  ['inc at its limit', 0x18, 7, 7, 0],
  ['dec', 0x19, 6, 7, 5],
  ['dec of zero', 0x19, 0, 7, 7],
  ['dec above its limit', 0x19, 9, 7, 7],
  ['add without return', 0x4f, 1, 2, 3],
];

describe('gpu atomics', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver().bringUp();
  });

  const sdma = (code: number, source: bigint, compare = 0n, loop = 0) => {
    const halves = (value: bigint) => [Number(value & 0xffff_ffffn), Number(value >> 32n)];
    return [(10 | (loop << 16) | (code << 25)) >>> 0, AT, 0, ...halves(source), ...halves(compare), 0];
  };

  for (const [name, code, old, source, left] of CASES) {
    it(`SDMA and ATOMIC_MEM: ${name}, and nothing beside it`, () => {
      driver.setGuest32(AT, old, 0x5555_5555);
      driver.sdma(...sdma(code, BigInt(source)));
      assert.deepEqual([driver.guest32(AT), driver.guest32(AT + 4)], [left, 0x5555_5555]);
      driver.setGuest32(AT, old);
      driver.kiq(pm4(0x1e, 8), code, AT, 0, source, 0, 0, 0, 0);
      assert.deepEqual([driver.guest32(AT), driver.guest32(AT + 4)], [left, 0x5555_5555]);
    });
  }

  it('does 64 bits', () => {
    driver.bus.guestMemory.writeU64(AT, 0xffff_ffffn);
    driver.sdma(...sdma(0x2f, 1n));
    assert.equal(driver.bus.guestMemory.readU64(AT), 0x1_0000_0000n);
    driver.sdma(...sdma(0x31, -1n & 0xffff_ffff_ffff_ffffn));
    assert.equal(driver.bus.guestMemory.readU64(AT), 0xffff_ffff_ffff_ffffn, 'signed minimum');
  });

  it('compares and swaps once, or until it succeeds', () => {
    driver.setGuest32(AT, 1);
    driver.sdma(...sdma(0x08, 9n, 2n));
    assert.equal(driver.guest32(AT), 1);
    driver.sdma(...sdma(0x08, 9n, 2n, 1), 5, 0x5000, 0, 1);
    assert.equal(driver.guest32(0x5000), 0, 'waits');
    driver.setGuest32(AT, 2);
    driver.bus.clock.advance(5);
    driver.bus.run();
    assert.deepEqual([driver.guest32(AT), driver.guest32(0x5000)], [9, 1]);
  });

  it('keeps the previous value: in registers with an interrupt (SDMA), for COPY_DATA (CP)', () => {
    driver.setGuest32(AT, 0x77);
    driver.setReg(0x1260 + 0x39, 0x8000_0000);
    driver.sdma(...sdma(0x0f, 1n));
    assert.equal(driver.reg(0x1260 + 0x3a), 0x77);
    assert.deepEqual(
      driver.vectors().map(({ client, source }) => [client, source]),
      [[8, 217]],
    );
    driver.kiq(pm4(0x1e, 8), 0x0f, AT, 0, 1, 0, 0, 0, 0, pm4(0x40, 5), 6 | (5 << 8), 0, 0, 0x5000, 0);
    assert.equal(driver.guest32(0x5000), 0x78);
  });

  it('stops a ring that asks for a floating point operation', () => {
    driver.sdma(...sdma(0x02, 1n), 5, 0x5000, 0, 1);
    assert.equal(driver.guest32(0x5000), 0);
    assert.match(driver.logged('warn').join(), /\(ATOMIC\)/);
  });
});

describe('gpu semaphores', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver().bringUp();
    driver.bus.guestMemory.writeU64(AT, 0n);
  });

  const count = () => driver.bus.guestMemory.readU64(AT);
  const signal = (7 | (1 << 30)) >>> 0;

  it('SDMA waits until the command processor signals', () => {
    driver.sdma(7, AT, 0, 5, 0x5000, 0, 1);
    assert.equal(driver.guest32(0x5000), 0);
    driver.kiq(pm4(0x39, 2), AT, 0xc000_0000);
    assert.deepEqual([driver.guest32(0x5000), count()], [1, 0n]);
  });

  it('the command processor waits until SDMA signals', () => {
    driver.kiq(pm4(0x39, 2), AT, 0xe000_0000, pm4(0x37, 4), 5 << 8, 0x5000, 0, 1);
    assert.equal(driver.guest32(0x5000), 0);
    driver.sdma(signal, AT, 0);
    assert.deepEqual([driver.guest32(0x5000), count()], [1, 0n]);
  });

  it('a signal adds one, or writes one', () => {
    driver.sdma(signal, AT, 0, signal, AT, 0);
    assert.equal(count(), 2n);
    driver.sdma((signal | (1 << 29)) >>> 0, AT, 0);
    assert.equal(count(), 1n);
    driver.kiq(pm4(0x39, 2), AT, 0xc000_0000, pm4(0x39, 2), AT, (0xc000_0000 | (1 << 20)) >>> 0);
    assert.equal(count(), 1n);
  });
});
