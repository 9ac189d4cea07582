import assert from 'node:assert/strict';
import { encodeWriteMulti, FLAG, REGION_ACCESS, WRITE_MULTI } from '../../emulator/vfio-user/messages.js';
import { assertInSync, fail, peek, poke, type Row, raw, readRegion, refused, succeed, writeRegion } from '../row.js';
import { BAR1_BYTES, BAR2_FD_OFFSET, REFUSING_REGISTER, THROWING_REGISTER } from '../shape.js';
import type { Wire } from '../wire.js';

const MIB = 1024 * 1024;
const ID = 0x2b;

/** A region message whose fields contradict its size. */
function inconsistentWrite(count: number, dataBytes: number): Buffer {
  return REGION_ACCESS.encode(ID, 10, { region: 1, offset: 0, count }, { data: new Uint8Array(dataBytes) });
}

function multi(count: number, data: Uint8Array, flags = 0): Buffer {
  const entries = Array.from({ length: count }, (_, i) => ({ region: 1, offset: (i * 8) % BAR1_BYTES, data }));
  return encodeWriteMulti(ID, entries, flags);
}

function assertUntouched(wire: Wire): void {
  assert.ok(peek(wire, 1, 0, BAR1_BYTES).every((byte) => byte === 0));
}

export const REGION_ACCESS_ROWS: readonly Row[] = [
  {
    id: 'A-01',
    what: 'READ at 2^64-1: EINVAL',
    run: (wire) => {
      const message = readRegion(1, 0, 256);
      message.fill(0xff, 16, 24);
      refused(message)(wire);
    },
  },
  { id: 'A-02', what: 'READ one byte beyond the end: EINVAL', run: refused(readRegion(1, BAR1_BYTES - 3, 4)) },
  {
    id: 'A-03',
    what: 'READ of 1 MiB + 8: EINVAL',
    variant: { largeBars: true },
    run: (wire) => {
      refused(readRegion(2, 0, MIB + 8))(wire);
      assert.equal(peek(wire, 2, 0, MIB).length, MIB);
    },
  },
  { id: 'A-04', what: 'WRITE body of 8 bytes: EINVAL', run: refused(raw(10, 8)) },
  {
    id: 'A-05',
    what: 'WRITE count is not the length of the data: EINVAL',
    run: (wire) => {
      refused(inconsistentWrite(4, 3))(wire);
      refused(inconsistentWrite(4, 5))(wire);
      assertUntouched(wire);
    },
  },
  { id: 'A-06', what: 'region 0xdeadbeef: EINVAL', run: refused(readRegion(0xdeadbeef, 0, 4)) },
  { id: 'A-07', what: 'region 9: EINVAL', run: refused(readRegion(9, 0, 4)) },
  {
    id: 'A-08',
    what: 'READ count 0: OK, 32-byte head',
    run: (wire) => {
      assert.equal(succeed(wire, readRegion(1, 0, 0)).sizeBytes, 32);
      assert.equal(succeed(wire, readRegion(1, BAR1_BYTES, 0)).sizeBytes, 32);
    },
  },
  { id: 'A-09', what: 'WRITE count 0: OK', run: (wire) => void succeed(wire, writeRegion(1, 0, [])) },
  {
    id: 'A-10',
    what: 'access to a region of size 0: EINVAL',
    run: (wire) => {
      for (const region of [0, 6, 8]) refused(readRegion(region, 0, 4))(wire);
      refused(readRegion(0, 0, 0))(wire);
    },
  },
  {
    id: 'A-11',
    what: 'the model answers with fewer bytes',
    rejected: 'VfioDevice fills the whole range by contract: there is no count to be short',
  },
  {
    id: 'A-12',
    what: "the model throws: EIO or the error's errno, connection stays, logged with place, value and stack",
    inside: (bench) => {
      fail(bench, readRegion(1, THROWING_REGISTER, 4), 'EIO');
      fail(bench, writeRegion(1, THROWING_REGISTER, [1, 2, 3, 4]), 'EIO');
      fail(bench, readRegion(1, REFUSING_REGISTER, 4), 'EPERM');
      assertInSync(bench);
      const [read, write] = bench.logged.filter(({ level }) => level === 'error').map(({ fields }) => fields!);
      assert.deepEqual([read?.region, read?.offset, read?.value], [1, THROWING_REGISTER, undefined]);
      assert.deepEqual([write?.region, write?.offset, write?.value], [1, THROWING_REGISTER, '01020304']);
      assert.match(`${write?.stack}`, /this register has a bug[\s\S]*fixture-device/);
    },
  },
  {
    id: 'A-13',
    what: 'READ of a mappable area by message: what the file holds',
    inside: (bench) => {
      bench.device.memory.writeU32(BAR2_FD_OFFSET + 0x4ffc, 0x04030201);
      assert.deepEqual([...peek(bench, 2, 0x4ffc, 4)], [1, 2, 3, 4]);
      poke(bench, 2, 0x5000, [5, 0, 0, 0]);
      assert.equal(bench.device.memory.readU32(BAR2_FD_OFFSET + 0x5000), 5);
    },
  },
  {
    id: 'A-14',
    what: '1, 2, 4, 8 bytes: little-endian round trip',
    run: (wire) => {
      poke(wire, 1, 0x40, [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
      assert.equal(peek(wire, 1, 0x40, 8).readBigUInt64LE(), 0x8877665544332211n);
      assert.equal(peek(wire, 1, 0x44, 4).readUInt32LE(), 0x88776655);
      assert.equal(peek(wire, 1, 0x42, 2).readUInt16LE(), 0x4433);
      assert.equal(peek(wire, 1, 0x47, 1).readUInt8(), 0x88);
      for (const length of [1, 2, 4]) poke(wire, 1, 0x40, new Uint8Array(length).fill(length));
      assert.equal(peek(wire, 1, 0x40, 8).readBigUInt64LE(), 0x8877665504040404n);
    },
  },
  {
    id: 'A-15',
    what: '3 bytes, 5 bytes, unaligned: passed to the device as they are',
    run: (wire) => {
      poke(wire, 1, 0x41, [1, 2, 3]);
      poke(wire, 1, 0x45, [4, 5, 6, 7, 8]);
      assert.deepEqual([...peek(wire, 1, 0x40, 11)], [0, 1, 2, 3, 0, 4, 5, 6, 7, 8, 0]);
    },
  },
  {
    id: 'A-16',
    what: 'READ reply: exactly 32 + count, head echoed',
    run: (wire) => {
      for (const count of [0, 1, 7, 8, 9, 64, BAR1_BYTES]) {
        const message = readRegion(1, 0, count);
        const { bytes, sizeBytes } = succeed(wire, message);
        assert.equal(sizeBytes, 32 + count);
        assert.deepEqual(bytes.subarray(16, 32), message.subarray(16, 32));
      }
    },
  },
  {
    id: 'A-17',
    what: 'WRITE reply: 32 bytes, head echoed',
    run: (wire) => {
      const message = writeRegion(1, 0x18, [1, 2, 3, 4]);
      const { bytes, sizeBytes } = succeed(wire, message);
      assert.equal(sizeBytes, 32);
      assert.deepEqual(bytes.subarray(16), message.subarray(16, 32));
    },
  },
  {
    id: 'A-18',
    what: 'config READ of 0..4096 in one message',
    run: (wire) => assert.equal(peek(wire, 7, 0, 4096).readUInt32LE(), 0x56781234),
  },
  {
    id: 'A-19',
    what: 'ROM READ of the whole size; writes are refused',
    variant: { rom: true },
    run: (wire) => {
      assert.ok(peek(wire, 6, 0, 0x10000).every((byte) => byte === 0x55));
      refused(writeRegion(6, 0, [1]))(wire);
    },
  },
  {
    id: 'A-20',
    what: 'WRITE_MULTI of 200 entries, NO_REPLY: all executed in order',
    run: (wire) => {
      const entries = Array.from({ length: 200 }, (_, i) => ({
        region: 1,
        offset: Math.floor(i / 2) * 4,
        data: Uint8Array.of(i, i),
      }));
      wire.client.send(encodeWriteMulti(ID, entries, FLAG.NO_REPLY));
      const registers = peek(wire, 1, 0, 400);
      for (let i = 1; i < 200; i += 2) assert.equal(registers.readUInt16LE((i >> 1) * 4), i * 0x101);
    },
  },
  {
    id: 'A-21',
    what: 'WRITE_MULTI with more entries than it has, or than 200: EINVAL, nothing executed',
    run: (wire) => {
      const short = multi(3, Uint8Array.of(1));
      short.writeUInt32LE(4, 16);
      refused(short)(wire);
      const absurd = multi(3, Uint8Array.of(1));
      absurd.fill(0xff, 16, 24);
      refused(absurd)(wire);
      refused(multi(201, Uint8Array.of(1)))(wire);
      assertUntouched(wire);
    },
  },
  {
    id: 'A-22',
    what: 'WRITE_MULTI entry longer than 8, or outside its region: EINVAL, nothing executed',
    run: (wire) => {
      const long = multi(2, Uint8Array.of(1));
      long.writeUInt32LE(9, WRITE_MULTI.sizeBytes + 24 + 12);
      refused(long)(wire);
      const data = Uint8Array.of(1, 2);
      const outside = [
        { region: 1, offset: 0, data },
        { region: 1, offset: BAR1_BYTES - 1, data },
      ];
      refused(encodeWriteMulti(ID, outside))(wire);
      assertUntouched(wire);
    },
  },
  {
    id: 'A-23',
    what: 'WRITE_MULTI with a reply: count echoed',
    run: (wire) => {
      const { bytes, sizeBytes } = succeed(wire, multi(5, Uint8Array.of(7)));
      assert.deepEqual([sizeBytes, WRITE_MULTI.decode(bytes).count], [24, 5]);
    },
  },
];

export const FEATURE_ROWS: readonly Row[] = (
  [
    ['F-01', 'FEATURE body one byte short', 7],
    ['F-02', 'SET on MIGRATION', feature(1, SET())],
    ['F-03', 'PROBE with argsz 2', feature(1, PROBE(), 2)],
    ['F-04', 'GET MIGRATION with argsz 8', feature(1, GET(), 8)],
    ['F-05', 'GET DMA_LOGGING_REPORT one short', feature(8, GET(), 31)],
    ['F-06', 'SET MIG_STATE with argsz 8', feature(2, SET(), 8)],
    ['F-07', 'PROBE MIGRATION', feature(1, PROBE())],
    ['F-08', 'PROBE|GET|SET MIGRATION', feature(1, PROBE() | GET() | SET())],
    ['F-09', 'GET MIGRATION', feature(1, GET())],
    ['F-10', 'unknown feature, feature 11 (dma-buf)', feature(11, GET())],
  ] as const
).map(([id, what, payload]) => ({
  id,
  what: `${what}: EINVAL`,
  rejected: 'no device feature is offered: migration is not implemented, and QEMU takes EINVAL for "not supported"',
  run: refused(raw(16, payload)),
}));

function GET(): number {
  return 1 << 16;
}
function SET(): number {
  return 1 << 17;
}
function PROBE(): number {
  return 1 << 18;
}

/** linux/vfio.h struct vfio_device_feature with 16 bytes of data. */
function feature(number: number, flags: number, argsz = 24): Buffer {
  const payload = Buffer.alloc(24);
  payload.writeUInt32LE(argsz, 0);
  payload.writeUInt32LE(flags | number, 4);
  return payload;
}
