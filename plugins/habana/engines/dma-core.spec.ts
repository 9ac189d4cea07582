import assert from 'node:assert/strict';
import { HBM_BAR, SRAM_BAR } from '../device.js';
import { CFG, CFG_BASE, SRAM_BASE } from '../interconnect/address-map.js';
import { DMA_CONTROL, packet } from '../queues/packets.js';
import { Driver, host, MSI_ADDRESS, pattern, register } from '../test/driver.js';
import { tensorPosition } from './dma-core.js';

const MIB = 2 ** 20;
const HBM = 0x1f000000;

describe('habana: DMA core', () => {
  let driver: Driver;
  beforeEach(() => {
    driver = new Driver();
    for (const name of ['DMA0', 'DMA1', 'DMA2']) driver.enable(name);
  });

  function memoryBytes(memory: 'hbm' | 'sram', offset: number, lengthBytes: number): Uint8Array {
    const bar = memory === 'hbm' ? HBM_BAR : SRAM_BAR;
    const bytes = new Uint8Array(lengthBytes);
    driver.fn.readBytes(bar, offset, bytes);
    return bytes;
  }

  const ends = {
    host: (offset: number) => host(0x2000000 + offset),
    hbm: (offset: number) => HBM + offset,
    sram: (offset: number) => SRAM_BASE + 0x400000 + offset,
  } as const;
  for (const from of ['host', 'hbm', 'sram'] as const) {
    for (const to of ['host', 'hbm', 'sram'] as const) {
      it(`copies from ${from} to ${to}`, () => {
        const data = pattern(5000);
        const source = from === to ? 0x100000 : 0;
        driver.bus.guestMemory.write(0x3000000, data);
        driver.run('DMA0', 0, packet.linDma(host(0x3000000), ends[from](source + 1), data.length));
        driver.run('DMA1', 0, packet.nop(), packet.linDma(ends[from](source + 1), ends[to](3), data.length));
        driver.enable('DMA0', 1);
        driver.run('DMA0', 1, packet.linDma(ends[to](3), host(0x3100000), data.length));
        assert.deepEqual(driver.guestBytes(0x3100000, data.length), data);
        if (to !== 'host')
          assert.deepEqual(memoryBytes(to, to === 'hbm' ? HBM + 3 : 0x400003, 64), data.subarray(0, 64));
      });
    }
  }

  it('moves a long copy in slices and answers registers in between', () => {
    const length = 24 * MIB;
    driver.submit('DMA0', 0, packet.linDma(host(0x1000000), HBM - 32 * MIB, length));
    assert.ok(driver.bus.runOne());
    assert.equal(driver.read(CFG.dmaCores[0]! + 0x190) >>> 31, 1, 'the core is busy');
    assert.notEqual(driver.read(0x508038) & 0x3fff, 0x3fff, 'and its queue manager is not idle');
    assert.equal(driver.read(0x508c74) & 0x100, 0);
    const { bytes } = driver.model.cores[0]!.counters;
    assert.ok(Number.isInteger(bytes) && bytes > 0, `it moved ${bytes} bytes so far`);
    assert.ok(driver.bus.run() >= 4, 'several slices');
    assert.equal(driver.read(CFG.dmaCores[0]! + 0x190) >>> 31, 0);
    assert.equal(driver.read(0x508038) & 0x3fff, 0x3fff);
    assert.equal(driver.read(0x508c74) & 0x100, 0x100);
  });

  it('fills with a pattern of eight bytes, and with zero', () => {
    driver.run('DMA2', 0, packet.memset(0x33221100, 0x77665544, HBM + 4, 20));
    assert.deepEqual(
      [...memoryBytes('hbm', HBM + 4, 21)],
      [0, 17, 34, 51, 68, 85, 102, 119, 0, 17, 34, 51, 68, 85, 102, 119, 0, 17, 34, 51, 0],
    );
    driver.run('DMA2', 0, packet.memset(0, 0, HBM, 200 * 1024));
    assert.deepEqual([...memoryBytes('hbm', HBM, 32)], new Array(32).fill(0));
    driver.run('DMA2', 0, packet.memset(0x11111111, 0x11111111, host(0x3000000), 100));
    assert.deepEqual([...driver.guestBytes(0x3000000, 101)], [...new Array(100).fill(0x11), 0]);
  });

  it('clears the whole page-table area in few slices', () => {
    driver.fn.write(HBM_BAR, 0x10000000, 1);
    driver.fn.write(HBM_BAR, 0x1bfffffc, 1);
    driver.submit('DMA0', 0, packet.memset(0, 0, 0x10000000, 0xc000000));
    assert.ok(driver.bus.run() < 8);
    assert.equal(driver.fn.read(HBM_BAR, 0x10000000), 0);
    assert.equal(driver.fn.read(HBM_BAR, 0x1bfffffc), 0);
  });

  it('writes its completion after the data', () => {
    driver.write(CFG.dmaCores[0]! + 0x7c, 0x80000001);
    driver.write(CFG.dmaCores[0]! + 0x80, register(0x4f2000) % 2 ** 32);
    driver.write(CFG.dmaCores[0]! + 0x84, Math.floor(register(0x4f2000) / 2 ** 32));
    const flags = DMA_CONTROL.linear | DMA_CONTROL.writeCompletion;
    driver.run('DMA0', 0, packet.linDma(host(0x3000000), HBM, 64, flags), packet.linDma(HBM, host(0x3000000), 64));
    assert.equal(driver.read(0x4f2000), 1, 'sync object 0 was incremented');
  });

  it('starts a transfer from its registers, as debugfs does', () => {
    const data = pattern(4096);
    driver.bus.guestMemory.write(0x3000000, data);
    const core = CFG.dmaCores[3]!;
    driver.write(core + 0x14, host(0x3000000) % 2 ** 32);
    driver.write(core + 0x18, Math.floor(host(0x3000000) / 2 ** 32));
    driver.write(core + 0x1c, HBM);
    driver.write(core + 0x20, 0);
    driver.write(core + 0x74, data.length);
    driver.write(core + 0x78, DMA_CONTROL.linear);
    assert.equal(driver.read(core + 0x190) >>> 31, 1);
    driver.bus.run();
    assert.equal(driver.read(core + 0x190) >>> 31, 0);
    assert.deepEqual(memoryBytes('hbm', HBM, 256), data.subarray(0, 256));
  });

  it('copies between strided tensors', () => {
    const core = CFG.dmaCores[2]!;
    const data = pattern(64 * 4);
    driver.bus.guestMemory.write(0x3000000, data);
    driver.run('DMA0', 0, packet.linDma(host(0x3000000), HBM, data.length));
    // Source: 2 planes of 4 rows of 8 bytes, rows 16 apart, planes 128 apart. Destination: one row of 64 bytes.
    driver.write(core + 0x4c, 8);
    for (const [offset, value] of [
      [0x2c, 4],
      [0x30, 16],
      [0x34, 2],
      [0x38, 128],
    ] as const)
      driver.write(core + offset, value);
    driver.run('DMA2', 0, packet.linDma(HBM, HBM + 0x1000, 64, 0));
    const expected = [0, 128].flatMap((plane) =>
      [0, 16, 32, 48].flatMap((row) => [...data.subarray(plane + row, plane + row + 8)]),
    );
    assert.deepEqual([...memoryBytes('hbm', HBM + 0x1000, 64)], expected);
  });

  it('finds every byte of a tensor', () => {
    const walk = { rowBytes: 2, counts: [3, 2, 1, 1], strides: [10, 100, 0, 0] };
    const offsets = Array.from({ length: 12 }, (_, position) => tensorPosition(walk, position).offset);
    assert.deepEqual(offsets, [0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121]);
  });

  it('reports a tensor with empty rows instead of copying forever', () => {
    driver.write(CFG.dmaCores[2]! + 0x4c, 8);
    driver.run('DMA2', 0, packet.linDma(HBM, HBM + 0x1000, 0, 0));
    assert.equal(driver.read(CFG.dmaCores[2]! + 0x164), 2);
  });

  for (const [what, source, destination, cause] of [
    ['a source that nobody has', 0x7f00000000, HBM, 1],
    ['a destination beyond HBM', HBM, 0x20000000, 2],
    ['a host address that nobody claims', host(GUEST_GAP()), HBM, 1],
    ['an address beyond 50 bits', 2 ** 52, HBM, 1],
    ['an address beyond exact numbers', 2 ** 62, HBM, 1],
    ['a register at an odd address', CFG_BASE + 2, HBM, 1],
  ] as const) {
    it(`reports ${what}`, () => {
      driver.run('DMA1', 0, packet.linDma(source, destination, 4096), packet.msgLong(MSI_ADDRESS, 1));
      assert.equal(driver.read(CFG.dmaCores[1]! + 0x164), cause);
      assert.deepEqual(driver.fn.interrupts, [0], 'without STOP_ON_ERR the stream goes on');
      driver.write(CFG.dmaCores[1]! + 0x164, cause);
      assert.equal(driver.read(CFG.dmaCores[1]! + 0x164), 0);
    });
  }

  it('never completes a failed transfer when it is to stop on errors', () => {
    driver.write(CFG.dmaCores[1]! + 0x160, 2);
    driver.run('DMA1', 0, packet.linDma(0x7f00000000, HBM, 4096), packet.msgLong(MSI_ADDRESS, 1));
    assert.deepEqual(driver.fn.interrupts, []);
    assert.equal(driver.read(CFG.dmaCores[1]! + 0x190) >>> 31, 1);
    driver.write(CFG.psoc + 0x498, 1);
    assert.equal(driver.read(CFG.dmaCores[1]! + 0x190) >>> 31, 0, 'a reset frees it');
  });

  it('stands still while it is halted', () => {
    driver.write(CFG.dmaCores[1]! + 4, 1);
    driver.run('DMA1', 0, packet.linDma(host(0x3000000), HBM, 64), packet.msgLong(MSI_ADDRESS, 1));
    assert.deepEqual(driver.fn.interrupts, []);
    driver.write(CFG.dmaCores[1]! + 4, 0);
    driver.bus.run();
    assert.deepEqual(driver.fn.interrupts, [0]);
  });

  it('drops what it was doing when the device is reset between two slices', () => {
    driver.submit('DMA0', 0, packet.linDma(host(0x1000000), HBM - 32 * MIB, 24 * MIB), packet.msgLong(MSI_ADDRESS, 1));
    driver.bus.runOne();
    driver.write(CFG.psoc + 0x498, 1);
    driver.bus.run();
    assert.deepEqual(driver.fn.interrupts, []);
    assert.equal(driver.read(0x508038) & 0x3fff, 0x3fff);
  });
});

/** Beyond the test bus's guest memory, below its BARs. */
function GUEST_GAP(): number {
  return 0x8_0000_0000;
}
