import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'mocha';
import { closeBuses, PLACE, TestDriver } from '../test/driver.js';

describe('gpu interrupt ring', () => {
  afterEach(closeBuses);

  it('wraps, and tells an overflow in bit 0 of its write pointer', () => {
    const driver = new TestDriver().bringUp();
    for (let count = 0; count < 200; count++) {
      driver.sdma(6, count);
      assert.deepEqual(
        driver.vectors().map(({ data }) => data),
        [count],
      );
    }
    for (let count = 0; count < 128; count++) driver.sdma(6, count);
    assert.equal(driver.guest32(PLACE.IH_WPTR) & 1, 1);
    driver.setReg(0x1120, (driver.reg(0x1120) | (1 << 31)) >>> 0);
    assert.equal(driver.reg(0x1124) & 1, 0);
    assert.equal(driver.reg(0x1120) >>> 31, 0, 'clears itself');
  });

  it('is silent while off', () => {
    const driver = new TestDriver().bringUp();
    driver.setReg(0x1120, 0);
    driver.sdma(6, 0);
    assert.deepEqual(driver.gpu.interrupts, []);
  });
});
