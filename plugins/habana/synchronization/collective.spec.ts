/**
 * A collective wait as the driver would build it with NIC ports (gaudi.c gaudi_collective_master_init_job and
 * gaudi_collective_slave_init_job): the stock driver's mask of ports is empty, so no guest can ask for one.
 */
import assert from 'node:assert/strict';
import { CFG, ENGINES } from '../interconnect/address-map.js';
import { packet } from '../queues/packets.js';
import { Driver, qmanOf, register } from '../test/driver.js';
import { SYNC_MANAGER_OFFSETS } from './sync-manager.js';

/** Message bases of a queue manager: monitors and sync objects of the sync manager W_S. */
const MONITORS = 2;
const OBJECTS = 3;
/** What gaudi_get_fence_addr() hands to monitors. */
const FENCE = 2;
const SIGNAL = 40;
const SIGNALLED = 3;
/** First of the group's sixteen objects: one for each NIC, then the reducing engine's. */
const GROUP = 64;
const ROUND = 5;
const STREAM = 1;

const slaves = [...ENGINES.filter(({ kind }) => kind === 'nic').map(({ name }) => name), 'DMA5'];

/** gaudi_gen_wait_cb: `members` has a bit for each object from `first` on. */
function wait(queue: string, monitor: number, first: number, members: number, value: number): Uint8Array[] {
  const fence = register(qmanOf(queue) + 0x308 + 0x14 * FENCE + 4 * STREAM);
  const place = (offset: number) => offset - SYNC_MANAGER_OFFSETS.payloadAddressLow + 4 * monitor;
  const armed = (first / 8) | ((~members & 0xff) << 8) | (value << 17);
  return [
    packet.msgShort(MONITORS, place(SYNC_MANAGER_OFFSETS.payloadAddressLow), fence % 2 ** 32),
    packet.msgShort(MONITORS, place(SYNC_MANAGER_OFFSETS.payloadAddressHigh), Math.floor(fence / 2 ** 32)),
    packet.msgShort(MONITORS, place(SYNC_MANAGER_OFFSETS.payloadData), 1),
    packet.msgShort(MONITORS, place(SYNC_MANAGER_OFFSETS.arm), armed),
    packet.fence(FENCE, 1, 1),
  ];
}

describe('habana: a collective wait', () => {
  let driver: Driver;
  const done = () => driver.read(CFG.syncManagers[0]!) === 1;

  beforeEach(() => {
    driver = new Driver();
    for (const name of ['DMA0', ...slaves]) driver.enable(name, STREAM);
    const object = (index: number) => CFG.syncManagers[0]! + 4 * index;
    for (let i = 0; i < 16; i++) driver.write(object(GROUP + i), ROUND - 1);
    driver.submit(
      'DMA0',
      STREAM,
      ...wait('DMA0', 0, GROUP, 0xff, ROUND),
      ...wait('DMA0', 1, GROUP + 8, 0b111, ROUND),
      packet.msgShort(OBJECTS, 0, 1),
    );
  });

  const submitSlaves = (names: readonly string[]) => {
    for (const name of names) {
      const index = slaves.indexOf(name);
      const signal = packet.msgShort(OBJECTS, 4 * (GROUP + index), 0x80000001);
      driver.submit(name, STREAM, ...wait(name, 8 + index, SIGNAL, 1, SIGNALLED), signal);
    }
  };
  const signal = () => {
    driver.write(CFG.syncManagers[0]! + 4 * SIGNAL, SIGNALLED);
    driver.bus.run();
  };

  it('ends when the signal came and ten NICs and the reducing engine passed it on', () => {
    submitSlaves(slaves);
    driver.bus.run();
    assert.equal(done(), false);
    signal();
    assert.equal(done(), true);
  });

  for (const [index, missing] of slaves.entries()) {
    it(`waits for ${missing}`, () => {
      submitSlaves(slaves.toSpliced(index, 1));
      signal();
      assert.equal(done(), false);
      submitSlaves([missing]);
      driver.bus.run();
      assert.equal(done(), true);
    });
  }
});
