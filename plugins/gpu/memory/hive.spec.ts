import assert from 'node:assert/strict';
import { TestBus } from 'ghostbus/testing';
import { afterEach, describe, it } from 'mocha';
import {
  BLOCK_FRAGMENT_9,
  closeBuses,
  copy,
  FB,
  GART_TABLE,
  high,
  low,
  PDE_VALID,
  PTE,
  TestDriver,
  VRAM_BYTES,
} from '../test/driver.js';

const HIVE = { id: '740f', hive: 'gpu0+gpu1' } as const;
const SEGMENT = VRAM_BYTES;

/** Two nodes. The second one's own memory begins at its segment, for its page tables too. */
function hive(): readonly [TestDriver, TestDriver] {
  const bus = new TestBus();
  const drivers = [new TestDriver(bus, 'gpu0', HIVE), new TestDriver(bus, 'gpu1', HIVE)] as const;
  for (const [node, driver] of drivers.entries()) {
    driver.gpu.reset('device');
    driver.bringUp();
    for (const base of [0x2840, 0x1ab80]) driver.setReg(base + 0xab, (node * SEGMENT + GART_TABLE) | 1);
  }
  return drivers;
}

describe('gpu hive', () => {
  afterEach(closeBuses);

  it('tells each node its number, the last one, the segment, and a frame buffer of them all', () => {
    for (const [node, driver] of hive().entries()) {
      assert.equal(driver.reg(0x2978), (1 << 4) | node);
      assert.equal(driver.reg(0x2979), SEGMENT / 2 ** 24);
      assert.equal(driver.reg(0x1acc1) - driver.reg(0x1acc0), (2 * SEGMENT) / 2 ** 24 - 1);
      assert.equal(driver.reg(0xde3), SEGMENT / 2 ** 20, 'its own memory');
    }
  });

  it('copies from and to the other node over the link, not over the bus, and counts it there', () => {
    const [first, second] = hive();
    first.vram64(0x10_0000, 0x1122_3344_5566_7788n);
    // The second node reads the first one's memory, at the start of the frame buffer, into its own.
    second.sdma(...copy(FB + SEGMENT + 0x20_0000, FB + 0x10_0000, 0x3000));
    assert.equal(second.gpu.read(0, 0x20_0000), 0x5566_7788);
    assert.deepEqual(second.gpu.counters.links, { gpu0: { bytesRead: 0x3000, bytesWritten: 0 } });
    first.sdma(...copy(FB + SEGMENT + 0x30_0000, FB + 0x10_0000, 0x1000));
    assert.equal(second.gpu.read(0, 0x30_0004), 0x1122_3344);
    assert.deepEqual(first.gpu.counters.links, { gpu1: { bytesRead: 0, bytesWritten: 0x1000 } });
  });

  it('moves between the other node and guest memory, fills it, and reaches it through page tables', () => {
    const [, second] = hive();
    second.setGuest32(0x5000, 0xabcd);
    second.sdma(...copy(FB + 0x1000, 0x5000, 4));
    second.sdma(...copy(0x6000, FB + 0x1000, 4));
    assert.equal(second.guest32(0x6000), 0xabcd);
    // VMID 1: one leaf in the first node's segment, tables in the second node's own.
    second.vram64(0x8000, BigInt(SEGMENT + 0x9000) | PDE_VALID);
    second.vram64(0x9000, BigInt(SEGMENT + 0xa000) | PDE_VALID | BLOCK_FRAGMENT_9);
    second.vram64(0xa000, 0x20_0000n | PTE.VALID);
    second.enableVmid(1, SEGMENT + 0x8000);
    const found = second.control('translate', { address: '0x0', bytes: '0x200000' }) as object[];
    const expected = { target: 'hive', node: 0, address: 0x20_0000, lengthBytes: 0x20_0000 };
    assert.deepEqual(found.at(-1), { vmid: 1, extents: [expected] });
  });

  it('does not run on into the next segment as if it were the same memory', () => {
    const [first, second] = hive();
    first.sdma(11 | (2 << 30), low(FB + SEGMENT - 0x1000), high(FB), 0x7777_7777, 0x2000 - 1);
    assert.equal(second.gpu.read(0, 0xffc), 0x7777_7777);
    assert.equal(second.gpu.read(0, 0x1000), 0);
    assert.deepEqual(first.gpu.counters.links, { gpu1: { bytesRead: 0, bytesWritten: 0x1000 } });
  });

  it('has no memory beyond its last segment', () => {
    const [first] = hive();
    first.sdma(...copy(FB, FB + 2 * SEGMENT, 4));
    assert.match(first.logged('warn').join(), /no valid page/);
  });

  it('is refused where the driver would not look for it, or where it cannot be one', () => {
    const make = (options: object, name = 'gpu0') => new TestDriver(new TestBus(), name, options);
    assert.throws(() => make({ hive: 'gpu0+gpu1' }), /only where id=740f/);
    assert.throws(() => make({ ...HIVE, hive: 'gpu1+gpu2' }), /gpu0, is not in it/);
    assert.throws(() => make({ ...HIVE, hive: 'gpu0' }), /2 to 16/);
    assert.throws(() => make({ ...HIVE, hive: 'gpu0+gpu0' }), /twice/);
  });

  it('says at its first reset which member is missing or different', () => {
    assert.throws(() => new TestDriver(new TestBus(), 'gpu0', HIVE).gpu.reset('device'), /gpu1 must be a GPU/);
    const bus = new TestBus();
    const first = new TestDriver(bus, 'gpu0', HIVE);
    new TestDriver(bus, 'gpu1', { ...HIVE, vram: 2 * VRAM_BYTES });
    assert.throws(() => first.gpu.reset('device'), /gpu1 must be a GPU with the same hive and as much VRAM/);
  });
});
