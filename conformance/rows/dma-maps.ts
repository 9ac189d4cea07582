import assert from 'node:assert/strict';
import { openFdCount, socketPair } from '../../emulator/host/index.js';
import type { DmaMap } from '../../emulator/memory/dma-space.js';
import { COMMAND, FLAG } from '../../emulator/vfio-user/messages.js';
import type { Bench } from '../bench.js';
import { assertInSync, dmaMap, dmaUnmap, fail, type Row, raw, refused, refusedWithFds, succeed } from '../row.js';
import { DMA_MAP_LIMIT, PAGE } from '../shape.js';
import type { Wire } from '../wire.js';

const TIB = 2 ** 40;
const UNMAP_ALL = 2;
const DIRTY_BITMAP = 1;

/** A memfd of 16 pages, mapped page by page from `base` on; returns it. */
function mapPages(wire: Wire, base: number, count: number): number {
  const fd = wire.memfd(16 * PAGE);
  for (let i = 0; i < count; i++) {
    succeed(wire, dmaMap({ address: base + i * PAGE, offset: (i % 16) * PAGE, sizeBytes: PAGE }), [fd]);
  }
  return fd;
}

function lookup(bench: Bench, address: number): DmaMap | undefined {
  return bench.device.dmaSpace.lookup(address);
}

/** Writes where the map of `address` leads. */
function dmaStore(bench: Bench, address: number, value: number): void {
  const map = lookup(bench, address);
  assert.equal(map?.kind, 'guest-memory');
  map.memory.writeU32(map.memoryOffset + (address - map.start), value);
}

/** One page at 0x10000 of `fd`, page 1 of the file. */
const FIRST = { address: 0x10000, offset: PAGE, sizeBytes: PAGE };

function withFirstMap(check: (bench: Bench, fd: number) => void) {
  return (bench: Bench) => {
    const fd = bench.memfd(4 * PAGE);
    succeed(bench, dmaMap(FIRST), [fd]);
    check(bench, fd);
    assert.equal(bench.device.dmaSpace.mapCount, 1, 'the table should be unchanged');
    dmaStore(bench, FIRST.address, 1);
  };
}

export const DMA_MAP_ROWS: readonly Row[] = [
  { id: 'M-01', what: 'body below 32 bytes: EINVAL', run: refused(raw(COMMAND.DMA_MAP, 31)) },
  { id: 'M-02', what: 'argsz 8: EINVAL', run: refused(dmaMap({ argsz: 8 })) },
  {
    id: 'M-03',
    what: '8 TiB + 4 KiB: ENOSPC',
    run: refused(dmaMap({ address: 0, sizeBytes: 8 * TIB + PAGE }), 'ENOSPC'),
  },
  {
    id: 'M-04',
    what: 'map 65 of 64: EINVAL',
    inside: (bench) => {
      const fd = mapPages(bench, 0, DMA_MAP_LIMIT);
      fail(bench, dmaMap({ address: DMA_MAP_LIMIT * PAGE }), 'EINVAL', [fd]);
      assert.equal(bench.device.dmaSpace.mapCount, DMA_MAP_LIMIT);
    },
  },
  {
    id: 'M-05',
    what: 'flags 0x10: EINVAL, fd closed',
    run: (wire) => fail(wire, dmaMap({ flags: 0x10 }), 'EINVAL', [wire.memfd(PAGE)]),
  },
  { id: 'M-06', what: 'access by mmap without fd: EINVAL', run: refused(dmaMap({ flags: 3 | 4 })) },
  { id: 'M-07', what: 'access by file I/O without fd: EINVAL', run: refused(dmaMap({ flags: 3 | 8 })) },
  {
    id: 'M-08',
    what: 'the same map again: OK, no second one, fd closed',
    inside: withFirstMap((bench, fd) => void succeed(bench, dmaMap(FIRST), [fd])),
  },
  {
    id: 'M-09',
    what: 'same range, other offset: EINVAL',
    inside: withFirstMap((bench, fd) => fail(bench, dmaMap({ ...FIRST, offset: 2 * PAGE }), 'EINVAL', [fd])),
  },
  {
    id: 'M-10',
    what: 'same range, other file: EINVAL',
    inside: withFirstMap((bench) => fail(bench, dmaMap(FIRST), 'EINVAL', [bench.memfd(4 * PAGE)])),
  },
  {
    id: 'M-11',
    what: 'same range, other protection: EINVAL',
    inside: withFirstMap((bench, fd) => fail(bench, dmaMap({ ...FIRST, flags: 1 }), 'EINVAL', [fd])),
  },
  {
    id: 'M-12',
    what: 'overlap in front, behind, inside, around: EINVAL',
    rejected: 'the specification says EEXIST, libvfio-user EINVAL; QEMU only prints the number',
    inside: (bench) => {
      const fd = bench.memfd(16 * PAGE);
      succeed(bench, dmaMap({ address: 0x10000, sizeBytes: 4 * PAGE }), [fd]);
      for (const [address, pages] of [
        [0xf000, 2],
        [0x13000, 2],
        [0x11000, 2],
        [0xf000, 6],
      ] as const) {
        fail(bench, dmaMap({ address, sizeBytes: pages * PAGE }), 'EINVAL', [fd]);
      }
      assert.equal(bench.device.dmaSpace.mapCount, 1);
    },
  },
  {
    id: 'M-13',
    what: 'a fd that cannot be mapped (socket, eventfd): error, table unchanged',
    inside: (bench) => {
      const [socket, other] = socketPair();
      bench.own(other);
      for (const fd of [bench.own(socket), bench.eventfd()]) {
        const reply = bench.request(dmaMap({ address: 0x1000 }), [fd]);
        assert.equal(reply.flags, FLAG.REPLY | FLAG.ERROR);
      }
      assert.equal(bench.device.dmaSpace.mapCount, 0);
      assertInSync(bench);
    },
  },
  {
    id: 'M-14',
    what: 'a file shorter than offset + size: EINVAL',
    run: (wire) => fail(wire, dmaMap({ offset: PAGE, sizeBytes: 2 * PAGE }), 'EINVAL', [wire.memfd(2 * PAGE)]),
  },
  {
    id: 'M-15',
    what: 'address + size wraps 2^64, or reaches 2^53: EINVAL',
    run: (wire) => {
      const message = dmaMap({});
      message.fill(0xff, 32, 40);
      refused(message)(wire);
      refused(dmaMap({ address: 2 ** 53 - PAGE, sizeBytes: PAGE }))(wire);
    },
  },
  { id: 'M-16', what: 'size 0: EINVAL', run: refused(dmaMap({ sizeBytes: 0 })) },
  {
    id: 'M-17',
    what: 'address, offset or size no whole pages, with a fd: EINVAL',
    run: (wire) => {
      const fd = wire.memfd(4 * PAGE);
      for (const part of [{ address: 0x800 }, { offset: 0x800 }, { sizeBytes: 0x800 }]) {
        fail(wire, dmaMap(part), 'EINVAL', [fd]);
      }
    },
  },
  {
    id: 'M-18',
    what: 'no fd, R|W: OK, reached by messages',
    inside: (bench) => {
      succeed(bench, dmaMap({ address: 0x1000 }));
      assert.equal(lookup(bench, 0x1000)?.kind, 'messages');
      assert.equal(bench.server.statistics().dmaMapsWithoutFile, 1);
    },
  },
  {
    id: 'M-19',
    what: 'a READ map: the device may not write',
    inside: (bench) => {
      succeed(bench, dmaMap({ address: 0x1000, flags: 1 }), [bench.memfd(PAGE)]);
      const { readable, writable } = lookup(bench, 0x1000)!;
      assert.deepEqual([readable, writable], [true, false]);
    },
  },
  {
    id: 'M-20',
    what: 'before GET_INFO: OK',
    run: (wire) => void succeed(wire, dmaMap({ address: 0 }), [wire.memfd(PAGE)]),
  },
  {
    id: 'M-21',
    what: 'many maps of one memfd: one mapping, fd count bounded',
    run: (wire) => {
      const fd = mapPages(wire, 0, 1);
      const before = openFdCount();
      for (let round = 0; round < 5; round++) {
        for (let i = 1; i < 61; i++) succeed(wire, dmaMap({ address: i * PAGE, offset: (i % 16) * PAGE }), [fd]);
        for (let i = 1; i < 61; i++) succeed(wire, dmaUnmap({ address: i * PAGE, sizeBytes: PAGE }));
      }
      assert.equal(openFdCount(), before);
    },
  },
  {
    id: 'M-22',
    what: 'map while a DMA is in flight',
    rejected: 'DMA to mapped memory is synchronous on the same thread; P-08 covers requests during DMA by messages',
  },
  { id: 'M-23', what: 'quiesce busy', rejected: 'nothing to quiesce: DMA is synchronous, see M-22' },
  { id: 'M-24', what: 'quiesce failure', rejected: 'nothing to quiesce: DMA is synchronous, see M-22' },
  { id: 'M-25', what: 'client closes while a map is deferred', rejected: 'no map is ever deferred, see M-22' },
  { id: 'M-26', what: 'two fds: EINVAL, both closed', run: refusedWithFds(dmaMap({ address: 0x1000 }), 2) },
  { id: 'U-01', what: 'body of 8 bytes: EINVAL', run: refused(raw(COMMAND.DMA_UNMAP, 8)) },
  { id: 'U-02', what: 'argsz 8: EINVAL', run: refused(dmaUnmap({ argsz: 8 })) },
  { id: 'U-03', what: 'argsz 1 MiB + 8: EINVAL', run: refused(dmaUnmap({ argsz: 1024 * 1024 + 8 })) },
  {
    id: 'U-04',
    what: 'dirty bitmap with an overflowing size: EINVAL',
    run: refused(dmaUnmap({ flags: DIRTY_BITMAP, sizeBytes: PAGE }, Buffer.alloc(16, 0xff))),
  },
  {
    id: 'U-05',
    what: 'dirty bitmap without tracking: EINVAL, map kept',
    inside: (bench) => {
      mapPages(bench, 0, 1);
      fail(bench, dmaUnmap({ flags: DIRTY_BITMAP, sizeBytes: PAGE }, Buffer.alloc(16)));
      assert.equal(bench.device.dmaSpace.mapCount, 1);
    },
  },
  { id: 'U-06', what: 'flags 4: EINVAL', run: refused(dmaUnmap({ flags: 4, sizeBytes: PAGE })) },
  {
    id: 'U-07',
    what: 'not mapped: ENOENT, also above 2^53',
    run: (wire) => {
      refused(dmaUnmap({ address: 0x5000, sizeBytes: PAGE }), 'ENOENT')(wire);
      const message = dmaUnmap({ sizeBytes: PAGE });
      message.fill(0xff, 24, 32);
      refused(message, 'ENOENT')(wire);
    },
  },
  {
    id: 'U-08',
    what: 'a part of a map: ENOENT; all maps in a range: OK, as QEMU wants it (hw/i386/intel_iommu.c)',
    inside: (bench) => {
      succeed(bench, dmaMap({ address: 0x10000, sizeBytes: 4 * PAGE }), [bench.memfd(4 * PAGE)]);
      for (const [address, pages] of [
        [0x10000, 1],
        [0x11000, 3],
        [0xf000, 2],
      ] as const) {
        fail(bench, dmaUnmap({ address, sizeBytes: pages * PAGE }), 'ENOENT');
      }
      assert.equal(bench.device.dmaSpace.mapCount, 1);
      mapPages(bench, 0x20000, 3);
      succeed(bench, dmaUnmap({ address: 0xf000, sizeBytes: 32 * PAGE }));
      assert.equal(bench.device.dmaSpace.mapCount, 0);
    },
  },
  {
    id: 'U-09',
    what: 'exact: OK, 24 bytes echoed',
    run: (wire) => {
      mapPages(wire, 0x4000, 1);
      const message = dmaUnmap({ address: 0x4000, sizeBytes: PAGE });
      const { bytes, sizeBytes } = succeed(wire, message);
      assert.equal(sizeBytes, 40);
      assert.deepEqual(bytes.subarray(16), message.subarray(16));
    },
  },
  {
    id: 'U-10',
    what: 'ALL with 64 maps: all gone',
    inside: (bench) => {
      mapPages(bench, 0, DMA_MAP_LIMIT);
      succeed(bench, dmaUnmap({ flags: UNMAP_ALL }));
      assert.equal(bench.device.dmaSpace.mapCount, 0);
    },
  },
  {
    id: 'U-11',
    what: 'ALL with a range: EINVAL',
    run: (wire) => {
      refused(dmaUnmap({ flags: UNMAP_ALL, sizeBytes: PAGE }))(wire);
      refused(dmaUnmap({ flags: UNMAP_ALL, address: PAGE }))(wire);
    },
  },
  { id: 'U-12', what: 'ALL|DIRTY: EINVAL', run: refused(dmaUnmap({ flags: UNMAP_ALL | DIRTY_BITMAP })) },
  {
    id: 'U-13',
    what: 'after OK nothing leads to the old file any more',
    inside: (bench) => {
      mapPages(bench, 0x4000, 2);
      succeed(bench, dmaUnmap({ address: 0x4000, sizeBytes: PAGE }));
      assert.equal(lookup(bench, 0x4000), undefined);
      assert.equal(lookup(bench, 0x5000)?.start, 0x5000);
    },
  },
  {
    id: 'U-14',
    what: 'asynchronous quiesce',
    rejected: 'nothing to quiesce: DMA is synchronous, see M-22',
  },
  {
    id: 'U-15',
    what: 'unmap, then map the same range of another file: the new file is used',
    inside: (bench) => {
      const [old, replacement] = [mapPages(bench, 0x4000, 1), bench.memfd(PAGE)];
      dmaStore(bench, 0x4000, 0xaaaa);
      succeed(bench, dmaUnmap({ address: 0x4000, sizeBytes: PAGE }));
      succeed(bench, dmaMap({ address: 0x4000 }), [replacement]);
      dmaStore(bench, 0x4000, 0xbbbb);
      succeed(bench, dmaMap({ address: 0x5000 }), [old]);
      const map = lookup(bench, 0x5000);
      assert.equal(map?.kind === 'guest-memory' && map.memory.readU32(map.memoryOffset), 0xaaaa);
    },
  },
  {
    id: 'U-16',
    what: 'a model without DMA: MAP and UNMAP succeed',
    rejected: 'every function has a DMA space, whether its model uses it or not; M-20 and U-09 are that case',
  },
];
