import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import {
  BLOCK_FRAGMENT_9,
  closeBuses,
  KIQ_DOORBELL,
  PDE_VALID,
  PLACE,
  PTE,
  pm4,
  SDMA_DOORBELL,
  TestDriver,
} from './test/driver.js';

/** Deterministic noise. */
function* noise(seed: number): Generator<number, never> {
  for (let state = seed; ; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state;
  }
}

/** Runs at most this many slices: whatever is in a ring, the bus gets its turn. */
const SLICES = 200;

function runSome(driver: TestDriver): number {
  let slices = 0;
  while (slices < SLICES && driver.bus.runOne()) slices++;
  return slices;
}

describe('gpu under a hostile guest', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver().bringUp();
  });

  const inspect = () => JSON.stringify(driver.model.inspect());

  it('stops a ring at an unknown SDMA packet, says so, and serves the others', () => {
    driver.sdma(0x3f, 5, 0x5000, 0, 1);
    assert.equal(driver.guest32(0x5000), 0);
    assert.match(driver.logged('warn').join(), /sdma0 gfx stops at packet 0x0000003f/);
    driver.kiq(pm4(0x37, 4), 5 << 8, 0x5000, 0, 1);
    assert.equal(driver.guest32(0x5000), 1);
  });

  it('a stopped ring runs again after the driver restarts it', () => {
    driver.sdma(0x3f);
    const control = driver.reg(0x12e0);
    driver.setReg(0x12e0, control & ~1);
    driver.setReg(0x12e3, driver.sdmaWptr);
    driver.setReg(0x12e0, control);
    driver.sdma(5, 0x5000, 0, 1);
    assert.equal(driver.guest32(0x5000), 1);
  });

  it('raises the bad-opcode interrupt for an unknown PM4 packet', () => {
    driver.kiq(pm4(0xee, 1), 0);
    assert.deepEqual(
      driver.vectors().map(({ client, source, ring }) => [client, source, ring]),
      [[20, 183, 9]],
    );
  });

  it('does not fill the log', () => {
    for (let count = 0; count < 100; count++) driver.setReg(0x16080, 0xf0000);
    for (let index = 0; index < 1000; index++) {
      driver.setReg(0xe, 0x1000_0000 + 4 * index);
      driver.reg(0xf);
    }
    assert.ok(driver.logged('warn').length < 300, `${driver.logged('warn').length} warnings`);
    assert.match(inspect(), /"psp mailbox":100/);
  });

  it('bounds nested indirect buffers', () => {
    driver.writeIb([4, PLACE.IB, 0, 6, 0, 0]);
    driver.sdma(4, PLACE.IB, 0, 6, 0, 0);
    assert.match(driver.logged('warn').join(), /stops at packet/);
  });

  it('gives a chain of PM4 buffers that never ends no more than slices', () => {
    driver.writeIb([pm4(0x3f, 3), PLACE.IB, 0, (4 | (1 << 20)) >>> 0]);
    driver.mapComputeQueue();
    driver.setGuest32(PLACE.KCQ_RING, pm4(0x3f, 3), PLACE.IB, 0, 4);
    driver.gpu.write64(2, 6 * 4, 4n);
    assert.equal(runSome(driver), SLICES, 'still asking for its next slice');
    driver.setReg(0x2022, 1 << 2);
    driver.setReg(0x325d, 1);
    assert.ok(runSome(driver) <= 1, 'a dequeue request ends it');
  });

  it('lets a ring finish beside one that never does', () => {
    driver.writeIb([pm4(0x3f, 3), PLACE.IB, 0, (4 | (1 << 20)) >>> 0]);
    driver.mapComputeQueue();
    driver.setGuest32(PLACE.KCQ_RING, pm4(0x3f, 3), PLACE.IB, 0, 4);
    driver.gpu.write64(2, 6 * 4, 4n);
    for (let count = 0; count < 5; count++) driver.bus.runOne();
    const pieces = 3;
    for (let piece = 0; piece < pieces; piece++) {
      driver.writeSdma((11 | (2 << 30)) >>> 0, 0, 0x80, 0x1111_1111, 0x3f_ffff, 0, 0, 0);
    }
    driver.writeSdma(5, 0x5000, 0, 1);
    driver.ringSdma();
    let slices = 0;
    for (; driver.guest32(0x5000) === 0 && slices < SLICES; slices++) driver.bus.runOne();
    assert.ok(slices <= 2 * (pieces + 2), `the fence came after ${slices} slices of both rings`);
  });

  it('survives write pointers far outside the ring', () => {
    driver.gpu.write64(2, SDMA_DOORBELL * 4, 0xffff_ffff_ffff_fffcn);
    driver.gpu.write64(2, KIQ_DOORBELL * 4, 0xffff_ffff_ffff_ffffn);
    assert.ok(runSome(driver) < SLICES);
  });

  it('survives a ring without pages', () => {
    for (let page = 0; page < 4096; page++) driver.vram64(0x100_0000 + 8 * page, 0n);
    driver.writeSdma(0, 0, 0, 0);
    driver.ringSdma();
    assert.ok(runSome(driver) < SLICES);
  });

  it('survives page tables that point to themselves and beyond VRAM', () => {
    const root = 0x2000;
    driver.vram64(root, BigInt(root) | PDE_VALID | PTE.FURTHER | BLOCK_FRAGMENT_9);
    driver.enableVmid(1, root);
    driver.vram64(root + 8, 0xffff_ffff_f000n | PTE.VALID);
    driver.enableVmid(2, 0xffff_f000);
    for (const vmid of [1, 2]) driver.sdma((4 | (vmid << 16)) >>> 0, 0, 0, 0xfffff, 0, 0);
    assert.match(inspect(), /faults/);
  });

  it("refuses a user buffer's register writes and says so by interrupt", () => {
    driver.mapUserPage(3);
    driver.writeIb([(14 | (0xf << 28)) >>> 0, 0x94, 0xbad, 0, 0, 0, 0, 0]);
    driver.sdma((4 | (3 << 16)) >>> 0, 0x1000, 0, 8, 0, 0);
    driver.writeIb([pm4(0x37, 4), 0, 0x95, 0, 0xbad]);
    driver.kiq(pm4(0x3f, 3), 0x1000, 0, (5 | (3 << 24)) >>> 0);
    assert.deepEqual([driver.reg(0x94), driver.reg(0x95)], [0, 0]);
    assert.deepEqual(
      driver.vectors().map(({ source }) => source),
      [247, 184],
    );
  });

  it('drops an interrupt whose ring the bus refuses', () => {
    driver.setReg(0x1122, 0x7f);
    driver.sdma(6, 0);
    assert.deepEqual(driver.gpu.interrupts, []);
    assert.match(inspect(), /"dropped":1/);
  });

  it('throws on nothing: rings of noise, registers of noise', () => {
    const random = noise(20260101);
    for (let round = 0; round < 60; round++) {
      driver = new TestDriver().bringUp();
      driver.mapComputeQueue();
      const dwords = Array.from({ length: 900 }, () => {
        const value = random.next().value;
        // Mostly real opcodes, so that the noise gets past the decoder.
        return round % 2 === 0 ? (value & 0xff00_00ff) % 16 : value;
      });
      const pm4Words = dwords.map((value) => ((3 << 30) | ((value & 3) << 16) | (((value >>> 8) & 0xff) << 8)) >>> 0);
      driver.writeSdma(...dwords);
      driver.ringSdma();
      pm4Words.forEach((word, index) => {
        driver.setGuest32(PLACE.KCQ_RING + 4 * index, word);
      });
      driver.gpu.write64(2, 6 * 4, 900n);
      runSome(driver);
      driver.bus.clock.advance(10);
      runSome(driver);
    }
    for (let count = 0; count < 20000; count++) {
      const offset = (random.next().value % 0x80000) & ~3;
      driver.setReg(offset / 4, random.next().value);
      driver.gpu.read(5, offset);
      driver.gpu.write(2, (random.next().value % 0x200000) & ~3, random.next().value);
      if (count % 100 === 0) runSome(driver);
    }
    assert.ok(inspect().length > 0);
  });
});
