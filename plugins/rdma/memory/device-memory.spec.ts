import assert from 'node:assert/strict';
import { BAR0 } from '../bar0.js';
import { allocMemicIn, allocMemicOut, createMkeyIn, deallocMemicIn } from '../layouts/commands.js';
import { mkc } from '../layouts/contexts.js';
import { SERVICE } from '../queues/queue-pair.js';
import { OPCODE } from '../queues/work-queue-entry.js';
import { type Answer, dataSegment, remoteSegment, type TestDriver, twoDrivers, workRequest } from '../test/driver.js';
import { DEVICE_MEMORY_BYTES, MAX_ALLOCATION_BYTES } from './device-memory.js';

const PAGE_BYTES = 4096;

function allocate(driver: TestDriver, page: number, sizeBytes: number): Answer {
  const input = new DataView(new ArrayBuffer(allocMemicIn.sizeBytes));
  allocMemicIn.set64(input, 'range_start_addr', BigInt(BAR0.memory.offset + page * PAGE_BYTES));
  allocMemicIn.fill(input, { range_size: Math.ceil(sizeBytes / PAGE_BYTES) * PAGE_BYTES, memic_size: sizeBytes });
  return driver.command('ALLOC_MEMIC', input);
}

function free(driver: TestDriver, page: number): Answer {
  const input = new DataView(new ArrayBuffer(deallocMemicIn.sizeBytes));
  deallocMemicIn.set64(input, 'memic_start_addr', BigInt(BAR0.memory.offset + page * PAGE_BYTES));
  return driver.command('DEALLOC_MEMIC', input);
}

/** A key of access mode 5, as `mlx5_ib_get_dm_mr` makes it. */
function createKey(driver: TestDriver, pd: number, page: number, lengthBytes: number): number {
  const input = new DataView(new ArrayBuffer(0x110));
  const context = createMkeyIn.part(input, 'memory_key_mkey_entry');
  const rights = { lr: 1, lw: 1, rr: 1, rw: 1, a: 1, pd, qpn: 0xffffff };
  mkc.fill(context, { ...rights, access_mode_1_0: 1, access_mode_4_2: 1 });
  mkc.set64(context, 'start_addr', BigInt(BAR0.memory.offset + page * PAGE_BYTES));
  mkc.set64(context, 'len', BigInt(lengthBytes));
  return driver.run('CREATE_MKEY', input).number << 8;
}

describe('device memory', () => {
  it('is handed out by the page, once, and zeroed for the next', () => {
    const { a } = twoDrivers();
    const { status, output } = allocate(a, 2, 5000);
    assert.equal(status, 0);
    assert.equal(allocMemicOut.get64(output, 'memic_start_addr'), BigInt(BAR0.memory.offset + 2 * PAGE_BYTES));
    assert.notEqual(allocate(a, 3, 64).status, 0, 'in use');
    assert.notEqual(allocate(a, 0, MAX_ALLOCATION_BYTES + 64).status, 0, 'too much at once');
    assert.notEqual(allocate(a, DEVICE_MEMORY_BYTES / PAGE_BYTES, 64).status, 0, 'behind the end');
    assert.equal(free(a, 2).status, 0);
    assert.notEqual(free(a, 2).status, 0, 'twice');
    assert.equal(allocate(a, 3, 64).status, 0);
  });

  it('is reached through keys: written, read, added to, and not beyond what was allocated', () => {
    const { a, b, bus, gids } = twoDrivers();
    const [left, right] = [a, b].map((driver) => {
      const { eqn } = driver.createEq(1, 0n);
      const pd = driver.run('ALLOC_PD').number;
      const queues = driver.createQp(SERVICE.RC, pd, eqn);
      return { driver, pd, queues, key: driver.createPhysicalKey(pd), buffer: driver.allocate(8192) };
    }) as unknown as [Side, Side];
    a.connect(left.queues, left.pd, right.queues.qpn, gids[1]);
    b.connect(right.queues, right.pd, left.queues.qpn, gids[0]);
    allocate(b, 1, 4096);
    const key = createKey(b, right.pd, 1, 4096);
    let next = 0;
    const post = (opcode: number, at: number, ...segments: Uint8Array[]): number => {
      const before = next;
      next = a.post(left.queues, next, workRequest(opcode, [remoteSegment(key, at), ...segments]));
      bus.run();
      const cqe = a.completion(left.queues, completions++);
      return before >= 0 && cqe.getUint8(63) >>> 4 === 0 ? 0 : cqe.getUint8(55);
    };
    let completions = 0;
    const bytes = Uint8Array.from({ length: 4000 }, (_, index) => (index * 5) & 0xff);
    bus.guestMemory.write(left.buffer, bytes);
    assert.equal(post(OPCODE.RDMA_WRITE, 96, dataSegment(left.key, left.buffer, 4000)), 0);
    assert.equal(post(OPCODE.RDMA_READ, 96, dataSegment(left.key, left.buffer + 4096, 4000)), 0);
    const read = new Uint8Array(4000);
    bus.guestMemory.read(left.buffer + 4096, read);
    assert.deepEqual(read, bytes);
    const operands = new Uint8Array(16);
    operands[7] = 3;
    assert.equal(post(OPCODE.ATOMIC_FETCH_ADD, 0, operands, dataSegment(left.key, left.buffer, 8)), 0);
    assert.equal(post(OPCODE.ATOMIC_FETCH_ADD, 0, operands, dataSegment(left.key, left.buffer, 8)), 0);
    assert.equal(a.memory.getBigUint64(left.buffer, true), 3n);
    assert.notEqual(post(OPCODE.RDMA_WRITE, 97, dataSegment(left.key, left.buffer, 4000)), 0, 'a byte too far');
  });
});

interface Side {
  readonly pd: number;
  readonly queues: ReturnType<TestDriver['createQp']>;
  readonly key: number;
  readonly buffer: number;
}
