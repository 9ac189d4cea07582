import assert from 'node:assert/strict';
import { SLICE_BYTES } from 'ghostbus';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { closeBuses, FB, high, low, PLACE, PTE, SDMA_DOORBELL, TestDriver } from '../test/driver.js';

const SDMA_CLIENT = 8;
const TRAP = 224;

describe('gpu SDMA', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver().bringUp();
  });

  const copy = (destination: number, source: number, bytes: number) => [
    1,
    bytes - 1,
    0,
    low(source),
    high(source),
    low(destination),
    high(destination),
  ];
  const fill = (destination: number, value: number, bytes: number, sizeCode = 2) => [
    (11 | (sizeCode << 30)) >>> 0,
    low(destination),
    high(destination),
    value,
    bytes - 1,
  ];
  const fence = (address: number, value: number) => [5, low(address), high(address), value];
  const trap = (context = 0) => [6, context];

  it('passes the ring test: WRITE puts 0xdeadbeef into the write-back page', () => {
    driver.sdma(2, 0x5000, 0, 0, 0xdeadbeef);
    assert.equal(driver.guest32(0x5000), 0xdeadbeef);
    assert.equal(driver.guest32(PLACE.SDMA_RPTR), driver.sdmaWptr, 'read pointer written back');
  });

  it('does nothing while halted, and starts when the halt is lifted', () => {
    driver.setReg(0x128a, 1);
    driver.sdma(...fence(0x5000, 7));
    assert.equal(driver.guest32(0x5000), 0);
    driver.setReg(0x128a, 0);
    driver.bus.run();
    assert.equal(driver.guest32(0x5000), 7);
  });

  it('does nothing inside the doorbell write itself', () => {
    driver.writeSdma(...fence(0x5000, 7));
    driver.ringSdma();
    assert.equal(driver.guest32(0x5000), 0);
    driver.bus.run();
    assert.equal(driver.guest32(0x5000), 7);
  });

  it('starts on a doorbell of two 32-bit halves, and on the write pointer register', () => {
    driver.writeSdma(...fence(0x5000, 1));
    driver.gpu.write(2, SDMA_DOORBELL * 4, driver.sdmaWptr);
    driver.gpu.write(2, SDMA_DOORBELL * 4 + 4, 0);
    driver.bus.run();
    driver.writeSdma(...fence(0x5000, 2));
    driver.setReg(0x12e5, driver.sdmaWptr);
    driver.bus.run();
    assert.equal(driver.guest32(0x5000), 2);
  });

  it("starts on a peer's DMA into the doorbell page", () => {
    const peer = new TestDriver(driver.bus, 'gpu1');
    peer.enableGart();
    peer.enableSdma();
    driver.writeSdma(...fence(0x5000, 9));
    // The peer's GART: one page that is the first GPU's doorbell page.
    peer.vram64(0x100_0000 + 8, BigInt(driver.gpu.barAddress(2)) | PTE.VALID | PTE.SYSTEM);
    driver.bus.guestMemory.writeU64(0x7000, BigInt(driver.sdmaWptr));
    // The peer's ring lies where the first one's does; give it another place.
    peer.setReg(0x12e0, 0);
    peer.setReg(0x12e1, 0x50_0000 >>> 8);
    peer.setReg(0x12e0, 1 | (10 << 1));
    driver.setGuest32(0x50_0000, ...copy(0x1000 + SDMA_DOORBELL * 4, 0x7000, 8));
    peer.gpu.write64(2, SDMA_DOORBELL * 4, 28n);
    driver.bus.run();
    assert.equal(driver.guest32(0x5000), 9);
  });

  it('copies VRAM to guest memory and back', () => {
    driver.vram64(0x20_0000, 0x1122_3344_5566_7788n);
    driver.sdma(...copy(0x5000, FB + 0x20_0000, 8), ...copy(FB + 0x30_0004, 0x5000, 8));
    assert.equal(driver.bus.guestMemory.readU64(0x5000), 0x1122_3344_5566_7788n);
    assert.equal(driver.gpu.read(0, 0x30_0004) >>> 0, 0x5566_7788);
  });

  it("copies from a peer's VRAM through SYSTEM pages", () => {
    const peer = new TestDriver(driver.bus, 'gpu1');
    peer.vram64(0x12_3450, 0xcafe_f00d_dead_beefn);
    driver.vram64(0x100_0000 + 8 * 5, BigInt(peer.gpu.barAddress(0) + 0x12_3000) | PTE.VALID | PTE.SYSTEM);
    driver.sdma(...copy(FB + 0x40_0000, 0x5450, 8));
    assert.equal(driver.gpu.read(0, 0x40_0000) >>> 0, 0xdead_beef);
    driver.sdma(...copy(0x5458, FB + 0x40_0000, 8));
    assert.equal(peer.gpu.read(0, 0x12_345c) >>> 0, 0xcafe_f00d);
  });

  it('fills dwords, words and bytes', () => {
    driver.sdma(
      ...fill(FB + 0x1000, 0x4433_2211, 8),
      ...fill(FB + 0x1010, 0x4433_2211, 4, 1),
      ...fill(FB + 0x1020, 0x4433_2211, 4, 0),
    );
    const at = (offset: number) => driver.gpu.read(0, offset) >>> 0;
    assert.deepEqual([at(0x1004), at(0x1010), at(0x1020)], [0x4433_2211, 0x2211_2211, 0x1111_1111]);
  });

  it('works through a long copy in slices, fence last', () => {
    const bytes = 3 * SLICE_BYTES;
    driver.gpu.write(0, 0x200_0000 + bytes - 4 - 0x40_0000, 0x600d_f00d);
    driver.writeSdma(...copy(FB + 0x40_0000, FB + 0x1c0_0000, bytes), ...fence(0x5000, 1));
    driver.ringSdma();
    let slices = 0;
    while (driver.guest32(0x5000) === 0 && driver.bus.runOne()) slices++;
    assert.ok(slices >= 3, `${slices} slices`);
    assert.equal(driver.gpu.read(0, 0x40_0000 + bytes - 4) >>> 0, 0x600d_f00d);
  });

  it('runs an indirect buffer in its VMID, then goes on in the ring', () => {
    driver.mapUserPage(3);
    driver.writeIb([...fence(0x1f00, 0x77), ...fence(0x1f04, 0x78)]);
    driver.sdma(4 | (3 << 16), 0x1000, 0, 8, 0, 0, ...fence(0x5000, 1));
    assert.deepEqual(
      [driver.guest32(PLACE.IB + 0xf00), driver.guest32(PLACE.IB + 0xf04), driver.guest32(0x5000)],
      [0x77, 0x78, 1],
    );
  });

  it('raises the trap after the fence: memory, vector, write pointer, MSI', () => {
    driver.setReg(0x10b0, 0x8001);
    driver.sdma(...fence(0x5000, 5), ...trap(0x1234));
    assert.deepEqual(driver.vectors(), [
      { client: SDMA_CLIENT, source: TRAP, ring: 0, vmid: 0, pasid: 0x8001, data: 0x1234 },
    ]);
    assert.deepEqual(driver.gpu.interrupts, [0]);
  });

  it('raises no trap that the driver has not enabled', () => {
    driver.setReg(0x127c, 0);
    driver.sdma(...trap());
    assert.deepEqual([driver.vectors(), driver.gpu.interrupts], [[], []]);
  });

  it('waits for memory without spinning, and goes on when it is written', () => {
    const poll = [(8 | (3 << 28) | (1 << 31)) >>> 0, 0x6000, 0, 42, 0xffff_ffff, 0xfff << 16];
    driver.sdma(...poll, ...fence(0x5000, 1));
    assert.equal(driver.guest32(0x5000), 0);
    driver.setGuest32(0x6000, 42);
    driver.bus.clock.advance(5);
    driver.bus.run();
    assert.equal(driver.guest32(0x5000), 1);
  });

  it('flushes the HDP by POLL_REGMEM and a VM by SRBM_WRITE and POLL_REGMEM', () => {
    const flush = [(8 | (1 << 26) | (3 << 28)) >>> 0, 0xe27 << 2, 0xe26 << 2, 4, 4, 0];
    const request = [(14 | (0xf << 28)) >>> 0, 0x1abe3 + 6, 0x007c_0008];
    const acknowledged = [(8 | (3 << 28)) >>> 0, (0x1abf5 + 6) << 2, 0, 8, 8, 0];
    driver.sdma(...flush, ...request, ...acknowledged, ...fence(0x5000, 1));
    assert.equal(driver.guest32(0x5000), 1);
    assert.equal(driver.reg(0xe26), 4);
    assert.equal(driver.reg(0x1abf5 + 6), 8);
  });

  it('merges the bytes that SRBM_WRITE enables', () => {
    driver.setReg(0x94, 0x1111_1111);
    driver.sdma((14 | (0b0010 << 28)) >>> 0, 0x94, 0x2222_2222);
    assert.equal(driver.reg(0x94), 0x1111_2211);
  });

  it('generates page table entries', () => {
    driver.sdma(12, 0x5000, 0, 0x73, 0x8000_0000, 0x10_0000, 0, 0x1000, 0, 2);
    const entry = (index: number) => driver.bus.guestMemory.readU64(0x5000 + 8 * index);
    assert.deepEqual(
      [entry(0), entry(1), entry(2), entry(3)],
      [0x8000_0000_0010_0073n, 0x8000_0000_0010_1073n, 0x8000_0000_0010_2073n, 0n],
    );
  });

  it('skips by COND_EXE unless the flag equals the reference', () => {
    driver.setGuest32(0x6000, 0);
    driver.sdma(9, 0x6000, 0, 1, 4, ...fence(0x5000, 1), ...fence(0x5004, 2));
    assert.deepEqual([driver.guest32(0x5000), driver.guest32(0x5004)], [0, 2]);
    driver.setGuest32(0x6000, 1);
    driver.sdma(9, 0x6000, 0, 1, 4, ...fence(0x5000, 1));
    assert.equal(driver.guest32(0x5000), 1);
  });

  it('adds atomically and writes time stamps', () => {
    driver.bus.clock.advance(1);
    driver.bus.guestMemory.writeU64(0x6000, 0xffff_ffffn);
    driver.sdma((10 | (47 << 25)) >>> 0, 0x6000, 0, 1, 0, 0, 0, 0, 13 | (2 << 8), 0x6008, 0);
    assert.equal(driver.bus.guestMemory.readU64(0x6000), 0x1_0000_0000n);
    assert.equal(driver.bus.guestMemory.readU64(0x6008), 100_000n, '1 ms at 100 MHz');
  });

  it('copies to two destinations by broadcast', () => {
    driver.setGuest32(0x5000, 1, 2);
    const [header, ...rest] = copy(0x6000, 0x5000, 8);
    driver.sdma(header! | (1 << 27), ...rest, 0x7000, 0, ...fence(0x5100, 1));
    assert.deepEqual([driver.guest32(0x6004), driver.guest32(0x7000), driver.guest32(0x7004)], [2, 1, 2]);
    assert.equal(driver.guest32(0x5100), 1, 'the packet is nine dwords long');
  });

  it('copies a box between images of different pitches, and nothing around it', () => {
    // Elements of 4 bytes. Source: 8 x 4 x 2, window at (1, 1, 0); destination: 5 x 3 x 2, window at (2, 0, 0); box 3 x
    // 2 x 2.
    const source = 0x5000;
    const target = FB + 0x1000;
    for (let index = 0; index < 64; index++) driver.setGuest32(source + 4 * index, 100 + index);
    const place = (x: number, y: number, z: number, pitch: number, slice: number) => [
      x | (y << 16),
      (z | ((pitch - 1) << 13)) >>> 0,
      slice - 1,
    ];
    driver.sdma(
      (1 | (4 << 8) | (2 << 29)) >>> 0,
      ...[low(source), high(source), ...place(1, 1, 0, 8, 32)],
      ...[low(target), high(target), ...place(2, 0, 0, 5, 15)],
      ...[2 | (1 << 16), 1],
    );
    const expected = new Array<number>(30).fill(0);
    for (let z = 0; z < 2; z++) {
      for (let y = 0; y < 2; y++) {
        for (let x = 0; x < 3; x++) expected[x + 2 + y * 5 + z * 15] = 100 + (x + 1) + (y + 1) * 8 + z * 32;
      }
    }
    const found = expected.map((_, index) => driver.gpu.read(0, 0x1000 + 4 * index));
    assert.deepEqual(found, expected);
  });

  it('works through a tall box in slices', () => {
    const rows = 16384;
    const window = [0, (255 << 13) >>> 0, 0];
    driver.writeSdma(
      1 | (4 << 8),
      ...[low(FB + 0x200_0000), high(FB), ...window, low(FB + 0x180_0000), high(FB), ...window],
      ...[3 | ((rows - 1) << 16), 0],
      ...fence(0x5000, 1),
    );
    driver.gpu.write(0, 0x200_0000 + 256 * (rows - 1), 0x0badf00d);
    driver.ringSdma();
    let slices = 0;
    while (driver.guest32(0x5000) === 0 && driver.bus.runOne()) slices++;
    assert.ok(slices > 4, `${slices} slices`);
    assert.equal(driver.gpu.read(0, 0x180_0000 + 256 * (rows - 1)) >>> 0, 0x0badf00d);
  });

  it('sets and gets the local time, and leaves the global one alone', () => {
    driver.bus.clock.advance(1);
    driver.sdma(13, 0x10, 1);
    driver.bus.clock.advance(1);
    driver.sdma(13 | (1 << 8), 0x6000, 0, 13 | (2 << 8), 0x6008, 0);
    const { guestMemory } = driver.bus;
    assert.deepEqual([guestMemory.readU64(0x6000), guestMemory.readU64(0x6008)], [0x1_0000_0010n + 100_000n, 200_000n]);
  });

  it('writes a register to memory by POLL_REG_WRITE_MEM', () => {
    driver.setReg(0x94, 0x1234);
    driver.sdma(8 | (1 << 8), 0x94 << 2, 0x6000, 0);
    assert.equal(driver.guest32(0x6000), 0x1234);
  });

  it('skips by PRE_EXE what is for other engines', () => {
    driver.sdma(15 | (2 << 16), 4, ...fence(0x5000, 1), 15 | (1 << 16), 4, ...fence(0x5004, 2));
    assert.deepEqual([driver.guest32(0x5000), driver.guest32(0x5004)], [0, 2]);
  });

  it('stops at a packet that is not implemented and says which, without an interrupt', () => {
    driver.sdma(1 | (5 << 8), ...new Array<number>(13).fill(0), ...fence(0x5000, 1));
    assert.equal(driver.guest32(0x5000), 0);
    assert.deepEqual(driver.vectors(), []);
    assert.match(driver.logged('warn').join(), /COPY tiled sub-window.*not implemented/);
  });

  it('stops at a packet that does not exist', () => {
    driver.sdma(0x11, ...fence(0x5000, 1));
    assert.equal(driver.guest32(0x5000), 0);
    assert.match(driver.logged('warn').join(), /0x00000011 \(unknown\)/);
  });

  it('wraps at the end of the ring', () => {
    for (let count = 0; count < 300; count++) driver.sdma(...fence(0x5000, count), 0, 0, 0);
    assert.equal(driver.guest32(0x5000), 299);
  });

  it('skips the payload of a NOP', () => {
    driver.sdma((3 << 16) >>> 0, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff, ...fence(0x5000, 1));
    assert.equal(driver.guest32(0x5000), 1);
  });
});
