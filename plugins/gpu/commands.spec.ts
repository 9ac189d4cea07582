import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { closeBuses, PLACE, TestDriver } from './test/driver.js';

const [VMC, UTCL2] = [0x12, 0x1b];
const MMHUB = 0x1ab80;
const FAULT_INTERRUPTS = 0x002a_aa00;
const fence = (value: number) => [5, PLACE.IB, 0, value];

describe('gpu faults on demand', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  const control = (command: string, args: Record<string, unknown> = {}) => driver.control(command, args);

  beforeEach(() => {
    driver = new TestDriver().bringUp();
    driver.mapUserPage(2);
    for (const hub of [0x2840, MMHUB]) driver.setReg(hub + 0x42, driver.reg(hub + 0x42) | FAULT_INTERRUPTS);
  });

  it('raise a page fault of either hub', () => {
    const place = { address: '0x123456000', vmid: 2 };
    assert.deepEqual(control('page-fault', { hub: 'mmhub', ...place }), { reported: true });
    assert.deepEqual(control('page-fault', { hub: 'gfxhub', access: 'write', ...place }), { reported: true });
    assert.deepEqual(
      driver.vectors().map(({ client, vmid, data, ring }) => [client, vmid, data, ring]),
      [
        [VMC, 2, 0x123456, 0x18],
        [UTCL2, 2, 0x123456, 0x28],
      ],
    );
    assert.deepEqual(
      control('page-fault', { hub: 'mmhub', address: 0, vmid: 5 }),
      { reported: false },
      'no such context',
    );
  });

  it('raise a fault with retry once, until the driver has answered it', () => {
    driver.setReg(0x1128, 0x1000_02f6);
    driver.setReg(0x118a, 1 << 16);
    const fault = { hub: 'mmhub', address: '0x5000', vmid: 2, retry: 'true' };
    for (let count = 0; count < 3; count++) control('page-fault', fault);
    assert.equal(driver.vectors().length, 1);
    driver.gpu.write(2, 0x2f6 * 4, 0);
    control('page-fault', fault);
    assert.equal(driver.vectors().length, 1);
  });

  it('hang a queue until it is set up anew', () => {
    assert.throws(() => control('hang', { queue: 'sdma9 gfx' }), /there are: sdma0 gfx, /);
    control('hang', { queue: 'sdma0 gfx' });
    driver.sdma(...fence(1));
    assert.equal(driver.guest32(PLACE.IB), 0);
    driver.setReg(0x12e0, 0);
    driver.forget();
    driver.enableSdma();
    driver.setReg(0x12e3, 0);
    driver.sdma(...fence(2));
    assert.equal(driver.guest32(PLACE.IB), 2);
  });

  it('lose vectors before the ring, and messages behind it', () => {
    control('lose-interrupts', { vectors: 2 });
    for (let count = 0; count < 3; count++) driver.sdma(6, count);
    assert.deepEqual(
      driver.vectors().map(({ data }) => data),
      [2],
    );
    const sent = driver.gpu.interrupts.length;
    control('lose-interrupts', { messages: '1' });
    driver.sdma(6, 3);
    assert.equal(driver.gpu.interrupts.length, sent);
    assert.equal(driver.vectors().length, 1, 'the vector is there');
    driver.sdma(6, 4);
    assert.equal(driver.gpu.interrupts.length, sent + 1);
  });

  it('report an uncorrectable error where the driver wants it', () => {
    const errors = () => [
      control('ecc-error', { engine: 'sdma0', vmid: 1 }),
      control('ecc-error', { engine: 'cp', vmid: 1 }),
    ];
    assert.deepEqual(errors(), [{ reported: false }, { reported: false }]);
    driver.setReg(0x1292, 4);
    driver.setReg(0x3085, 1 << 14);
    assert.deepEqual(errors(), [{ reported: true }, { reported: true }]);
    assert.deepEqual(
      driver.vectors().map(({ source }) => source),
      [228, 197],
    );
  });

  it('remove the function: nothing runs any more', () => {
    driver.writeSdma(...fence(1));
    driver.ringSdma();
    control('remove');
    driver.bus.run();
    assert.equal(driver.reg(0xde5), 0xffff_ffff, 'gone from the bus');
    assert.equal(driver.guest32(PLACE.IB), 0);
  });

  it('refuse what they do not know', () => {
    assert.throws(() => control('page-fault', { hub: 'dfhub', address: 0, vmid: 1 }), /hub/);
    assert.throws(() => control('lose-interrupts', { vectors: -1 }), /vectors/);
  });
});

describe('gpu commands', () => {
  afterEach(closeBuses);

  it('translate an address', () => {
    const driver = new TestDriver().bringUp();
    const found = driver.control('translate', { address: '0x8000001000', bytes: 8 });
    assert.deepEqual(found, [{ vmid: 0, extents: [{ target: 'vram', address: 0x1000, lengthBytes: 8 }] }]);
  });

  it('refuse what they do not know', () => {
    const driver = new TestDriver();
    assert.throws(() => driver.control('explode', {}), /unknown command "explode"; there are: translate, page-fault, /);
    assert.throws(() => driver.control('translate', { address: -1, bytes: 1 }), /address/);
  });
});
