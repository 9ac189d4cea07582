import assert from 'node:assert/strict';
import { readSync } from 'node:fs';
import { closeFd } from '../../emulator/host/index.js';
import {
  COMMAND,
  DEVICE_INFO,
  decodeSparseMmap,
  IRQ_FLAG,
  IRQ_INFO,
  REGION_FLAG,
  REGION_INFO,
} from '../../emulator/vfio-user/messages.js';
import type { ReceivedMessage } from '../client.js';
import { accepted, deviceInfo, irqInfo, poke, type Row, raw, refused, regionInfo, succeed } from '../row.js';
import { BAR2_AREAS, BAR2_BYTES, BAR2_FD_OFFSET, BAR3_AREAS } from '../shape.js';
import type { Wire } from '../wire.js';

const { READ, WRITE, MMAP, CAPS } = REGION_FLAG;

function askRegion(wire: Wire, message: Buffer) {
  const reply = succeed(wire, message);
  const argsz = message.readUInt32LE(16);
  assert.ok(reply.sizeBytes <= 16 + argsz, 'more than the client has room for');
  return { reply, ...REGION_INFO.decode(reply.bytes) };
}

function assertBar2Complete(wire: Wire, message: Buffer): void {
  const { reply, ...info } = askRegion(wire, message);
  assert.equal(reply.sizeBytes, 96);
  assert.deepEqual(info, {
    argsz: 80,
    flags: READ | WRITE | MMAP | CAPS,
    index: 2,
    capabilityOffset: 32,
    sizeBytes: BAR2_BYTES,
    offset: BAR2_FD_OFFSET,
  });
  const capability = reply.bytes.subarray(REGION_INFO.sizeBytes);
  assert.deepEqual(
    [capability.readUInt16LE(0), capability.readUInt16LE(2), capability.readUInt32LE(4)],
    [1, 1, 0],
    'id, version, next',
  );
  assert.deepEqual(decodeSparseMmap(capability), BAR2_AREAS);
  takeFd(wire, reply);
}

/** Exactly one descriptor, of the memory that messages reach too. */
function takeFd(wire: Wire, reply: ReceivedMessage, region = 2): void {
  assert.equal(reply.fds.length, 1);
  const [fd] = reply.fds;
  const { offset: fdOffset } = REGION_INFO.decode(reply.bytes);
  const at = decodeSparseMmap(reply.bytes.subarray(REGION_INFO.sizeBytes))[0]!.offset;
  poke(wire, region, at, [0x12, 0x34, 0x56, 0x78]);
  const bytes = Buffer.alloc(4);
  assert.equal(readSync(fd!, bytes, 0, 4, fdOffset! + at), 4);
  assert.deepEqual([...bytes], [0x12, 0x34, 0x56, 0x78]);
  closeFd(fd!);
}

function sizeOf(region: number, sizeBytes: number) {
  return (wire: Wire) => {
    const { reply, ...info } = askRegion(wire, regionInfo({ index: region }));
    assert.equal(reply.fds.length, 0);
    const flags = sizeBytes === 0 ? 0 : READ | WRITE;
    assert.deepEqual(info, { argsz: 32, flags, index: region, capabilityOffset: 0, sizeBytes, offset: 0 });
  };
}

function assertDeviceInfo(message: Buffer) {
  return (wire: Wire) => {
    const reply = succeed(wire, message);
    assert.equal(reply.sizeBytes, 32);
    assert.deepEqual(DEVICE_INFO.decode(reply.bytes), { argsz: 16, flags: 3, regionCount: 9, irqCount: 5 });
  };
}

export const INFORMATION_ROWS: readonly Row[] = [
  { id: 'I-01', what: 'GET_INFO body of 8 bytes: EINVAL', run: refused(raw(COMMAND.DEVICE_GET_INFO, 8)) },
  { id: 'I-02', what: 'GET_INFO argsz 8: EINVAL', run: refused(deviceInfo({ argsz: 8 })) },
  {
    id: 'I-03',
    what: 'GET_INFO argsz 32: argsz 16, RESET|PCI, 9 regions, 5 irqs',
    run: assertDeviceInfo(deviceInfo({ argsz: 32 })),
  },
  { id: 'I-04', what: 'GET_INFO argsz 16: the same, 32 bytes', run: assertDeviceInfo(deviceInfo()) },
  { id: 'I-05', what: 'GET_REGION_INFO body of 8 bytes: EINVAL', run: refused(raw(COMMAND.DEVICE_GET_REGION_INFO, 8)) },
  { id: 'I-06', what: 'argsz 8: EINVAL', run: refused(regionInfo({ argsz: 8 })) },
  { id: 'I-07', what: 'region 9: EINVAL', run: refused(regionInfo({ index: 9 })) },
  {
    id: 'I-08',
    what: 'argsz 40 for BAR1: 32-byte body',
    run: (wire) => {
      const { reply, argsz, sizeBytes, offset, flags } = askRegion(wire, regionInfo({ argsz: 40, index: 1 }));
      assert.deepEqual([reply.sizeBytes, argsz, sizeBytes, offset, flags], [48, 32, 4096, 0, READ | WRITE]);
    },
  },
  {
    id: 'I-09',
    what: 'argsz 32 for BAR2: needed argsz 80, no CAPS, no capability',
    run: (wire) => {
      const { reply, ...info } = askRegion(wire, regionInfo({ index: 2 }));
      assert.deepEqual(info, {
        argsz: 80,
        flags: READ | WRITE | MMAP,
        index: 2,
        capabilityOffset: 0,
        sizeBytes: BAR2_BYTES,
        offset: BAR2_FD_OFFSET,
      });
      assert.equal(reply.sizeBytes, 48);
      assert.equal(reply.fds.length, 0, 'libvfio-user sends the descriptor here too; QEMU closes it');
    },
  },
  {
    id: 'I-10',
    what: 'argsz 80 for BAR2: sparse-mmap capability and exactly one fd',
    run: (wire) => assertBar2Complete(wire, regionInfo({ argsz: 80, index: 2 })),
  },
  {
    id: 'I-11',
    what: 'the same with the request padded to 80',
    run: (wire) => assertBar2Complete(wire, regionInfo({ argsz: 80, index: 2 }, 48)),
  },
  {
    id: 'I-12',
    what: "the same, QEMU's way: a request of 48 bytes",
    run: (wire) => {
      const message = regionInfo({ argsz: 80, index: 2 });
      assert.equal(message.length, 48);
      assertBar2Complete(wire, message);
    },
  },
  {
    id: 'I-13',
    what: 'BAR3 with 9 areas: argsz 192',
    run: (wire) => {
      assert.equal(askRegion(wire, regionInfo({ index: 3 })).argsz, 192);
      const { reply } = askRegion(wire, regionInfo({ argsz: 192, index: 3 }));
      assert.deepEqual(decodeSparseMmap(reply.bytes.subarray(REGION_INFO.sizeBytes)), BAR3_AREAS);
      takeFd(wire, reply, 3);
    },
  },
  { id: 'I-14', what: 'unconfigured BAR0: OK, all 0, no fd', run: sizeOf(0, 0) },
  { id: 'I-15', what: 'config region: 4096, R|W, no MMAP', run: sizeOf(7, 4096) },
  { id: 'I-16', what: 'VGA region: OK, size 0', run: sizeOf(8, 0) },
  {
    id: 'I-17',
    what: 'BARs of 4 and 8 GiB: exact sizes',
    variant: { largeBars: true },
    run: (wire) => {
      sizeOf(2, 4 * 2 ** 30)(wire);
      sizeOf(4, 8 * 2 ** 30)(wire);
    },
  },
  {
    id: 'I-18',
    what: 'the same query twice: identical',
    run: (wire) => {
      const ask = () => succeed(wire, regionInfo({ argsz: 32, index: 3 })).bytes;
      assert.deepEqual(ask(), ask());
    },
  },
  {
    id: 'I-19',
    what: 'argsz 0xffffffff: OK, no huge allocation',
    run: (wire) => {
      const { reply } = askRegion(wire, regionInfo({ argsz: 0xffffffff, index: 2 }));
      assert.equal(reply.sizeBytes, 96);
      takeFd(wire, reply);
    },
  },
  { id: 'I-20', what: 'GET_IRQ_INFO body of 8 bytes: EINVAL', run: refused(raw(COMMAND.DEVICE_GET_IRQ_INFO, 8)) },
  { id: 'I-21', what: 'argsz 8: EINVAL', run: refused(irqInfo({ argsz: 8 })) },
  { id: 'I-22', what: 'index 5: EINVAL', run: refused(irqInfo({ index: 5 })) },
  {
    id: 'I-23',
    what: 'argsz 32: OK, argsz 16',
    run: (wire) => {
      const reply = succeed(wire, irqInfo({ argsz: 32 }));
      assert.deepEqual([reply.sizeBytes, IRQ_INFO.decode(reply.bytes).argsz], [32, 16]);
    },
  },
  {
    id: 'I-24',
    what: 'counts 1, 0, 2048, 1, 1; EVENTFD; INTx MASKABLE|AUTOMASKED; never NORESIZE',
    run: (wire) => {
      const found = [0, 1, 2, 3, 4].map((index) => {
        const { flags, count } = IRQ_INFO.decode(succeed(wire, irqInfo({ index })).bytes);
        return [flags, count];
      });
      const { EVENTFD, MASKABLE, AUTOMASKED } = IRQ_FLAG;
      assert.deepEqual(found, [
        [EVENTFD | MASKABLE | AUTOMASKED, 1],
        [EVENTFD, 0],
        [EVENTFD, 2048],
        [EVENTFD, 1],
        [EVENTFD, 1],
      ]);
    },
  },
];

export const IO_FDS_ROWS: readonly Row[] = [
  { id: 'X-01', what: 'IO_FDS flags 1: EINVAL', run: refused(ioFds(16, 1, 1, 0)) },
  { id: 'X-02', what: 'IO_FDS count 1: EINVAL', run: refused(ioFds(16, 0, 1, 1)) },
  {
    id: 'X-03',
    what: 'IO_FDS argsz 15 or above 1 MiB: EINVAL',
    run: (wire) => {
      refused(ioFds(15, 0, 1, 0))(wire);
      refused(ioFds(1024 * 1024 + 1, 0, 1, 0))(wire);
    },
  },
  {
    id: 'X-04',
    what: 'IO_FDS of an unset region, of region 512: EINVAL',
    run: (wire) => {
      refused(ioFds(16, 0, 0, 0))(wire);
      refused(ioFds(16, 0, 512, 0))(wire);
    },
  },
  {
    id: 'X-05',
    what: 'IO_FDS of a region without fds: OK, argsz 16, count 0',
    run: (wire) => {
      const request = ioFds(1024, 0, 1, 0);
      const reply = succeed(wire, request);
      assert.deepEqual([...reply.bytes.subarray(16)], [16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
      accepted(ioFds(16, 0, 7, 0))(wire);
    },
  },
  {
    id: 'X-06',
    what: 'argsz too small for the entries',
    rejected: 'no region has ioeventfds: QEMU never asks for them (vfio-user.md §2.15), so there are no entries',
  },
  { id: 'X-07', what: 'duplicate fds sent once', rejected: 'no region has ioeventfds, see X-06' },
];

function ioFds(argsz: number, flags: number, index: number, count: number): Buffer {
  const payload = Buffer.alloc(16);
  for (const [i, value] of [argsz, flags, index, count].entries()) payload.writeUInt32LE(value, i * 4);
  return raw(COMMAND.DEVICE_GET_REGION_IO_FDS, payload);
}
