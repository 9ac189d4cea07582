import assert from 'node:assert/strict';
import { swap32 } from '../layouts/byte-order.js';
import { createSqIn, modifySqIn } from '../layouts/commands.js';
import { sqc, wq } from '../layouts/contexts.js';
import { subview } from '../layouts/layout.js';
import { OPCODE } from '../queues/work-queue-entry.js';
import { dataSegment, type TestDriver, twoDrivers, workRequest } from '../test/driver.js';
import { WQ_STATE } from './work-queue-state.js';

/** Ethernet, IPv4 and TCP headers of a frame to the second adapter. */
const HEADERS = [
  ...[0x02, 0x67, 0x62, 0, 0, 0x10, 0x02, 0x67, 0x62, 0, 0, 0, 0x08, 0x00],
  ...[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
  ...[0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 0, 64, 0, 0, 0, 0],
];
const RING_LOG = 4;
/** `struct mlx5_wqe_eth_seg`, behind the control segment. */
const ETHERNET_SEGMENT = { MSS: 6, INLINE_SIZE: 12, INLINE: 14 } as const;

interface Sq {
  readonly sqn: number;
  readonly ring: number;
  readonly record: number;
  readonly cq: number;
  readonly key: number;
  readonly payload: number;
}

function createSq(driver: TestDriver, payloadBytes: number): Sq {
  const { eqn } = driver.createEq(1, 0n);
  const { cqn, cq } = driver.createCq(eqn);
  const pd = driver.run('ALLOC_PD').number;
  const key = driver.createPhysicalKey(pd);
  const [ring, record] = [driver.allocate(64 << RING_LOG), driver.allocate(64)];
  const start = createSqIn.byteOf('ctx');
  const input = new DataView(new ArrayBuffer(start + sqc.byteOf('wq') + wq.byteOf('pas') + 8));
  const context = subview(input, start);
  sqc.set(context, 'cqn', cqn);
  const queue = subview(context, sqc.byteOf('wq'));
  wq.fill(queue, { pd, log_wq_sz: RING_LOG, log_wq_stride: 6, wq_type: 1 });
  wq.set64(queue, 'dbr_addr', BigInt(record));
  queue.setBigUint64(wq.byteOf('pas'), BigInt(ring));
  const sqn = driver.run('CREATE_SQ', input).number;
  setState(driver, sqn, WQ_STATE.READY);
  return { sqn, ring, record, cq, key, payload: driver.allocate(payloadBytes) };
}

function setState(driver: TestDriver, sqn: number, state: number): void {
  const input = new DataView(new ArrayBuffer(modifySqIn.byteOf('ctx') + sqc.sizeBytes));
  input.setUint32(8, sqn);
  sqc.set(subview(input, modifySqIn.byteOf('ctx')), 'state', state);
  driver.run('MODIFY_SQ', input);
}

/** Posts one segmented send as the first entry, and rings. */
function postLargeSend(driver: TestDriver, sq: Sq, segmentBytes: number, lengthBytes: number): void {
  const segment = new Uint8Array(Math.ceil((ETHERNET_SEGMENT.INLINE + HEADERS.length) / 16) * 16);
  const view = new DataView(segment.buffer);
  view.setUint16(ETHERNET_SEGMENT.MSS, segmentBytes);
  view.setUint16(ETHERNET_SEGMENT.INLINE_SIZE, HEADERS.length);
  segment.set(HEADERS, ETHERNET_SEGMENT.INLINE);
  const entry = workRequest(OPCODE.LSO, [segment, dataSegment(sq.key, sq.payload, lengthBytes)]);
  driver.bus.guestMemory.write(sq.ring, entry);
  driver.memory.setUint32(sq.record + 4, Math.ceil(entry.length / 64));
  driver.fn.write(0, 0x10800, swap32(0));
  driver.fn.write(0, 0x10804, swap32(sq.sqn << 8));
}

function framesOf(driver: TestDriver): number {
  return driver.adapter.counters.traffic('transmitted_eth_unicast').packets;
}

const opcodeOf = (driver: TestDriver, sq: Sq): number => driver.completion(sq, 0).getUint8(63) >>> 4;
const NOTHING = 0xf;

describe('Ethernet send queue', () => {
  it('cuts a large send into frames over several turns, and completes once', () => {
    const { a, bus } = twoDrivers();
    const sq = createSq(a, 65_536);
    postLargeSend(a, sq, 100, 60_000);
    bus.runOne();
    bus.runOne();
    assert.ok(framesOf(a) > 0 && framesOf(a) < 600, `${framesOf(a)} frames in the first turn`);
    assert.equal(opcodeOf(a, sq), NOTHING, 'not complete yet');
    bus.run();
    assert.equal(framesOf(a), 600);
    assert.equal(opcodeOf(a, sq), 0);
    assert.equal(a.completion(sq, 1).getUint8(63) >>> 4, NOTHING);
  });

  it('sends no more of it once the driver has reset the queue', () => {
    const { a, bus } = twoDrivers();
    const sq = createSq(a, 65_536);
    postLargeSend(a, sq, 100, 60_000);
    bus.runOne();
    bus.runOne();
    const before = framesOf(a);
    a.memory.setUint32(sq.record + 4, 0);
    // The command waits its turn behind the frames.
    setState(a, sq.sqn, WQ_STATE.RESET);
    bus.run();
    assert.ok(framesOf(a) < 600 && framesOf(a) >= before);
    assert.equal(opcodeOf(a, sq), NOTHING);
  });
});
