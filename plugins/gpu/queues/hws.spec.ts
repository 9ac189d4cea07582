import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { BLOCK_FRAGMENT_9, closeBuses, PDE_VALID, PTE, pm4, TestDriver } from '../test/driver.js';
import { HQD, MQD_FIRST_DWORD } from './hqd.js';

/** In guest memory; the process maps guest memory one to one in its first 2 MiB. */
const [SDMA_MQD, SDMA_RING, COMPUTE_MQD, COMPUTE_RING, WPTR, RUN_LIST] = [
  0x70_0000, 0x5_0000, 0x71_0000, 0x6_0000, 0x4_0000, 0x72_0000,
];
const ROOT = 0x2000;
const PASID = 0x8003;
const SDMA_DOORBELL = 0x404;
const COMPUTE_DOORBELL = 0x600;
const NO_PROCESSES: readonly number[] = [];

describe('gpu hardware scheduler', () => {
  afterEach(closeBuses);

  let driver: TestDriver;

  beforeEach(() => {
    driver = new TestDriver().bringUp();
    driver.vram64(ROOT, 0x3000n | PDE_VALID);
    driver.vram64(0x3000, 0x4000n | PDE_VALID | BLOCK_FRAGMENT_9);
    // One 2 MiB leaf: addresses 0 .. 2 MiB are guest memory.
    driver.vram64(0x4000, PTE.VALID | PTE.SYSTEM);
    for (let vmid = 3; vmid < 16; vmid++) driver.enableVmid(vmid, 0);
    driver.kiq(pm4(0xa0, 7), (1 << 29) | 0xfff8, 0xff00, 0, 0, 0, 0, 0);
  });

  /** As update_mqd_sdma and update_mqd (kfd_mqd_manager_v9.c). */
  const describeQueues = () => {
    const sdma = (dword: number, value: number) => driver.setGuest32(SDMA_MQD + 4 * dword, value);
    sdma(0, (10 << 1) | (1 << 12));
    sdma(1, SDMA_RING >>> 8);
    sdma(9, WPTR + 0x100);
    const compute = (register: number, value: number) =>
      driver.setGuest32(COMPUTE_MQD + 4 * (MQD_FIRST_DWORD + register), value);
    compute(HQD.PQ_BASE, COMPUTE_RING >>> 8);
    compute(HQD.PQ_CONTROL, 9);
    compute(HQD.PQ_RPTR_REPORT_ADDR, WPTR + 0x108);
  };

  const mapProcess = (pasid: number) => [pm4(0xa1, 15), pasid, ROOT | 1, 0, ...new Array<number>(12).fill(0)];
  const mapSdma = [pm4(0xa2, 6), (1 << 4) | (2 << 26) | (1 << 29), SDMA_DOORBELL << 2, SDMA_MQD, 0, WPTR, 0];
  const mapCompute = [pm4(0xa2, 6), (1 << 4) | (1 << 29), COMPUTE_DOORBELL << 2, COMPUTE_MQD, 0, WPTR + 8, 0];
  const runList = (...dwords: readonly number[]) => {
    driver.setGuest32(RUN_LIST, ...dwords);
    driver.kiq(pm4(0xa5, 3), RUN_LIST, 0, (dwords.length | (1 << 23) | (1 << 24)) >>> 0);
  };
  const unmapAll = () => driver.kiq(pm4(0xa3, 5), 2 << 4, 0, 0, 0, 0);
  const fence = (address: number, value: number) => [5, address, 0, value];

  it('connects queues of a process, which run in its VMID', () => {
    describeQueues();
    runList(...mapProcess(PASID), ...mapSdma, ...mapCompute);
    driver.setGuest32(SDMA_RING, ...fence(0x1000, 1), 6, 0x77);
    driver.gpu.write64(2, SDMA_DOORBELL * 4, 24n);
    driver.setGuest32(COMPUTE_RING, pm4(0x37, 4), 5 << 8, 0x1004, 0, 2);
    driver.gpu.write64(2, COMPUTE_DOORBELL * 4, 5n);
    driver.bus.run();
    assert.deepEqual([driver.guest32(0x1000), driver.guest32(0x1004)], [1, 2]);
    assert.deepEqual([driver.guest32(WPTR + 0x100), driver.guest32(WPTR + 0x108)], [24, 5], 'read pointers reported');
    assert.deepEqual(driver.vectors(), [{ client: 8, source: 224, ring: 2, vmid: 3, pasid: PASID, data: 0x77 }]);
  });

  it('keeps pointers across a preemption, and sees a doorbell that rang meanwhile in memory', () => {
    describeQueues();
    runList(...mapProcess(PASID), ...mapSdma);
    driver.setGuest32(SDMA_RING, ...fence(0x1000, 1), ...fence(0x1004, 2));
    driver.gpu.write64(2, SDMA_DOORBELL * 4, 16n);
    driver.bus.run();
    unmapAll();
    assert.deepEqual([driver.guest32(SDMA_MQD + 12), driver.guest32(SDMA_MQD + 20)], [16, 16]);
    driver.gpu.write64(2, SDMA_DOORBELL * 4, 32n);
    driver.setGuest32(WPTR, 32);
    driver.bus.run();
    assert.equal(driver.guest32(0x1004), 0);
    driver.setGuest32(0x1000, 0);
    runList(...mapProcess(PASID), ...mapSdma);
    assert.deepEqual([driver.guest32(0x1000), driver.guest32(0x1004)], [0, 2]);
  });

  it('replaces a run list by the next', () => {
    describeQueues();
    runList(...mapProcess(PASID), ...mapSdma);
    runList(...NO_PROCESSES);
    driver.setGuest32(SDMA_RING, ...fence(0x1000, 1));
    driver.gpu.write64(2, SDMA_DOORBELL * 4, 16n);
    driver.bus.run();
    assert.equal(driver.guest32(0x1000), 0);
  });

  it('unmaps one process by its PASID', () => {
    describeQueues();
    runList(...mapProcess(PASID), ...mapSdma, ...mapProcess(PASID + 1), ...mapCompute);
    driver.kiq(pm4(0xa3, 5), 1 << 4, PASID, 0, 0, 0);
    assert.match(JSON.stringify(driver.model.inspect()), /"processes":\[\{"pasid":32772,"vmid":4\}\]/);
  });

  it('says what it cannot connect: AQL queues, and more processes than VMIDs', () => {
    describeQueues();
    driver.setGuest32(COMPUTE_MQD + 4 * (MQD_FIRST_DWORD + HQD.AQL_CONTROL), 1);
    runList(...mapProcess(PASID), ...mapCompute);
    driver.kiq(pm4(0xa0, 7), (1 << 29) | 0x8, 0xff00, 0, 0, 0, 0, 0);
    runList(...mapProcess(PASID), ...mapProcess(PASID + 1), ...mapSdma);
    assert.match(
      driver.logged('warn').join('\n'),
      /of a kind not implemented\nrun list: no VMID left for process 32772/,
    );
  });

  it("takes run lists only from the kernel's rings", () => {
    describeQueues();
    runList(...mapProcess(PASID), ...mapCompute);
    driver.setGuest32(COMPUTE_RING, ...mapProcess(PASID + 1));
    driver.gpu.write64(2, COMPUTE_DOORBELL * 4, 16n);
    driver.bus.run();
    assert.match(driver.logged('warn').join(), /stops at packet/);
  });
});
