import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { SERVICE } from '../queues/queue-pair.js';
import { OPCODE } from '../queues/work-queue-entry.js';
import {
  dataSegment,
  remoteSegment,
  type TestDriver,
  type TestQueues,
  twoDrivers,
  workRequest,
} from '../test/driver.js';
import { WireFaults } from './faults.js';

/** mtu code 3 of the test driver. */
const MTU = 1024;

describe('wire', () => {
  function connected(options: Record<string, unknown> = {}) {
    const two = twoDrivers(options);
    const ends = [two.a, two.b].map((driver) => {
      const { eqn } = driver.createEq(1, 0n);
      const pd = driver.run('ALLOC_PD').number;
      const key = driver.createPhysicalKey(pd);
      return { driver, pd, key, queues: driver.createQp(SERVICE.RC, pd, eqn), buffer: driver.allocate(16384) };
    });
    const [left, right] = ends as [(typeof ends)[0], (typeof ends)[0]];
    left.driver.connect(left.queues, left.pd, right.queues.qpn, two.gids[1]);
    right.driver.connect(right.queues, right.pd, left.queues.qpn, two.gids[0]);
    return { ...two, left, right };
  }

  function sendOne(
    from: { driver: TestDriver; queues: TestQueues; key: number; buffer: number },
    lengthBytes: number,
  ): void {
    from.driver.post(from.queues, 0, workRequest(OPCODE.SEND, [dataSegment(from.key, from.buffer, lengthBytes)]));
  }

  it('brings a reliable message over in bad weather, byte for byte', () => {
    const { bus, left, right } = connected();
    left.driver.control('wire-faults', {
      loss: 0.2,
      corruption: 0.1,
      duplication: 0.1,
      reordering: 0.1,
      seed: 7,
    });
    const bytes = Uint8Array.from({ length: 10_000 }, (_, index) => index & 0xff);
    bus.guestMemory.write(left.buffer, bytes);
    right.driver.postReceive(right.queues, 0, right.key, right.buffer, 16384);
    sendOne(left, bytes.length);
    for (let count = 0; count < 100; count++) {
      bus.run();
      bus.clock.advance(5);
    }
    const received = new Uint8Array(bytes.length);
    bus.guestMemory.read(right.buffer, received);
    assert.deepEqual(received, bytes);
    assert.equal(left.driver.completion(left.queues, 0).getUint8(63) >>> 4, 0);
    assert.ok(left.driver.model.wireFaults.counts.lost > 0);
  });

  it('gives up when nothing arrives at all', () => {
    const { bus, left, right } = connected();
    left.driver.control('wire-faults', { loss: 1 });
    right.driver.postReceive(right.queues, 0, right.key, right.buffer, 16384);
    sendOne(left, 10);
    for (let count = 0; count < 20; count++) {
      bus.run();
      bus.clock.advance(10);
    }
    assert.equal(left.driver.completion(left.queues, 0).getUint8(55), 0x15);
  });

  it('repeats the same weather from the same seed', () => {
    const [first, second] = [new WireFaults(), new WireFaults()];
    const rates = { loss: 0.25, corruption: 0.25, duplication: 0.25, reordering: 0.25 };
    first.set(rates, 42);
    second.set(rates, 42);
    const fates = Array.from({ length: 1000 }, () => first.draw());
    assert.deepEqual(
      Array.from({ length: 1000 }, () => second.draw()),
      fates,
    );
    assert.ok(new Set(fates).size === 4, 'every kind of weather');
  });

  it('stops carrying anything while the cable is out', () => {
    const { bus, left, right } = connected();
    right.driver.control('link', { state: 'down' });
    sendOne(left, 10);
    bus.run();
    assert.equal(left.driver.completion(left.queues, 0).getUint8(63) >>> 4, 0xf, 'still waiting');
  });

  it('writes RoCEv2 frames that a capture tool can read, with valid invariant CRCs', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ghostbus-pcap-'));
    try {
      const path = join(folder, 'wire.pcap');
      const { bus, left, right } = connected({ pcap: path });
      right.driver.postReceive(right.queues, 0, right.key, right.buffer, 16384);
      sendOne(left, 2 * MTU + 1);
      bus.run();
      const frames = readCapture(readFileSync(path));
      // BTH opcodes: send first, middle, last; acknowledge.
      assert.deepEqual(
        frames.map((frame) => frame[62]),
        [0x00, 0x01, 0x02, 0x11],
      );
      assert.deepEqual(
        frames.map((frame) => new DataView(frame.buffer, frame.byteOffset).getUint16(56)),
        [4791, 4791, 4791, 4791],
      );
      for (const frame of frames)
        assert.equal(
          invariantCrc(frame),
          new DataView(frame.buffer, frame.byteOffset + frame.length - 4).getUint32(0, true),
        );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('records atomic operations with what they found', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ghostbus-pcap-'));
    try {
      const path = join(folder, 'wire.pcap');
      const { bus, left, right } = connected({ pcap: path });
      left.driver.memory.setBigUint64(right.buffer, 41n, true);
      const operands = new Uint8Array(16);
      new DataView(operands.buffer).setBigUint64(0, 5n);
      const place = [remoteSegment(right.key, right.buffer), operands, dataSegment(left.key, left.buffer, 8)];
      left.driver.post(left.queues, 0, workRequest(OPCODE.ATOMIC_FETCH_ADD, place));
      bus.run();
      const [request, answer, ...others] = readCapture(readFileSync(path)).map((frame) => new DataView(frame.buffer));
      assert.deepEqual([request!.getUint8(62), answer!.getUint8(62), others.length], [0x14, 0x12, 0]);
      assert.equal(request!.getBigUint64(74), BigInt(right.buffer));
      assert.equal(request!.getBigUint64(86), 5n);
      assert.equal(answer!.getBigUint64(78), 41n);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

/** Frames of a classic capture file with nanoseconds. */
function readCapture(file: Buffer): Uint8Array[] {
  assert.equal(file.readUInt32LE(0), 0xa1b23c4d);
  assert.equal(file.readUInt32LE(20), 1, 'Ethernet');
  const frames: Uint8Array[] = [];
  for (let at = 24; at < file.length; ) {
    const length = file.readUInt32LE(at + 8);
    frames.push(new Uint8Array(file.subarray(at + 16, at + 16 + length)));
    at += 16 + length;
  }
  return frames;
}

/** RoCEv2 over IPv6: traffic class, flow label, hop limit, UDP checksum and BTH's reserved byte count as ones. */
function invariantCrc(frame: Uint8Array): number {
  const covered = new Uint8Array([...new Array(8).fill(0xff), ...frame.subarray(14, frame.length - 4)]);
  covered[8] = covered[8]! | 0x0f;
  for (const at of [9, 10, 11, 15, 8 + 46, 8 + 47, 8 + 52]) covered[at] = 0xff;
  return crc32(covered) >>> 0;
}
