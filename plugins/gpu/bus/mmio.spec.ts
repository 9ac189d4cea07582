import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { DISCOVERY_OFFSET_FROM_END, discoveryTable } from '../product/discovery.js';
import { PRODUCTS } from '../product/product.js';
import { closeBuses, PLACE, SDMA_DOORBELL, TestDriver, VRAM_BYTES } from '../test/driver.js';

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
