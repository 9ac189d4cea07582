import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'mocha';
import { DISCOVERY_OFFSET_FROM_END } from './product/discovery.js';
import { closeBuses, copy, FB, SDMA_DOORBELL, TestDriver, VRAM_BYTES } from './test/driver.js';

describe('gpu reset', () => {
  afterEach(closeBuses);

  it('by MODE1 through the PSP: power-on registers, discovery table, no stale work; VRAM stays', () => {
    const driver = new TestDriver().bringUp();
    driver.vram64(0x1000, 0x1234n);
    driver.vram64(VRAM_BYTES - DISCOVERY_OFFSET_FROM_END, 0n);
    driver.writeSdma(5, 0x5000, 0, 1);
    driver.ringSdma();
    driver.setReg(0x16080, 0x70000);
    driver.bus.run();
    assert.equal(driver.guest32(0x5000), 0, 'posted before the reset');
    driver.gpu.write64(2, SDMA_DOORBELL * 4, 4n);
    driver.bus.run();
    assert.equal(driver.reg(0x12e0), 0);
    assert.equal(driver.reg(0x16061), 0x80000000);
    assert.equal(driver.gpu.read(0, 0x1000), 0x1234);
    assert.notEqual(driver.gpu.read(0, VRAM_BYTES - DISCOVERY_OFFSET_FROM_END), 0);
    assert.match(JSON.stringify(driver.model.inspect()), /"mode1Resets":1/);
  });

  for (const [name, reset] of [
    ['FLR', (driver: TestDriver) => driver.gpu.reset('flr')],
    ['MODE1', (driver: TestDriver) => driver.setReg(0x16080, 0x70000)],
  ] as const) {
    it(`works again after ${name}`, () => {
      const driver = new TestDriver().bringUp();
      driver.sdma(5, 0x5000, 0, 1);
      reset(driver);
      driver.forget();
      driver.bringUp();
      driver.sdma(5, 0x5000, 0, 2);
      driver.kiq(0xffff1000);
      assert.equal(driver.guest32(0x5000), 2);
    });
  }
});

describe('gpu with a small BAR', () => {
  afterEach(closeBuses);

  const BAR = VRAM_BYTES / 2;

  it('shows the CPU and its peers the first part of VRAM, its engines all of it', () => {
    const driver = new TestDriver(undefined, undefined, { bar: BAR }).bringUp();
    assert.equal(driver.reg(0xde3), VRAM_BYTES / 2 ** 20);
    assert.deepEqual(driver.gpu.card.bars[0]?.sizeBytes, BAR);
    assert.throws(() => driver.gpu.read(0, BAR), RangeError);
    driver.setGuest32(0x5000, 0xcafe);
    driver.sdma(...copy(FB + BAR + 0x4000, 0x5000, 4));
    driver.sdma(...copy(FB + 0x1000, FB + BAR + 0x4000, 4));
    assert.equal(driver.gpu.read(0, 0x1000), 0xcafe);
    driver.setReg(0, (0x8000_0000 | (BAR + 0x4000)) >>> 0);
    assert.equal(driver.reg(1), 0xcafe, 'MM_INDEX and MM_DATA reach it as well');
  });

  it('cannot be larger than the VRAM', () => {
    assert.throws(() => new TestDriver(undefined, undefined, { bar: 2 * VRAM_BYTES }), /more than the VRAM/);
  });
});
