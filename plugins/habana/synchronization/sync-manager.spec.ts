import assert from 'node:assert/strict';
import { CFG } from '../interconnect/address-map.js';
import { packet } from '../queues/packets.js';
import { Driver, qmanOf, register } from '../test/driver.js';
import { type PayloadWrite, SYNC_MANAGER_OFFSETS, SyncManager } from './sync-manager.js';

const { sob, payloadAddressLow, payloadAddressHigh, payloadData, arm, status } = SYNC_MANAGER_OFFSETS;

/** GAUDI_PKT_SHORT_VAL_MON_*: group, mask of ignored objects, mode, value. */
function armValue(group: number, ignored: number, equal: boolean, target: number): number {
  return (group | (ignored << 8) | (equal ? 0x10000 : 0) | (target << 17)) >>> 0;
}

describe('habana: sync manager', () => {
  let manager: SyncManager;
  let overflows: number[];
  beforeEach(() => {
    overflows = [];
    manager = new SyncManager('W_S', { payloadReady: () => {}, overflow: (index) => overflows.push(index) });
  });
  const write = (offset: number, value: number) => manager.registers.write(offset, 4, value);
  const read = (offset: number) => manager.registers.read(offset, 4);
  const fired = (): PayloadWrite[] => {
    const writes: PayloadWrite[] = [];
    for (let next = manager.takeWrite(); next !== undefined; next = manager.takeWrite()) writes.push(next);
    return writes;
  };
  const prepare = (monitor: number, address: number, value: number) => {
    write(payloadAddressLow + 4 * monitor, address % 2 ** 32);
    write(payloadAddressHigh + 4 * monitor, Math.floor(address / 2 ** 32));
    write(payloadData + 4 * monitor, value);
  };

  it('sets and adds to 15 bits', () => {
    write(sob + 8, 0x7ffe);
    assert.equal(read(sob + 8), 0x7ffe);
    write(sob + 8, 0x80000001);
    assert.equal(read(sob + 8), 0x7fff);
    assert.deepEqual(overflows, []);
    write(sob + 8, 0x80000002);
    assert.equal(read(sob + 8), 1);
    assert.deepEqual(overflows, [2]);
    write(sob + 8, 0x7fff8003);
    assert.equal(read(sob + 8), 3, 'only bits 14:0 are a value');
  });

  it('fires once when the value is reached, with "at least"', () => {
    prepare(5, 0x7ffc508330, 7);
    write(arm + 20, armValue(3, 0xfe, false, 4));
    assert.equal(read(status + 20), 1 | (1 << 1));
    write(sob + 4 * 24, 3);
    assert.deepEqual(fired(), []);
    write(sob + 4 * 24, 0x80000003);
    assert.deepEqual(fired(), [{ address: 0x7ffc508330, value: 7 }]);
    assert.equal(read(status + 20), 0);
    write(sob + 4 * 24, 9);
    assert.deepEqual(fired(), [], 'it has to be armed again');
  });

  it('fires only on the very value with "equal"', () => {
    write(arm, armValue(0, 0xfe, true, 4));
    write(sob, 5);
    assert.deepEqual(fired(), []);
    write(sob, 4);
    assert.equal(fired().length, 1);
  });

  it('waits for every object it watches', () => {
    write(arm, armValue(1, 0b11111010, false, 2));
    write(sob + 4 * 8, 2);
    assert.equal(read(status), 1 | (0b100 << 1), 'PENDING shows the third');
    assert.deepEqual(fired(), []);
    write(sob + 4 * 10, 2);
    assert.equal(fired().length, 1);
  });

  it('fires at once when armed on what is already true', () => {
    write(sob, 10);
    write(arm, armValue(0, 0xfe, false, 10));
    assert.equal(fired().length, 1);
    write(arm, armValue(200, 0xff, false, 1000));
    assert.equal(fired().length, 1, 'and when it watches nothing');
  });

  it('watches the new group only after it was armed again', () => {
    write(arm, armValue(0, 0xfe, false, 1));
    write(arm, armValue(1, 0xfe, false, 1));
    write(sob, 1);
    assert.deepEqual(fired(), []);
    write(sob + 32, 1);
    assert.equal(fired().length, 1);
    assert.equal(manager.armedMonitors, 0);
  });

  it('fires all monitors of a group', () => {
    for (let monitor = 0; monitor < 512; monitor++) write(arm + 4 * monitor, armValue(7, 0xfe, false, 1));
    write(sob + 4 * 56, 1);
    assert.equal(fired().length, 512);
  });
});

describe('habana: sync managers in the device', () => {
  it('forget everything on reset', () => {
    const driver = new Driver();
    const base = CFG.syncManagers[0];
    driver.write(base + sob, 5);
    driver.write(base + arm, armValue(0, 0xfe, false, 9));
    driver.reset('flr');
    assert.equal(driver.read(base + sob), 0);
    driver.write(base + sob, 9);
    driver.bus.run();
    assert.equal(driver.model.syncManagers.counters.payloads, 0);
  });

  it('let monitors feed fences, and monitors cascade', () => {
    const driver = new Driver();
    driver.enable('DMA0');
    driver.run('DMA0', 0, packet.fence(2, 1, 1), packet.msgShort(3, 40, 9));
    const base = CFG.syncManagers[0]!;
    const monitor = (index: number, address: number, value: number) => {
      driver.write(base + payloadAddressLow + 4 * index, address % 2 ** 32);
      driver.write(base + payloadAddressHigh + 4 * index, Math.floor(address / 2 ** 32));
      driver.write(base + payloadData + 4 * index, value);
    };
    monitor(0, register(base + 4 * 8), 1);
    monitor(1, register(qmanOf('DMA0') + 0x308 + 0x14 * 2), 1);
    driver.write(base + arm, armValue(0, 0xfe, false, 1));
    driver.write(base + arm + 4, armValue(1, 0xfe, false, 1));
    driver.write(base, 1);
    driver.bus.run();
    assert.equal(driver.read(base + 40), 9);
  });

  it('do not stop the bus when two monitors arm each other for ever', () => {
    const driver = new Driver();
    const base = CFG.syncManagers[0]!;
    for (const [index, other] of [
      [0, 1],
      [1, 0],
    ] as const) {
      const target = register(base + arm + 4 * other);
      driver.write(base + payloadAddressLow + 4 * index, target % 2 ** 32);
      driver.write(base + payloadAddressHigh + 4 * index, Math.floor(target / 2 ** 32));
      driver.write(base + payloadData + 4 * index, armValue(0, 0xff, false, 0));
    }
    driver.write(base + arm, armValue(0, 0xff, false, 0));
    for (let slice = 0; slice < 50; slice++) assert.ok(driver.bus.runOne());
    driver.write(CFG.psoc + 0x498, 1);
    assert.ok(driver.bus.run() < 5, 'a reset ends it');
  });

  it('report an overflow to the driver', () => {
    const driver = new Driver();
    driver.openCpuQueues();
    driver.wantEvents();
    driver.write(CFG.syncManagers[2]! + 12, 0x7fff);
    driver.write(CFG.syncManagers[2]! + 12, 0x80000001);
    driver.bus.run();
    const [event] = driver.takeEvents();
    assert.equal(event?.type, 279);
    assert.equal(event?.data[0], 3);
  });
});
