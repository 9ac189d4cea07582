import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { closeBuses, FB, high, KCQ_DOORBELL, low, PLACE, pm4, TestDriver } from '../test/driver.js';

const SCRATCH = 0xc040;
const NOP_DWORD = 0xffff1000;

describe('gpu command processor', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver().bringUp();
  });

  const ringTest = (value: number) => [pm4(0x79, 2), SCRATCH - 0xc000, value];

  it('runs the KIQ that registers set up: ring test through SET_UCONFIG_REG', () => {
    driver.setReg(SCRATCH, 0xcafedead);
    driver.kiq(...ringTest(0xdeadbeef), NOP_DWORD, pm4(0x10, 2), 0, 0);
    assert.equal(driver.reg(SCRATCH), 0xdeadbeef);
    assert.equal(driver.guest32(PLACE.CP_RPTR), 7, 'read pointer reported in dwords');
  });

  it('maps a compute queue from its MQD, runs it, and unmaps it', () => {
    driver.mapComputeQueue();
    driver.kcq(...ringTest(1));
    assert.equal(driver.reg(SCRATCH), 1);
    driver.setReg(0x2022, 1 << 2);
    assert.equal(driver.reg(0x3247), 1, 'CP_HQD_ACTIVE of the mapped queue');
    driver.kiq(pm4(0xa3, 5), 1 << 29, KCQ_DOORBELL << 2, 0, 0, 0);
    assert.equal(driver.reg(0x3247), 0);
    driver.kcq(...ringTest(2));
    assert.equal(driver.reg(SCRATCH), 1, 'a doorbell of an unmapped queue does nothing');
  });

  it('keeps the registers of each queue apart', () => {
    driver.setReg(0x2022, 1 << 2);
    driver.setReg(0x324d, 0x111);
    driver.setReg(0x2022, (1 << 2) | 1 | (3 << 8));
    driver.setReg(0x324d, 0x222);
    driver.setReg(0x2022, 1 << 2);
    assert.equal(driver.reg(0x324d), 0x111);
    driver.setReg(0x2022, 0);
    assert.equal(driver.reg(0x324d), 0, 'nothing selected');
  });

  it('drops a queue on a dequeue request', () => {
    driver.setReg(0x2022, 1 | (2 << 2));
    driver.setReg(0x325d, 1);
    assert.equal(driver.reg(0x3247), 0);
    driver.setReg(SCRATCH, 5);
    driver.kiq(...ringTest(6));
    assert.equal(driver.reg(SCRATCH), 5);
  });

  it('holds a halted micro engine', () => {
    driver.setReg(0x208d, 1 << 28);
    driver.kiq(...ringTest(7));
    assert.equal(driver.reg(SCRATCH), 0);
    driver.setReg(0x208d, 0);
    driver.bus.run();
    assert.equal(driver.reg(SCRATCH), 7);
  });

  it('WRITE_DATA reaches memory and registers, with and without increment', () => {
    driver.kiq(pm4(0x37, 5), 5 << 8, 0x5000, 0, 1, 2);
    assert.deepEqual([driver.guest32(0x5000), driver.guest32(0x5004)], [1, 2]);
    driver.kiq(pm4(0x37, 5), (5 << 8) | (1 << 16), 0x6000, 0, 1, 2);
    assert.deepEqual([driver.guest32(0x6000), driver.guest32(0x6004)], [2, 0]);
    driver.kiq(pm4(0x37, 5), 0, 0x94, 0, 3, 4);
    assert.deepEqual([driver.reg(0x94), driver.reg(0x95)], [3, 4]);
  });

  it('RELEASE_MEM writes the fence and raises end-of-pipe with its ring', () => {
    driver.mapComputeQueue();
    const address = FB + 0x1000;
    driver.setReg(0x10a0, 0x42);
    driver.kcq(pm4(0x49, 7), 0, (2 << 29) | (2 << 24), low(address), high(address), 0x55, 0x66, 0x99);
    assert.deepEqual([driver.gpu.read(0, 0x1000), driver.gpu.read(0, 0x1004)], [0x55, 0x66]);
    assert.deepEqual(driver.vectors(), [{ client: 20, source: 181, ring: 4, vmid: 0, pasid: 0x42, data: 0x99 }]);
    assert.deepEqual(driver.gpu.interrupts, [0]);
  });

  it('WAIT_REG_MEM writes a request and waits for its acknowledge in one packet', () => {
    driver.kiq(pm4(0x3c, 6), 3 | (1 << 6), 0x28a3 + 2, 0x28b5 + 2, 0x007c_0004, 4, 0x20, ...ringTest(3));
    assert.equal(driver.reg(SCRATCH), 3);
    assert.equal(driver.reg(0x28b5 + 2), 4);
  });

  it('WAIT_REG_MEM waits for memory that another ring writes', () => {
    driver.mapComputeQueue();
    driver.kcq(pm4(0x3c, 6), 3 | (1 << 4), 0x6000, 0, 8, 0xffff_ffff, 4, ...ringTest(8));
    assert.equal(driver.reg(SCRATCH), 0);
    driver.sdma(5, 0x6000, 0, 8);
    assert.equal(driver.reg(SCRATCH), 8, 'woken by the progress of SDMA, without a timer');
  });

  it('COPY_DATA moves registers, memory, immediates and the clock', () => {
    driver.setReg(0x94, 0x1234);
    driver.kiq(pm4(0x40, 5), 0 | (5 << 8), 0x94, 0, 0x5000, 0);
    driver.kiq(pm4(0x40, 5), 5 | (5 << 8) | (1 << 16), 0x11, 0x22, 0x5008, 0);
    driver.kiq(pm4(0x40, 5), 1 | (0 << 8), 0x5000, 0, 0x95, 0);
    driver.bus.clock.advance(2);
    driver.kiq(pm4(0x40, 5), 9 | (5 << 8) | (1 << 16), 0, 0, 0x5010, 0);
    assert.deepEqual([driver.guest32(0x5000), driver.guest32(0x5008), driver.guest32(0x500c)], [0x1234, 0x11, 0x22]);
    assert.equal(driver.reg(0x95), 0x1234);
    assert.equal(driver.guest32(0x5010), 200_000, '2 ms at 100 MHz');
  });

  it('DMA_DATA copies and fills', () => {
    driver.setGuest32(0x5000, 1, 2, 3, 4);
    driver.kiq(pm4(0x50, 6), 0, 0x5000, 0, low(FB + 0x2000), high(FB + 0x2000), 16);
    assert.deepEqual([driver.gpu.read(0, 0x2000), driver.gpu.read(0, 0x200c)], [1, 4]);
    driver.kiq(pm4(0x50, 6), 2 << 29, 0xabcd, 0, low(FB + 0x2000), high(FB + 0x2000), 8);
    assert.deepEqual([driver.gpu.read(0, 0x2004), driver.gpu.read(0, 0x2008)], [0xabcd, 3]);
  });

  it('DMA_DATA reads and writes registers for the kernel, at one address or behind one another', () => {
    driver.setReg(0x94, 0x11);
    driver.setReg(0x95, 0x22);
    driver.kiq(pm4(0x50, 6), 0, 0x94 << 2, 0, 0x5000, 0, (8 | (1 << 26)) >>> 0);
    assert.deepEqual([driver.guest32(0x5000), driver.guest32(0x5004)], [0x11, 0x22]);
    driver.setGuest32(0x5000, 7, 8);
    driver.kiq(pm4(0x50, 6), 0, 0x5000, 0, 0x94 << 2, 0, (8 | (1 << 27) | (1 << 29)) >>> 0);
    assert.deepEqual([driver.reg(0x94), driver.reg(0x95)], [8, 0x22]);
  });

  it('sets registers of each space, for a user only those of shaders and contexts', () => {
    const set = (value: number) => [
      ...[pm4(0x76, 2), 0x20c, value, pm4(0x69, 2), 1, value],
      ...[pm4(0x68, 2), 0x26f, value, pm4(0x79, 2), 0x400, value],
    ];
    const found = () => [0x2e0c, 0xa001, 0x226f, 0xc400].map((dword) => driver.reg(dword));
    driver.setReg(0x226f, 0);
    driver.kiq(...set(1));
    const [shader, context, harvest, uconfig] = found();
    assert.deepEqual([shader, context, harvest, uconfig], [1, 1, 0, 1], 'CC_GC_SHADER_ARRAY_CONFIG cannot be written');
    driver.mapUserPage(3);
    driver.writeIb(set(2));
    driver.kiq(pm4(0x3f, 3), 0x1000, 0, ((3 << 24) | 12) >>> 0);
    assert.deepEqual(found(), [2, 2, 0, 1]);
    assert.deepEqual(
      driver.vectors().map(({ source }) => source),
      [184, 184],
    );
  });

  it('skips by PRED_EXEC what is for another die', () => {
    driver.kiq(pm4(0x23, 1), (2 << 24) | 3, ...ringTest(1), pm4(0x23, 1), (1 << 24) | 3, ...ringTest(2));
    assert.equal(driver.reg(SCRATCH), 2);
    driver.kiq(pm4(0x23, 1), (2 << 24) | 3, ...ringTest(3));
    assert.equal(driver.reg(SCRATCH), 2);
  });

  it('stops at an unknown packet, raises the bad opcode interrupt, and says which', () => {
    driver.kiq(pm4(0xcc, 1), 0, ...ringTest(1));
    assert.equal(driver.reg(SCRATCH), 0);
    assert.deepEqual(
      driver.vectors().map(({ client, source }) => [client, source]),
      [[20, 183]],
    );
    assert.match(driver.logged('warn').join(), /\(unknown\) in the ring: not implemented/);
  });

  it('runs indirect buffers and skips by COND_EXEC', () => {
    driver.writeIb([pm4(0x22, 4), 0x6000, 0, 0, 3, ...ringTest(1), pm4(0x37, 4), 5 << 8, 0x5000, 0, 9]);
    driver.kiq(pm4(0x3f, 3), PLACE.IB, 0, 13, ...ringTest(4));
    assert.deepEqual([driver.guest32(0x5000), driver.reg(SCRATCH)], [9, 4]);
  });

  it('QUERY_STATUS writes its fence', () => {
    driver.kiq(pm4(0xa4, 6), 0, 0, 0x5000, 0, 0xaa, 0xbb);
    assert.deepEqual([driver.guest32(0x5000), driver.guest32(0x5004)], [0xaa, 0xbb]);
  });

  it('says once that a dispatched shader does not run', () => {
    driver.kiq(pm4(0x15, 4), 1, 1, 1, 0, pm4(0x15, 4), 1, 1, 1, 0);
    assert.equal(driver.logged('warn').filter((message) => message.includes('no shader cores')).length, 1);
  });
});
