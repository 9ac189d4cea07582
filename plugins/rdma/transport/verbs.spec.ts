import assert from 'node:assert/strict';
import type { TestBus } from 'ghostbus/testing';
import { attachToMcgIn, createMkeyIn } from '../layouts/commands.js';
import { mkc } from '../layouts/contexts.js';
import { bytesOf } from '../layouts/layout.js';
import { SYNDROME } from '../queues/completion-entry.js';
import { QP_STATE, SERVICE } from '../queues/queue-pair.js';
import { OPCODE } from '../queues/work-queue-entry.js';
import {
  dataSegment,
  remoteSegment,
  type TestDriver,
  type TestQueues,
  twoDrivers,
  workRequest,
} from '../test/driver.js';

/** cqe64 (include/linux/mlx5/device.h), as software reads it. */
const opcodeOf = (cqe: DataView): number => cqe.getUint8(63) >>> 4;
const syndromeOf = (cqe: DataView): number => cqe.getUint8(55);
const INVALID = 0xf;

interface End {
  readonly driver: TestDriver;
  readonly queues: TestQueues;
  readonly key: number;
  readonly pd: number;
  readonly buffer: number;
  readonly eqRing: number;
}

describe('verbs between two adapters', () => {
  let bus: TestBus;
  let left: End;
  let right: End;

  function end(driver: TestDriver, service: number): End {
    const { eqn, ring } = driver.createEq(1, 0n);
    const pd = driver.run('ALLOC_PD').number;
    const key = driver.createPhysicalKey(pd);
    const queues = driver.createQp(service, pd, eqn);
    return { driver, queues, key, pd, buffer: driver.allocate(64 * 1024), eqRing: ring };
  }

  function setUp(service: number): void {
    const two = twoDrivers();
    bus = two.bus;
    left = end(two.a, service);
    right = end(two.b, service);
    left.driver.connect(left.queues, left.pd, right.queues.qpn, two.gids[1]);
    right.driver.connect(right.queues, right.pd, left.queues.qpn, two.gids[0]);
  }

  function fill(address: number, lengthBytes: number): Uint8Array {
    const bytes = Uint8Array.from({ length: lengthBytes }, (_, index) => (index * 7 + 3) & 0xff);
    bus.guestMemory.write(address, bytes);
    return bytes;
  }

  function load(address: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    bus.guestMemory.read(address, bytes);
    return bytes;
  }

  describe('reliable connection', () => {
    beforeEach(() => setUp(SERVICE.RC));

    it('sends into a posted receive; both ends complete', () => {
      const sent = fill(left.buffer, 5000);
      right.driver.postReceive(right.queues, 0, right.key, right.buffer, 8192);
      left.driver.post(
        left.queues,
        0,
        workRequest(OPCODE.SEND_IMM, [dataSegment(left.key, left.buffer, 5000)], { immediate: 0x1234 }),
      );
      bus.run();
      assert.deepEqual(load(right.buffer, 5000), sent);
      const received = right.driver.completion(right.queues, 0);
      assert.equal(opcodeOf(received), 3, 'responder send with immediate');
      assert.equal(received.getUint32(44), 5000);
      assert.equal(received.getUint32(36), 0x1234);
      assert.equal(received.getUint32(32), 0xabc, 'user index');
      const done = left.driver.completion(left.queues, 0);
      assert.equal(opcodeOf(done), 0);
      assert.equal(done.getUint8(56), OPCODE.SEND_IMM);
    });

    it('carries data inside the entry', () => {
      right.driver.postReceive(right.queues, 0, right.key, right.buffer, 64);
      const inline = new Uint8Array(16);
      new DataView(inline.buffer).setUint32(0, 0x80000005);
      inline.set([1, 2, 3, 4, 5], 4);
      left.driver.post(left.queues, 0, workRequest(OPCODE.SEND, [inline]));
      bus.run();
      assert.deepEqual([...load(right.buffer, 6)], [1, 2, 3, 4, 5, 0]);
    });

    it('writes and reads remote memory, gathering and scattering', () => {
      const bytes = fill(left.buffer, 300);
      const pieces = [dataSegment(left.key, left.buffer, 100), dataSegment(left.key, left.buffer + 100, 200)];
      const next = left.driver.post(
        left.queues,
        0,
        workRequest(OPCODE.RDMA_WRITE, [remoteSegment(right.key, right.buffer), ...pieces]),
      );
      bus.run();
      assert.deepEqual(load(right.buffer, 300), bytes);
      const target = left.buffer + 4096;
      left.driver.post(
        left.queues,
        next,
        workRequest(OPCODE.RDMA_READ, [remoteSegment(right.key, right.buffer), dataSegment(left.key, target, 300)]),
      );
      bus.run();
      assert.deepEqual(load(target, 300), bytes);
      assert.equal(left.driver.completion(left.queues, 1).getUint32(44), 300, 'byte count of a read');
      assert.equal(opcodeOf(right.driver.completion(right.queues, 0)), INVALID, 'the responder has no completion');
    });

    it('adds and swaps atomically in the byte order of the guest', () => {
      left.driver.memory.setBigUint64(right.buffer, 1000n, true);
      const atomic = (swapOrAdd: bigint, compare: bigint): Uint8Array => {
        const view = new DataView(new ArrayBuffer(16));
        view.setBigUint64(0, swapOrAdd);
        view.setBigUint64(8, compare);
        return bytesOf(view);
      };
      const place = remoteSegment(right.key, right.buffer);
      const answer = dataSegment(left.key, left.buffer, 8);
      let next = left.driver.post(
        left.queues,
        0,
        workRequest(OPCODE.ATOMIC_FETCH_ADD, [place, atomic(5n, 0n), answer]),
      );
      bus.run();
      assert.equal(left.driver.memory.getBigUint64(left.buffer, true), 1000n);
      assert.equal(left.driver.memory.getBigUint64(right.buffer, true), 1005n);
      next = left.driver.post(
        left.queues,
        next,
        workRequest(OPCODE.ATOMIC_COMPARE_SWAP, [place, atomic(7n, 1005n), answer]),
      );
      bus.run();
      assert.equal(left.driver.memory.getBigUint64(right.buffer, true), 7n);
      left.driver.post(left.queues, next, workRequest(OPCODE.ATOMIC_COMPARE_SWAP, [place, atomic(9n, 1005n), answer]));
      bus.run();
      assert.equal(left.driver.memory.getBigUint64(right.buffer, true), 7n, 'a comparison that fails changes nothing');
    });

    it('waits for a receive that is posted late, without a doorbell', () => {
      left.driver.post(left.queues, 0, workRequest(OPCODE.SEND, [dataSegment(left.key, left.buffer, 10)]));
      bus.run();
      assert.equal(opcodeOf(left.driver.completion(left.queues, 0)), INVALID);
      right.driver.postReceive(right.queues, 0, right.key, right.buffer, 64);
      bus.clock.advance(2);
      bus.run();
      assert.equal(opcodeOf(left.driver.completion(left.queues, 0)), 0);
    });

    it('leaves what is posted after a doorbell for the next one, though the record in memory names it already', () => {
      const write = (from: number, to: number) =>
        workRequest(OPCODE.RDMA_WRITE, [remoteSegment(right.key, to), dataSegment(left.key, from, 64)]);
      const bytes = fill(left.buffer, 128);
      const next = left.driver.place(left.queues, 0, write(left.buffer, right.buffer));
      left.driver.ring(left.queues);
      bus.runOne();
      left.driver.place(left.queues, next, write(left.buffer + 64, right.buffer + 64));
      bus.run();
      assert.deepEqual(load(right.buffer, 64), bytes.subarray(0, 64));
      assert.deepEqual(load(right.buffer + 64, 64), new Uint8Array(64), 'nobody rang for the second');
      left.driver.ring(left.queues);
      bus.run();
      assert.deepEqual(load(right.buffer, 128), bytes);
    });

    it('refuses a bad remote key: the sender learns it, both stop, and what is posted later is flushed', () => {
      right.driver.postReceive(right.queues, 0, right.key, right.buffer, 64);
      const bad = remoteSegment(right.key ^ 0xff, right.buffer);
      const next = left.driver.post(
        left.queues,
        0,
        workRequest(OPCODE.RDMA_WRITE, [bad, dataSegment(left.key, left.buffer, 8)]),
      );
      bus.run();
      const failed = left.driver.completion(left.queues, 0);
      assert.deepEqual([opcodeOf(failed), syndromeOf(failed)], [13, SYNDROME.REMOTE_ACCESS]);
      const flushed = right.driver.completion(right.queues, 0);
      assert.deepEqual([opcodeOf(flushed), syndromeOf(flushed)], [14, SYNDROME.FLUSHED]);
      left.driver.post(left.queues, next, workRequest(OPCODE.SEND, [], { silent: true }));
      bus.run();
      assert.equal(syndromeOf(left.driver.completion(left.queues, 1)), SYNDROME.FLUSHED);
      assert.equal(left.driver.adapter.queuePairs.get(left.queues.qpn).state, QP_STATE.ERROR);
    });

    it('ends a message that is longer than the receive at both ends', () => {
      right.driver.postReceive(right.queues, 0, right.key, right.buffer, 16);
      left.driver.post(left.queues, 0, workRequest(OPCODE.SEND, [dataSegment(left.key, left.buffer, 17)]));
      bus.run();
      assert.equal(syndromeOf(left.driver.completion(left.queues, 0)), SYNDROME.REMOTE_INVALID_REQUEST);
      assert.equal(syndromeOf(right.driver.completion(right.queues, 0)), SYNDROME.LOCAL_LENGTH);
    });

    it('reports its own memory as a local protection error', () => {
      left.driver.post(
        left.queues,
        0,
        workRequest(OPCODE.RDMA_WRITE, [remoteSegment(right.key, right.buffer), dataSegment(0x99900, left.buffer, 8)]),
      );
      bus.run();
      assert.equal(syndromeOf(left.driver.completion(left.queues, 0)), SYNDROME.LOCAL_PROTECTION);
      assert.equal(right.driver.adapter.queuePairs.get(right.queues.qpn).state, QP_STATE.RTS, 'the other side goes on');
    });

    it('gives up when nobody answers', () => {
      right.driver.runNumber('TO_RST_QP', right.queues.qpn);
      left.driver.post(left.queues, 0, workRequest(OPCODE.SEND, [dataSegment(left.key, left.buffer, 8)]));
      for (let count = 0; count < 20; count++) {
        bus.run();
        bus.clock.advance(10);
      }
      assert.equal(syndromeOf(left.driver.completion(left.queues, 0)), SYNDROME.TRANSPORT_RETRIES);
    });

    it('sends an event for an armed queue, at once for what came before it was armed', () => {
      right.driver.postReceive(right.queues, 0, right.key, right.buffer, 64);
      left.driver.post(left.queues, 0, workRequest(OPCODE.SEND, []));
      bus.run();
      assert.deepEqual(right.driver.fn.interrupts, []);
      right.driver.fn.write64(0, 0x10040, BigInt.asUintN(64, BigInt(swap(1 << 24))));
      right.driver.fn.write64(0, 0x10020, BigInt(swap(0)) | (BigInt(swap(right.queues.cqn)) << 32n));
      bus.run();
      assert.equal(right.driver.memory.getUint32(right.eqRing + 56), right.queues.cqn);
      assert.deepEqual(right.driver.fn.interrupts, [1]);
    });

    it('never leaves the ring when an entry lies about its length', () => {
      const lie = workRequest(OPCODE.SEND, []);
      new DataView(lie.buffer).setUint32(4, 63);
      left.driver.post(left.queues, 0, lie);
      bus.run(10_000);
      assert.equal(syndromeOf(left.driver.completion(left.queues, 0)), SYNDROME.LOCAL_QP_OPERATION);
    });

    it('translates pages, and faults on one that is missing until the driver brings it', () => {
      const { ring } = left.driver.createEq(2, 1n << 12n);
      const input = new DataView(new ArrayBuffer(0x110 + 16));
      const context = createMkeyIn.part(input, 'memory_key_mkey_entry');
      mkc.fill(context, {
        access_mode_1_0: 1,
        lr: 1,
        umr_en: 1,
        pd: left.pd,
        qpn: 0xffffff,
        log_page_size: 12,
        translations_octword_size: 4,
      });
      mkc.set64(context, 'start_addr', 0x7000n);
      mkc.set64(context, 'len', 8192n);
      createMkeyIn.set(input, 'translations_octword_actual_size', 1);
      const page = left.driver.allocate(4096);
      input.setBigUint64(0x110, BigInt(page) | 3n);
      const index = left.driver.run('CREATE_MKEY', input).number;
      const sent = fill(page, 4096);
      const segments = [remoteSegment(right.key, right.buffer), dataSegment(index << 8, 0x7000, 8192)];
      left.driver.post(left.queues, 0, workRequest(OPCODE.RDMA_WRITE, segments));
      bus.run();
      assert.equal(opcodeOf(left.driver.completion(left.queues, 0)), INVALID);
      assert.equal(left.driver.memory.getUint8(ring + 1), 0x0c, 'page fault event');
      assert.equal(left.driver.memory.getUint32(ring + 48), index << 8, 'key');
      assert.equal(left.driver.memory.getBigUint64(ring + 52), 0x8000n, 'address');
      const entry = new DataView(new ArrayBuffer(8));
      entry.setBigUint64(0, BigInt(page) | 3n);
      left.driver.adapter.memoryKeys.findIndex(index)!.writeTable(8, bytesOf(entry));
      const resume = new DataView(new ArrayBuffer(16));
      resume.setUint32(12, left.driver.memory.getUint32(ring + 40));
      left.driver.run('PAGE_FAULT_RESUME', resume);
      assert.equal(opcodeOf(left.driver.completion(left.queues, 0)), 0);
      assert.deepEqual(load(right.buffer + 4096, 4096), sent);
    });
  });

  describe('unreliable datagram', () => {
    it('puts the global route header before the payload', () => {
      setUp(SERVICE.UD);
      const bytes = fill(left.buffer, 100);
      right.driver.postReceive(right.queues, 0, right.key, right.buffer, 200);
      left.driver.post(
        left.queues,
        0,
        workRequest(OPCODE.SEND, [vector(right.queues.qpn), dataSegment(left.key, left.buffer, 100)]),
      );
      bus.run();
      assert.deepEqual(load(right.buffer + 40, 100), bytes);
      assert.equal(load(right.buffer, 40)[39], 2, 'last byte of the destination GID');
      const received = right.driver.completion(right.queues, 0);
      assert.equal(received.getUint32(44), 140);
      assert.equal(received.getUint32(24) & 0xffffff, left.queues.qpn, 'source queue pair');
    });

    it('lets others have their turn while a large group gets its copies', () => {
      setUp(SERVICE.UD);
      const group = Uint8Array.from({ length: 16 }, (_, index) => (index === 0 ? 0xff : index));
      const { eqn } = right.driver.createEq(3, 0n);
      const members = Array.from({ length: 70 }, () => {
        const queues = right.driver.createQp(SERVICE.UD, right.pd, eqn);
        right.driver.connect(queues, right.pd, 0, group);
        const input = new DataView(new ArrayBuffer(attachToMcgIn.sizeBytes));
        attachToMcgIn.set(input, 'qpn', queues.qpn);
        bytesOf(input).set(group, attachToMcgIn.byteOf('multicast_gid'));
        right.driver.run('ATTACH_TO_MCG', input);
        right.driver.postReceive(queues, 0, right.key, right.buffer, 200);
        return queues;
      });
      const to = vector(0xffffff);
      to.set(group, 32);
      left.driver.post(left.queues, 0, workRequest(OPCODE.SEND, [to, dataSegment(left.key, left.buffer, 100)]));
      const received = () =>
        members.filter((member) => opcodeOf(right.driver.completion(member, 0)) !== INVALID).length;
      bus.runOne();
      bus.runOne();
      const afterFirstTurn = received();
      assert.ok(afterFirstTurn > 0 && afterFirstTurn < 70, `${afterFirstTurn} copies in the first turn`);
      right.driver.runNumber('DESTROY_QP', members[69]!.qpn);
      bus.run();
      assert.equal(received(), 69, 'all but the one that left meanwhile');
    });

    it('hears its own multicasts unless it asked not to', () => {
      setUp(SERVICE.UD);
      const group = Uint8Array.from({ length: 16 }, (_, index) => (index === 0 ? 0xff : index));
      const { driver, pd, key, buffer } = left;
      const { eqn } = driver.createEq(3, 0n);
      const to = vector(0xffffff);
      to.set(group, 32);
      for (const block_lb_mc of [0, 1]) {
        const queues = driver.createQp(SERVICE.UD, pd, eqn, { block_lb_mc });
        driver.connect(queues, pd, 0, group);
        const input = new DataView(new ArrayBuffer(attachToMcgIn.sizeBytes));
        attachToMcgIn.set(input, 'qpn', queues.qpn);
        bytesOf(input).set(group, attachToMcgIn.byteOf('multicast_gid'));
        driver.run('ATTACH_TO_MCG', input);
        driver.postReceive(queues, 0, key, buffer, 200);
        driver.post(queues, 0, workRequest(OPCODE.SEND, [to, dataSegment(key, buffer, 100)]));
        bus.run();
        const entries = [0, 1].map((index) => opcodeOf(driver.completion(queues, index)));
        assert.equal(entries.filter((opcode) => opcode !== INVALID).length, block_lb_mc === 1 ? 1 : 2);
        driver.runNumber('DESTROY_QP', queues.qpn);
      }
    });

    it('drops what nobody has room for, and the sender goes on', () => {
      setUp(SERVICE.UD);
      left.driver.post(
        left.queues,
        0,
        workRequest(OPCODE.SEND, [vector(right.queues.qpn), dataSegment(left.key, left.buffer, 100)]),
      );
      bus.run();
      assert.equal(opcodeOf(left.driver.completion(left.queues, 0)), 0);
    });
  });
});

function swap(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value);
  return view.getUint32(0, true);
}

/** `struct mlx5_av` towards the second adapter. */
function vector(qpn: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(48));
  view.setUint32(0, 0x11111111);
  view.setUint32(8, (0x80000000 | qpn) >>> 0);
  view.setUint32(28, 0x40000000);
  const bytes = bytesOf(view);
  bytes.set([0xfe, 0x80], 32);
  bytes[47] = 2;
  return bytes;
}
