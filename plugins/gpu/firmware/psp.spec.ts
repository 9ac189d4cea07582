import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { closeBuses, TestDriver } from '../test/driver.js';

describe('gpu PSP', () => {
  afterEach(closeBuses);

  const [RING, COMMAND, FENCE] = [0x60_0000, 0x61_0000, 0x62_0000];
  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver();
    driver.enableGart();
    driver.setReg(0x16085, RING);
    driver.setReg(0x16086, 0);
    driver.setReg(0x16087, 0x1000);
    driver.setReg(0x16080, 0x20000);
  });

  const frame = (index: number, fence: number) => {
    driver.setGuest32(RING + 64 * index, COMMAND, 0, 1024, FENCE, 0, fence);
    driver.setReg(0x16083, (16 * (index + 1)) % 1024);
    driver.bus.run();
  };

  it('answers the mailbox at once', () => {
    assert.equal(driver.reg(0x16080), 0x80000000);
  });

  it('completes every frame: status 0, session 1, fence', () => {
    driver.setGuest32(COMMAND + 8, 6);
    driver.setGuest32(COMMAND + 864, 0xffff);
    for (let index = 0; index < 64; index++) {
      frame(index, index + 1);
      assert.equal(driver.guest32(FENCE), index + 1);
    }
    assert.deepEqual([driver.guest32(COMMAND + 864), driver.guest32(COMMAND + 868)], [0, 1]);
    assert.match(JSON.stringify(driver.model.inspect()), /"LOAD_IP_FW":64/);
  });

  it('forgets the ring when it is destroyed', () => {
    driver.setReg(0x16080, 0x30000);
    frame(0, 9);
    assert.equal(driver.guest32(FENCE), 0);
  });
});
