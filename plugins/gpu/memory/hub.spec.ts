import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { closeBuses, GART_TABLE, PTE, pm4, TestDriver } from '../test/driver.js';

const [VMC, UTCL2, IH] = [0x12, 0x1b, 0];
/** First dwords of the two hubs. */
const [GFXHUB, MMHUB] = [0x2840, 0x1ab80];
const [FAULT_CNTL, FAULT_STATUS, FAULT_ADDR] = [7, 0xb, 0xc];
/** What gmc_v9_0_vm_fault_interrupt_state turns on. */
const FAULT_INTERRUPTS = 0x002a_aa00;
const VMID = 3;
const UNMAPPED = 0x12_3456_7000;

const copyTo = (address: number, from = 0x1000) => [
  1,
  255,
  0,
  from,
  0,
  address % 2 ** 32,
  Math.floor(address / 2 ** 32),
];

describe('gpu page faults', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver().bringUp();
    driver.mapUserPage(VMID);
    for (const hub of [GFXHUB, MMHUB]) {
      const control = hub + 0x40 + VMID;
      driver.setReg(control, driver.reg(control) | FAULT_INTERRUPTS);
    }
    driver.setReg(0x10a0 + VMID, 0x8001);
    driver.setReg(0x10b0 + VMID, 0x8002);
  });

  /** Runs SDMA commands in the user's buffer, at 0x1000 of its VMID. */
  const userSdma = (...dwords: number[]) => {
    driver.writeIb([...dwords, ...new Array<number>(8 - (dwords.length % 8)).fill(0)]);
    driver.sdma((4 | (VMID << 16)) >>> 0, 0x1000, 0, 8, 0, 0);
  };

  it('of SDMA are reported by the memory hub, with the page, the direction and the process', () => {
    userSdma(...copyTo(UNMAPPED));
    const [vector, ...more] = driver.vectors();
    assert.deepEqual(more, []);
    assert.ok(vector);
    assert.deepEqual([vector.client, vector.source, vector.vmid, vector.pasid], [VMC, 0, VMID, 0x8002]);
    assert.equal(vector.ring, 0x28, 'not valid, a write');
    assert.equal(vector.data, UNMAPPED / 4096);
    const status = driver.reg(MMHUB + FAULT_STATUS);
    // PERMISSION_FAULTS 5: no page, no write; client SDMA0; a write; the VMID.
    assert.equal(status, (5 << 4) | (256 << 9) | (1 << 18) | (VMID << 20));
    assert.equal(driver.reg(MMHUB + FAULT_ADDR), UNMAPPED / 4096);
    assert.equal(driver.reg(GFXHUB + FAULT_STATUS), 0);
  });

  it('keep the first fault until the driver clears it, and tell of more', () => {
    userSdma(...copyTo(UNMAPPED));
    userSdma(...copyTo(UNMAPPED + 0x5000));
    assert.equal(driver.reg(MMHUB + FAULT_STATUS) & 1, 1);
    assert.equal(driver.reg(MMHUB + FAULT_ADDR), UNMAPPED / 4096);
    assert.equal(driver.vectors().length, 2);
    driver.setReg(MMHUB + FAULT_CNTL, 0x3ffd);
    assert.equal(driver.reg(MMHUB + FAULT_STATUS), 0);
    assert.equal(driver.reg(MMHUB + FAULT_CNTL), 0x3ffc, 'the bit clears itself');
  });

  it('of compute are reported by the graphics hub', () => {
    driver.writeIb([pm4(0x37, 4), 5 << 8, UNMAPPED % 2 ** 32, Math.floor(UNMAPPED / 2 ** 32), 0xbad]);
    driver.kiq(pm4(0x3f, 3), 0x1000, 0, (5 | (VMID << 24)) >>> 0);
    const seen = driver.vectors().map(({ client, ring, pasid }) => ({ client, ring, pasid }));
    assert.deepEqual(seen, [{ client: UTCL2, ring: 0x28, pasid: 0x8001 }]);
    assert.equal((driver.reg(GFXHUB + FAULT_STATUS) >>> 9) & 0x1ff, 5, 'the compute processor');
  });

  it('come page by page, and silently where the driver wants none', () => {
    userSdma(...copyTo(UNMAPPED + 4096 - 16));
    assert.deepEqual(
      driver.vectors().map(({ data }) => data),
      [UNMAPPED / 4096, UNMAPPED / 4096 + 1],
    );
    driver.setReg(MMHUB + 0x40 + VMID, driver.reg(MMHUB + 0x40 + VMID) & ~FAULT_INTERRUPTS);
    userSdma(...copyTo(UNMAPPED));
    assert.deepEqual(driver.vectors(), []);
    assert.equal(driver.logged('warn').filter((line) => /not reported/.test(line)).length, 1);
  });

  it('tell a page that may not be written from one that is not there', () => {
    driver.setReg(MMHUB + 0x40, driver.reg(MMHUB + 0x40) | FAULT_INTERRUPTS);
    driver.vram64(GART_TABLE + 8 * 0x700, 0x70_0000n | 1n | PTE.READABLE | PTE.SYSTEM);
    driver.setGuest32(0x70_0000, 7);
    driver.sdma(5, 0x70_0000, 0, 8);
    assert.equal(driver.guest32(0x70_0000), 7, 'not written');
    assert.deepEqual(
      driver.vectors().map(({ ring }) => ring),
      [0x20],
    );
    assert.equal((driver.reg(MMHUB + FAULT_STATUS) >>> 4) & 0xf, 4);
  });

  it('go to the ring that the PSP was told, and ring 0 says so', () => {
    // Ring 1: one page of vectors, which drains when full.
    driver.setReg(0x112d, 0x68_0000 >>> 8);
    driver.setReg(0x112c, 1 | (10 << 1) | (1 << 9) | (1 << 16));
    driver.setReg(0x16085, 3);
    driver.setReg(0x16086, 0x1244b | (1 << 18) | (1 << 20));
    driver.setReg(0x16080, 0x8_0000);
    userSdma(...copyTo(UNMAPPED));
    assert.deepEqual(
      driver.vectors().map(({ client, ring }) => [client, ring]),
      [[IH, 1]],
    );
    assert.equal(driver.reg(0x1130), 32);
    assert.equal(driver.guest32(0x68_0000) & 0xff, VMC);
    for (let count = 0; count < 200; count++) userSdma(...copyTo(UNMAPPED));
    assert.equal(driver.reg(0x1130), 127 * 32, 'full, the rest is gone');
  });
});
