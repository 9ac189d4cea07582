import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { BLOCK_FRAGMENT_9, closeBuses, PDE_VALID, PTE, pm4, TestDriver } from '../test/driver.js';

/** First dword of each engine's registers, as sdma_v4_0_get_reg_offset finds it. */
const ENGINES = [0x1260, 0x1860, 0x1e000, 0x1e400, 0x1e800];
/** soc15_ih_clientid.h SOC15_IH_CLIENTID_SDMA0 .. SDMA4. */
const CLIENTS = [8, 9, 1, 4, 5];
/** amdgpu_doorbell.h AMDGPU_VEGA20_DOORBELL_sDMA_ENGINE0, then each 0xa doorbells of 64 bits further. */
const doorbellOf = (engine: number) => 2 * (0x100 + 0xa * engine);
const ringOf = (engine: number) => 0x60_0000 + 0x1_0000 * engine;

describe('gpu as an MI210', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver(undefined, undefined, { id: '740f' }).bringUp();
  });

  it('has five SDMA engines, each with its ring, doorbell and interrupts', () => {
    for (const [engine, first] of ENGINES.entries()) {
      driver.setReg(first + 0x1c, 1);
      driver.setReg(first + 0x80, 0);
      driver.setReg(first + 0x81, ringOf(engine) >>> 8);
      driver.setReg(first + 0xab, doorbellOf(engine) << 2);
      driver.setReg(first + 0x92, 0x1000_0000);
      driver.setReg(first + 0x80, 1 | (10 << 1));
      driver.setReg(first + 0x2a, 0);
      driver.setGuest32(ringOf(engine), 5, 0x5000 + 4 * engine, 0, 0x100 + engine, 6, engine);
    }
    for (const engine of ENGINES.keys()) driver.gpu.write64(2, 4 * doorbellOf(engine), 24n);
    driver.bus.run();
    for (const engine of ENGINES.keys()) assert.equal(driver.guest32(0x5000 + 4 * engine), 0x100 + engine);
    const vectors = driver.vectors().sort((left, right) => left.data - right.data);
    assert.deepEqual(
      vectors.map(({ client, source }) => [client, source]),
      CLIENTS.map((client) => [client, 224]),
    );
  });

  it("connects a process's queue to the engine that its run list names", () => {
    const [root, mqd, ring, runList] = [0x2000, 0x70_0000, 0x5_0000, 0x72_0000];
    driver.vram64(root, 0x3000n | PDE_VALID);
    driver.vram64(0x3000, 0x4000n | PDE_VALID | BLOCK_FRAGMENT_9);
    driver.vram64(0x4000, PTE.VALID | PTE.SYSTEM);
    driver.enableVmid(3, 0);
    for (const first of ENGINES) {
      driver.setReg(first + 0x1c, 1);
      driver.setReg(first + 0x2a, 0);
    }
    driver.kiq(pm4(0xa0, 7), (1 << 29) | 0xfff8, 0xff00, 0, 0, 0, 0, 0);
    driver.setGuest32(mqd, 10 << 1, ring >>> 8);
    const mapProcess = [pm4(0xa1, 15), 0x8001, root | 1, 0, ...new Array<number>(12).fill(0)];
    const mapOn = (select: number) => {
      driver.kiq(pm4(0xa3, 5), 2 << 4, 0, 0, 0, 0);
      driver.setGuest32(mqd + 12, 0, 0, 0, 0);
      const mapQueue = [pm4(0xa2, 6), (select | (1 << 4) | (1 << 29)) >>> 0, 0x404 << 2, mqd, 0, 0, 0];
      const list = [...mapProcess, ...mapQueue];
      driver.setGuest32(runList, ...list);
      driver.kiq(pm4(0xa5, 3), runList, 0, (list.length | (1 << 23) | (1 << 24)) >>> 0);
      driver.setGuest32(ring, 6, 0x77);
      driver.gpu.write64(2, 0x404 * 4, 8n);
      driver.bus.run();
      return driver.vectors().map(({ client }) => client);
    };
    // ENGINE_SEL b28:26 of the first two engines, then with EXTENDED_ENGINE_SEL b3:2 (kfd_packet_manager_v9.c
    // pm_map_queues_v9).
    assert.deepEqual(mapOn(2 << 26), [CLIENTS[0]]);
    assert.deepEqual(mapOn(3 << 26), [CLIENTS[1]]);
    assert.deepEqual(mapOn((1 << 2) | (2 << 26)), [CLIENTS[2]]);
    assert.deepEqual(mapOn((1 << 2) | (4 << 26)), [CLIENTS[4]]);
    assert.deepEqual(mapOn((1 << 2) | (5 << 26)), [], 'there is no sixth');
    assert.match(driver.logged('warn').join(), /no queue of engine 5 left/);
  });

  it('says of memory errors the same in the data fabric and in the memory controllers', () => {
    const fabricPoisons = driver.reg(0x767e) !== 0 || driver.reg(0x767f) !== 0;
    // RREG32_PCIE of UMCCH0_0_EccCtrl; UCFatalEn b8 means no poison (umc_v6_7_query_ras_poison_mode).
    driver.setReg(0xe, 0x14053 * 4);
    assert.equal((driver.reg(0xf) & 0x100) === 0, fabricPoisons);
  });

  it('has no device serial number, whose file in sysfs the driver makes itself', () => {
    assert.ok(!driver.gpu.card.capabilities.some(({ name }) => /Serial/.test(name)));
    assert.ok(new TestDriver().gpu.card.capabilities.some(({ name }) => /Serial/.test(name)));
  });
});
