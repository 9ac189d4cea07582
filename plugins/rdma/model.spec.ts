import assert from 'node:assert/strict';
import { swap32 } from './layouts/byte-order.js';
import { ads } from './layouts/contexts.js';
import { bytesOf } from './layouts/layout.js';
import { SERVICE } from './queues/queue-pair.js';
import { OPCODE } from './queues/work-queue-entry.js';
import { dataSegment, gidOf, type TestDriver, twoDrivers, workRequest } from './test/driver.js';

/**
 * `struct mlx5_init_seg` (include/linux/mlx5/device.h), as {@link InitSegment} has it: interface state in bits 10:8.
 */
const CMDQ_ADDR_L_SZ = 0x14;
const NIC_STATE = { FULL: 0, DISABLED: 1, SW_RESET: 7 } as const;

const stateOf = ({ fn }: TestDriver): number => (swap32(fn.read(0, CMDQ_ADDR_L_SZ)) >>> 8) & 7;

function pathTo(gid: Uint8Array): DataView {
  const path = ads.create();
  bytesOf(ads.part(path, 'rgid_rip')).set(gid);
  return path;
}

describe('a reset of the adapter', () => {
  for (const kind of ['device', 'flr'] as const) {
    it(`${kind}: everything is new but the weather, and the switch forgets the old one`, () => {
      const { a, b, gids } = twoDrivers();
      a.run('ALLOC_PD');
      a.control('wire-faults', { loss: 0.5 });
      const before = a.adapter;
      assert.equal(b.adapter.cable.resolvePath(pathTo(gids[0])), before.cable);
      a.fn.reset(kind);
      assert.notEqual(a.adapter, before);
      assert.equal(b.adapter.cable.resolvePath(pathTo(gids[0])), undefined, 'GIDs are gone');
      assert.equal(stateOf(a), NIC_STATE.FULL);
      assert.ok(a.model.wireFaults.areActive);
      a.placeCommandQueue();
      a.setGid(0, gids[0]);
      assert.equal(b.adapter.cable.resolvePath(pathTo(gids[0])), a.adapter.cable);
    });
  }

  it('by the driver ends with the interface disabled, until the command queue has a new place', () => {
    const { a, bus } = twoDrivers();
    const before = a.adapter;
    a.fn.write(0, CMDQ_ADDR_L_SZ, swap32(NIC_STATE.SW_RESET << 8));
    assert.equal(stateOf(a), NIC_STATE.FULL, 'answered at once, done later');
    bus.run();
    assert.notEqual(a.adapter, before);
    assert.equal(stateOf(a), NIC_STATE.DISABLED);
    a.placeCommandQueue();
    assert.equal(stateOf(a), NIC_STATE.FULL);
    a.run('NOP');
  });

  it('in the middle of a message leaves its sender to find out, and nothing of it goes on', () => {
    const { a, b, bus, gids } = twoDrivers();
    const [left, right] = [a, b].map((driver) => {
      const { eqn } = driver.createEq(1, 0n);
      const pd = driver.run('ALLOC_PD').number;
      return { queues: driver.createQp(SERVICE.RC, pd, eqn), pd, key: driver.createPhysicalKey(pd) };
    }) as [End, End];
    a.connect(left.queues, left.pd, right.queues.qpn, gids[1]);
    b.connect(right.queues, right.pd, left.queues.qpn, gids[0]);
    const lengthBytes = 4 * 2 ** 20;
    const [source, target] = [a.allocate(lengthBytes), b.allocate(lengthBytes)];
    b.postReceive(right.queues, 0, right.key, target, lengthBytes);
    a.post(left.queues, 0, workRequest(OPCODE.SEND, [dataSegment(left.key, source, lengthBytes)]));
    for (let piece = 0; piece < 2; piece++) bus.runOne();
    b.fn.reset();
    for (let wait = 0; wait < 100; wait++) {
      bus.run();
      bus.clock.advance(10);
    }
    assert.equal(a.completion(left.queues, 0).getUint8(55), 0x15, 'transport retries exceeded');
    assert.equal(b.completion(right.queues, 0).getUint8(63) >>> 4, 0xf, 'no completion of the old adapter');
  });
});

interface End {
  readonly queues: ReturnType<TestDriver['createQp']>;
  readonly pd: number;
  readonly key: number;
}

describe('two emulators in one process', () => {
  it('do not see each other’s adapters', () => {
    const [first, second] = [twoDrivers(), twoDrivers()];
    second.b.setGid(1, gidOf(9));
    assert.equal(second.a.adapter.cable.resolvePath(pathTo(gidOf(9))), second.b.adapter.cable);
    assert.equal(first.a.adapter.cable.resolvePath(pathTo(gidOf(9))), undefined);
    assert.equal(first.a.adapter.cable.resolvePath(pathTo(first.gids[1])), first.b.adapter.cable);
  });
});
