import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'mocha';
import { closeBuses, PLACE, pm4, TestDriver } from '../test/driver.js';

/** soc15_ih_clientid.h SOC15_IH_CLIENTID_GRBM_CP. */
const GRBM_CP = 20;

describe('gpu interrupt messages', () => {
  afterEach(closeBuses);

  it('stop after one until the read pointer is written, when the ring re-arms by it', () => {
    const driver = new TestDriver().bringUp();
    driver.setReg(0x1120, driver.reg(0x1120) | (1 << 21));
    for (let count = 0; count < 3; count++) driver.sdma(6, count);
    assert.equal(driver.gpu.interrupts.length, 1);
    driver.gpu.write(2, 0xbc0, 32);
    assert.equal(driver.gpu.interrupts.length, 2, 'two vectors are unread');
    driver.vectors();
    assert.equal(driver.gpu.interrupts.length, 2, 'all is read');
    driver.sdma(6, 3);
    assert.equal(driver.gpu.interrupts.length, 3);
  });

  it('of the command processor are sent only where the pipe enables them', () => {
    const driver = new TestDriver().bringUp();
    const endOfPipe = [pm4(0x49, 7), 0, (1 << 29) | (2 << 24), PLACE.IB, 0, 1, 0, 0];
    driver.kiq(...endOfPipe);
    assert.deepEqual(
      driver.vectors().map(({ client }) => client),
      [GRBM_CP],
    );
    driver.setReg(0x308a, 0);
    driver.kiq(...endOfPipe);
    assert.deepEqual(driver.vectors(), []);
    // amdkfd's way: select the pipe, then the one register for all of them.
    driver.setReg(0x2022, 1 | (2 << 2));
    driver.setReg(0x30b4, 1 << 26);
    driver.setReg(0x2022, 0);
    driver.kiq(...endOfPipe);
    assert.equal(driver.vectors().length, 1);
  });
});
