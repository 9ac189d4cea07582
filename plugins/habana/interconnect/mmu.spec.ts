import assert from 'node:assert/strict';
import { HBM_BAR } from '../device.js';
import { packet } from '../queues/packets.js';
import { Driver, host, MSI_ADDRESS, pattern } from '../test/driver.js';
import { CFG, VIRTUAL_BASE } from './address-map.js';

const ROOT = 0x10001000;
const TABLES = 0x10001000;
const VIRTUAL = VIRTUAL_BASE + 0x200000;
const HBM = 0x1f000000;

describe('habana: MMU', () => {
  let driver: Driver;
  beforeEach(() => {
    driver = new Driver();
    driver.enable('DMA0');
    driver.enable('DMA1');
    driver.useAsid('DMA0', 1);
    driver.useAsid('DMA1', 1);
    driver.enableMmu(1, ROOT);
    driver.openCpuQueues();
    driver.wantEvents();
  });
  const map = (virtual: number, physical: number, shift: 12 | 21 = 12) => driver.map(TABLES, virtual, physical, shift);
  const errorOf = (core: number) => driver.read(CFG.dmaCores[core]! + 0x164);

  it('translates small and large pages, scattered and across borders', () => {
    const data = pattern(20_000);
    driver.bus.guestMemory.write(0x3000000, data);
    for (let page = 0; page < 6; page++) map(VIRTUAL + 4096 * page, host(0x2000000 + 0x3000 * (5 - page)));
    map(VIRTUAL_BASE + 0x40000000, host(0x2200000), 21);
    driver.run('DMA0', 0, packet.linDma(host(0x3000000), VIRTUAL + 100, data.length));
    driver.run('DMA1', 0, packet.linDma(VIRTUAL + 100, VIRTUAL_BASE + 0x40000000 + 5, data.length));
    assert.deepEqual(driver.guestBytes(0x2200005, data.length), data);
    assert.deepEqual(driver.guestBytes(0x2000000 + 0x3000 * 5 + 100, 3996), data.subarray(0, 3996));
  });

  it('translates to HBM, and command buffers too', () => {
    map(VIRTUAL, HBM);
    const buffer = driver.buffer(packet.msgLong(VIRTUAL + 8, 77));
    map(VIRTUAL + 4096, host(buffer.address));
    driver.queueBuffer('DMA0', 0, VIRTUAL + 4096, buffer.lengthBytes);
    driver.ring('DMA0', 0);
    driver.bus.run();
    assert.equal(driver.fn.read(HBM_BAR, HBM + 8), 77);
  });

  it('keeps a translation until it is invalidated', () => {
    map(VIRTUAL, host(0x2000000));
    driver.run('DMA0', 0, packet.msgLong(VIRTUAL, 1));
    map(VIRTUAL, host(0x2100000));
    driver.run('DMA0', 0, packet.msgLong(VIRTUAL, 2));
    assert.equal(driver.bus.guestMemory.readU32(0x2000000), 2);
    driver.write(CFG.stlb + 0x3c, 3);
    driver.write(CFG.stlb + 0x10, 1);
    driver.write(CFG.stlb + 0x3c, 2);
    assert.equal(driver.read(CFG.stlb + 0x3c), 0, 'the driver polls for zero');
    driver.run('DMA0', 0, packet.msgLong(VIRTUAL, 3));
    assert.equal(driver.bus.guestMemory.readU32(0x2100000), 3);
  });

  it('reports an unmapped address as a page fault, moves what came before it, and says so to the driver', () => {
    map(VIRTUAL, host(0x2000000));
    driver.bus.guestMemory.write(0x3000000, pattern(8192));
    driver.run('DMA0', 0, packet.linDma(host(0x3000000), VIRTUAL, 8192));
    assert.equal(errorOf(0), 2);
    assert.deepEqual(driver.guestBytes(0x2000000, 4096), pattern(8192).subarray(0, 4096));
    const va = VIRTUAL + 4096;
    assert.equal(driver.read(CFG.mmuUp + 0x34), 0x40000 | Math.floor(va / 2 ** 32));
    assert.equal(driver.read(CFG.mmuUp + 0x38), va % 2 ** 32);
    assert.deepEqual(
      driver.takeEvents().map(({ type }) => type),
      [380],
    );
  });

  it('keeps the first fault until the driver has read it', () => {
    driver.run('DMA0', 0, packet.linDma(VIRTUAL, HBM, 4), packet.linDma(VIRTUAL + 0x5000, HBM, 4));
    assert.equal(driver.read(CFG.mmuUp + 0x38), VIRTUAL % 2 ** 32);
    driver.write(CFG.mmuUp + 0x34, 0);
    driver.run('DMA0', 0, packet.linDma(VIRTUAL + 0x7000, HBM, 4));
    assert.equal(driver.read(CFG.mmuUp + 0x38), (VIRTUAL + 0x7000) % 2 ** 32);
  });

  it('says nothing more until the driver unmasks the event, then catches up once', () => {
    driver.run('DMA0', 0, packet.linDma(VIRTUAL, HBM, 4));
    driver.run('DMA0', 0, packet.linDma(VIRTUAL, HBM, 4), packet.linDma(VIRTUAL, HBM, 4));
    assert.equal(driver.takeEvents().length, 1);
    driver.cpucp(16, { value: 380n });
    assert.equal(driver.takeEvents().length, 1);
    driver.cpucp(16, { value: 380n });
    assert.equal(driver.takeEvents().length, 0);
  });

  it('keeps address spaces apart', () => {
    map(VIRTUAL, host(0x2000000));
    driver.run('DMA0', 0, packet.msgLong(VIRTUAL, 5));
    driver.useAsid('DMA0', 2);
    driver.run('DMA0', 0, packet.linDma(VIRTUAL, HBM, 4));
    assert.equal(errorOf(0), 1);
  });

  it('translates nothing for a secure or bypassing channel', () => {
    map(VIRTUAL, host(0x2000000));
    driver.write(CFG.dmaCores[0]! + 0xf0, 0x400);
    driver.write(CFG.dmaCores[0]! + 0xb8, 3);
    driver.run('DMA0', 0, packet.linDma(VIRTUAL, HBM, 4));
    assert.equal(errorOf(0), 1);
    assert.equal(driver.read(CFG.mmuUp + 0x34), 0, 'and it is no page fault');
    assert.equal(driver.read(CFG.mmuUp + 0x64), 1, 'but an access that no range allows');
  });

  it('survives page tables that lead anywhere', () => {
    for (const entry of [0xffffffffffffffffn, 0x3fffffffff001n, BigInt(ROOT) | 1n, 0x1ffff001n, 1n]) {
      driver.fn.write64(HBM_BAR, ROOT + 8, entry);
      driver.write(CFG.stlb + 0x3c, 1);
      driver.run('DMA0', 0, packet.linDma(VIRTUAL, HBM, 64), packet.msgLong(MSI_ADDRESS, 1));
    }
    assert.equal(driver.fn.interrupts.length >= 5, true);
  });

  it('takes the root of an address space over when told, and is done at once', () => {
    driver.write(CFG.stlb + 0x04, 7);
    driver.write(CFG.stlb + 0x08, 0x12345);
    driver.write(CFG.stlb, 0x80000000);
    assert.equal(driver.read(CFG.stlb), 0);
  });
});
