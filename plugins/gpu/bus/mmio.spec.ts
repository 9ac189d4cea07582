import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { DISCOVERY_OFFSET_FROM_END, discoveryTable } from '../product/discovery.js';
import { PRODUCTS } from '../product/product.js';
import { closeBuses, TestDriver, VRAM_BYTES } from '../test/driver.js';

describe('gpu registers', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver();
  });

  it('answer the probe as the driver expects', () => {
    const expected: readonly (readonly [number, number])[] = [
      [0xde5, 0],
      [0x16061, 0x80000000],
      [0xde3, VRAM_BYTES / 2 ** 20],
      [0xd31, 0],
      [0x7, 0],
      [0x16091, 0],
      [0x53, 0x200],
      [0x1acc0, 0x8000],
      [0x1acc1, 0x8000 + VRAM_BYTES / 2 ** 24 - 1],
      [0x296b, 0],
      [0xe27, 0xffffffff],
      [0x2004, 0],
      [0x16824, 0],
    ];
    for (const [dword, value] of expected) assert.equal(driver.reg(dword), value, `dw 0x${dword.toString(16)}`);
  });

  it('show the discovery table through MM_INDEX and MM_DATA', () => {
    const table = discoveryTable(PRODUCTS['7af0'].blocks);
    const words = Array.from({ length: table.length / 4 }, (_, index) => {
      driver.setReg(0, (0x8000_0000 | (VRAM_BYTES - DISCOVERY_OFFSET_FROM_END + 4 * index)) >>> 0);
      driver.setReg(6, 0);
      return driver.reg(1);
    });
    assert.deepEqual(new Uint8Array(Uint32Array.from(words).buffer), table);
  });

  it('write VRAM through the window, and read all-ones beyond VRAM', () => {
    driver.setReg(0, 0x8000_1000);
    driver.setReg(1, 0x1234);
    assert.equal(driver.gpu.read(0, 0x1000), 0x1234);
    driver.setReg(6, 0x7fff);
    assert.equal(driver.reg(1), 0xffff_ffff);
  });

  it('are reachable through both index pairs, except the pairs themselves', () => {
    driver.setReg(0x94, 7);
    driver.setReg(0, 0x94 * 4);
    assert.equal(driver.reg(1), 7);
    driver.setReg(0xe, 0x94 * 4);
    driver.setReg(0xf, 8);
    assert.equal(driver.reg(0x94), 8);
    for (const window of [0x4, 0x3c]) {
      driver.setReg(0xe, window);
      assert.equal(driver.reg(0xf), 0);
    }
  });

  it('are storage where the driver only programs them, and loud where nobody knows them', () => {
    driver.setReg(0x263e, 0x2a114042);
    assert.equal(driver.reg(0x263e), 0x2a114042);
    driver.setReg(0x18000, 5);
    assert.equal(driver.reg(0x18000), 0);
    assert.equal(driver.logged('warn').length, 1);
    assert.match(JSON.stringify(driver.model.inspect()), /"unknown":\[\{"dw":"0x00018000","reads":1,"writes":1\}\]/);
  });

  it('acknowledge every invalidation at once', () => {
    for (const base of [0x2840, 0x1ab80]) {
      driver.setReg(base + 0x63 + 17, 0x007c_0001);
      assert.equal(driver.reg(base + 0x75 + 17), 1);
    }
  });

  it('leave safe mode on request', () => {
    driver.setReg(0xec05, 3);
    assert.equal(driver.reg(0xec05), 2);
  });

  it('count time at 100 MHz', () => {
    driver.bus.clock.advance(3);
    driver.setReg(0xec26, 1);
    assert.equal(driver.reg(0xec24), 300_000);
  });
});
