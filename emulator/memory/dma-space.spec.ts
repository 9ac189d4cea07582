import assert from 'node:assert/strict';
import { openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeFd, createEventfd, createMemfd, duplicateFd, ERRNO, MappedFile, openFdCount } from '../host/index.js';
import { type DmaMapRequest, DmaSpace, type MemoryMap } from './dma-space.js';

const KIB = 1024;
const MIB = 2 ** 20;

function request(address: number, sizeBytes: number, offset = 0, access = 'rw'): DmaMapRequest {
  return { address, sizeBytes, offset, readable: access.includes('r'), writable: access.includes('w') };
}

/** Numbers with every bit pattern equally likely, the same for the same seed (xorshift32). */
function randomSource(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function memoryAt(space: DmaSpace, address: number): MemoryMap {
  const map = space.lookup(address);
  assert.equal(map?.kind, 'guest-memory');
  return map;
}

describe('DMA space', () => {
  let space: DmaSpace;
  let ram: number;
  let fdsBefore: number;

  beforeEach(() => {
    fdsBefore = openFdCount();
    space = new DmaSpace();
    ram = createMemfd('ram', 4 * MIB);
  });

  afterEach(() => {
    space.close();
    closeFd(ram);
    assert.equal(openFdCount(), fdsBefore, 'descriptors left open');
  });

  const map = (wanted: DmaMapRequest, fd: number = ram) => space.map(wanted, duplicateFd(fd));
  const mapNoFile = (wanted: DmaMapRequest) => space.map(wanted, undefined);
  const refuses = (action: () => void, errno: number) => assert.throws(action, { name: 'SystemError', errno });

  it('finds the file behind an address, within the exact bounds of the map', () => {
    map(request(0x10000, 0x4000, 0x8000));
    assert.equal(space.lookup(0xffff), undefined);
    assert.equal(space.lookup(0x14000), undefined);
    for (const address of [0x10000, 0x13fff]) {
      const found = memoryAt(space, address);
      assert.deepEqual([found.start, found.end, found.memoryOffset], [0x10000, 0x14000, 0x8000]);
    }
    const view = new MappedFile(ram, 4 * MIB, { writable: true });
    const found = memoryAt(space, 0x10000);
    found.memory.writeU32(found.memoryOffset, 0x1234);
    assert.equal(view.readU32(0x8000), 0x1234);
    view.close();
  });

  it('keeps a map without a file for messages', () => {
    mapNoFile(request(0xfffc_0000, 0x40000, 0, 'r'));
    const found = space.lookup(0xffff_fff0);
    assert.deepEqual(found, {
      kind: 'messages',
      start: 0xfffc_0000,
      end: 0x1_0000_0000,
      readable: true,
      writable: false,
    });
    assert.equal(space.guestMemoryKey, undefined);
  });

  it('keeps protection per map, for the same bytes of a file too', () => {
    map(request(0, 0x1000, 0, 'r'));
    map(request(0x1000, 0x1000, 0, 'w'));
    map(request(0x2000, 0x1000, 0, ''));
    const protection = [0, 0x1000, 0x2000].map((address) => {
      const { readable, writable } = memoryAt(space, address);
      return [readable, writable];
    });
    assert.deepEqual(protection, [
      [true, false],
      [false, true],
      [false, false],
    ]);
  });

  it('maps a file once for hundreds of maps and closes every descriptor', () => {
    for (let index = 0; index < 300; index++) map(request(index * 0x2000, 0x1000, index * 0x1000));
    const memories = new Set(Array.from({ length: 300 }, (_, index) => memoryAt(space, index * 0x2000).memory));
    assert.equal(memories.size, 1);
    // One descriptor is this test's, one the mapping's.
    assert.equal(openFdCount(), fdsBefore + 2);
    for (let index = 0; index < 299; index++) space.unmap(index * 0x2000, 0x1000);
    assert.equal(memoryAt(space, 299 * 0x2000).memory.readU32(0), 0);
    space.unmap(299 * 0x2000, 0x1000);
    space.unmapAll();
    assert.equal(openFdCount(), fdsBefore + 1);
  });

  it('keeps a file mapped between maps that come and go one by one, but not many files', () => {
    map(request(0, 0x1000));
    const { memory } = memoryAt(space, 0);
    for (let index = 0; index < 10; index++) {
      space.unmap(index * 0x1000, 0x1000);
      map(request((index + 1) * 0x1000, 0x1000, index * 0x1000));
      assert.equal(memoryAt(space, (index + 1) * 0x1000).memory, memory);
    }
    for (let index = 0; index < 10; index++) {
      const other = createMemfd('other', 0x1000);
      map(request(MIB, 0x1000), other);
      closeFd(other);
      space.unmap(MIB, 0x1000);
    }
    // This test's descriptor, that of the file in use, and two of files without users.
    assert.equal(openFdCount(), fdsBefore + 4);
  });

  it('takes the same map again without a change', () => {
    map(request(0x1000, 0x2000, 0x1000, 'r'));
    mapNoFile(request(0x8000, 0x1000));
    map(request(0x1000, 0x2000, 0x1000, 'r'));
    mapNoFile(request(0x8000, 0x1000));
    assert.equal(space.mapCount, 2);
    assert.equal(openFdCount(), fdsBefore + 2);
  });

  describe('refuses and leaves the table as it was', () => {
    beforeEach(() => map(request(0x10000, 0x4000, 0x4000)));
    afterEach(() => {
      assert.equal(space.mapCount, 1);
      assert.equal(memoryAt(space, 0x12000).memoryOffset, 0x4000);
    });

    it('the same range with another offset, protection, file, or none', () => {
      refuses(() => map(request(0x10000, 0x4000, 0x5000)), ERRNO.EINVAL);
      refuses(() => map(request(0x10000, 0x4000, 0x4000, 'r')), ERRNO.EINVAL);
      refuses(() => mapNoFile(request(0x10000, 0x4000, 0x4000)), ERRNO.EINVAL);
      const other = createMemfd('other', 4 * MIB);
      refuses(() => map(request(0x10000, 0x4000, 0x4000), other), ERRNO.EINVAL);
      closeFd(other);
    });

    for (const [title, address, size] of [
      ['front', 0xf000, 0x2000],
      ['back', 0x13000, 0x2000],
      ['inside', 0x11000, 0x1000],
      ['around', 0xf000, 0x6000],
      ['same start, shorter', 0x10000, 0x1000],
      ['same start, longer', 0x10000, 0x5000],
    ] as const) {
      it(`an overlap: ${title}`, () => {
        refuses(() => map(request(address, size)), ERRNO.EINVAL);
        refuses(() => mapNoFile(request(address, size)), ERRNO.EINVAL);
      });
    }

    it('more than 8 TiB', () => refuses(() => mapNoFile(request(0, 8 * 2 ** 40 + 4096)), ERRNO.ENOSPC));
    it('no bytes', () => refuses(() => map(request(0x20000, 0)), ERRNO.EINVAL));
    it('an end beyond exact numbers', () => refuses(() => mapNoFile(request(2 ** 53 - 4096, 8192)), ERRNO.EINVAL));
    it('a file that is too short', () => {
      refuses(() => map(request(0x20000, 0x2000, 4 * MIB - 0x1000)), ERRNO.EINVAL);
    });
    it('address, size or offset that are not whole pages, with a file', () => {
      refuses(() => map(request(0x20100, 0x1000)), ERRNO.EINVAL);
      refuses(() => map(request(0x20000, 0x1100)), ERRNO.EINVAL);
      refuses(() => map(request(0x20000, 0x1000, 0x100)), ERRNO.EINVAL);
    });
    it('a descriptor that is no file', () => {
      const event = createEventfd();
      refuses(() => map(request(0x20000, 0x1000), event), ERRNO.EINVAL);
      closeFd(event);
      const folder = openSync(tmpdir(), 'r');
      assert.throws(() => map(request(0x20000, 0x1000), folder), { name: 'SystemError' });
      closeFd(folder);
    });
  });

  it('refuses a file that cannot be written for a writable map, and takes it for a read-only one', () => {
    const path = join(tmpdir(), `ghostbus-dma-space-${process.pid}`);
    const writer = openSync(path, 'w');
    const reader = openSync(path, 'r');
    rmSync(path);
    const warned: string[] = [];
    space = new DmaSpace({ onShrinkableFile: ({ key }) => warned.push(key) });
    try {
      refuses(() => map(request(0, 0x1000), reader), ERRNO.EINVAL);
      const view = Buffer.alloc(0x2000, 0x5a);
      writeSync(writer, view);
      refuses(() => map(request(0, 0x1000), reader), ERRNO.EACCES);
      assert.equal(space.mapCount, 0);
      map(request(0, 0x1000, 0, 'r'), reader);
      map(request(0x1000, 0x1000, 0x1000, 'r'), reader);
      assert.equal(memoryAt(space, 0).memory.readU32(0), 0x5a5a5a5a);
      assert.deepEqual(warned, [space.guestMemoryKey], 'one warning about a file that its owner can shrink');
    } finally {
      space.close();
      closeFd(writer);
      closeFd(reader);
    }
  });

  it('refuses one map more than its limit', () => {
    space = new DmaSpace({ mapLimit: 64 });
    for (let index = 0; index < 64; index++) map(request(index * 0x1000, 0x1000));
    refuses(() => map(request(64 * 0x1000, 0x1000)), ERRNO.EINVAL);
    space.unmap(0, 0x1000);
    map(request(64 * 0x1000, 0x1000));
  });

  it('takes more maps than a DMA count of 16 bits', () => {
    for (let index = 0; index < 70_000; index++) mapNoFile(request(index * 0x1000, 0x1000));
    assert.equal(space.mapCount, 70_000);
    assert.equal(space.lookup(69_999 * 0x1000 + 5)?.start, 69_999 * 0x1000);
  });

  it('unmaps whole maps only', () => {
    map(request(0x10000, 0x4000));
    mapNoFile(request(0x14000, 0x1000));
    for (const [address, size] of [
      [0x10000, 0x1000],
      [0x11000, 0x1000],
      [0x11000, 0x4000],
      [0xf000, 0x4000],
      [0xf000, 0x1000],
      [0x20000, 0x1000],
    ] as const) {
      refuses(() => space.unmap(address, size), ERRNO.ENOENT);
    }
    assert.equal(space.mapCount, 2);
    space.unmap(0x10000, 0x4000);
    refuses(() => space.unmap(0x10000, 0x4000), ERRNO.ENOENT);
    assert.equal(space.lookup(0x10000), undefined);
    assert.equal(space.lookup(0x14000)?.kind, 'messages');
  });

  it('unmaps every map in a range, as an IOMMU invalidates its tables', () => {
    for (let page = 0; page < 8; page++) map(request(0x10000 + page * 0x1000, 0x1000));
    space.unmap(0x11000, 0x3000);
    assert.equal(space.mapCount, 5);
    space.unmap(0, 0x100000);
    assert.equal(space.mapCount, 0);
    map(request(0x10000, 0x2000));
    assert.equal(space.lookup(0x11000)?.kind, 'guest-memory');
  });

  it('uses the new file when a range is unmapped and mapped again', () => {
    const other = createMemfd('other', MIB);
    map(request(0, MIB));
    memoryAt(space, 0).memory.writeU32(0, 1);
    space.unmap(0, MIB);
    map(request(0, MIB), other);
    assert.equal(memoryAt(space, 0).memory.readU32(0), 0);
    closeFd(other);
  });

  it('maps a file anew when it has grown', () => {
    const path = join(tmpdir(), `ghostbus-dma-space-grow-${process.pid}`);
    const file = openSync(path, 'w+');
    rmSync(path);
    writeSync(file, Buffer.alloc(0x1000, 1));
    map(request(0, 0x1000), file);
    writeSync(file, Buffer.alloc(0x1000, 2));
    map(request(0x1000, 0x1000, 0x1000), file);
    assert.equal(memoryAt(space, 0x1000).memory.readU32(0x1000), 0x02020202);
    assert.equal(memoryAt(space, 0).memory.readU32(0), 0x01010101);
    space.unmap(0, 0x1000);
    assert.equal(memoryAt(space, 0x1000).memory.readU32(0x1000), 0x02020202);
    space.unmap(0x1000, 0x1000);
    writeSync(file, Buffer.alloc(0x1000, 3));
    map(request(0x2000, 0x1000, 0x2000), file);
    assert.equal(memoryAt(space, 0x2000).memory.readU32(0x2000), 0x03030303);
    // Those of this test, and one of the mapping.
    assert.equal(openFdCount(), fdsBefore + 3);
    space.unmapAll();
    closeFd(file);
  });

  it('names the machine by its largest file until the client is gone', () => {
    const changes: (string | undefined)[] = [];
    space.onGuestMemoryChange(() => changes.push(space.guestMemoryKey));
    const small = createMemfd('vga', 64 * KIB);
    map(request(0xa0000, 64 * KIB), small);
    const smallKey = space.guestMemoryKey;
    map(request(0x100000, MIB));
    const ramKey = space.guestMemoryKey;
    assert.notEqual(ramKey, smallKey);
    map(request(0x200000, MIB, MIB));
    space.unmapAll();
    assert.equal(space.guestMemoryKey, ramKey);
    space.close();
    assert.equal(space.guestMemoryKey, undefined);
    assert.deepEqual(changes, [smallKey, ramKey, undefined]);
    closeFd(small);
  });

  for (const seed of [1, 20260715, 0x9e3779b9]) {
    it(`agrees with a naive model on random maps and unmaps, seed ${seed}`, () => againstModel(space, ram, seed));
  }
});

interface ModelMap {
  readonly wanted: DmaMapRequest;
  readonly file: number | undefined;
}

/**
 * A thousand random steps on the space and on a plain list of maps; outcomes and every page's lookup must be the same.
 */
function againstModel(space: DmaSpace, firstFile: number, seed: number): void {
  const random = randomSource(seed);
  const pages = 48;
  const secondFile = createMemfd('second', 4 * MIB);
  const files = [undefined, firstFile, secondFile];
  const model: ModelMap[] = [];
  for (let step = 0; step < 1000; step++) {
    const wanted = request(random(pages) * 4096, (1 + random(6)) * 4096, random(3) * 4096, ['r', 'w', 'rw'][random(3)]);
    const known = model[random(model.length + 1)];
    const remove = random(3) === 0;
    const { wanted: subject, file } =
      known !== undefined && random(2) === 0 ? known : { wanted, file: files[random(3)] };
    const got = outcome(() => {
      if (remove) space.unmap(subject.address, subject.sizeBytes);
      else space.map(subject, file === undefined ? undefined : duplicateFd(file));
    });
    const expected = remove ? modelUnmap(model, subject) : modelMap(model, subject, file);
    assert.equal(got, expected, `step ${step}: ${remove ? 'unmap' : 'map'} ${JSON.stringify(subject)} of file ${file}`);
    assert.equal(space.mapCount, model.length);
    for (let page = 0; page < pages + 6; page++) comparePage(space, model, page * 4096 + random(4096));
  }
  space.close();
  closeFd(secondFile);
}

function outcome(action: () => void): number {
  try {
    action();
    return 0;
  } catch (error) {
    return (error as { errno: number }).errno;
  }
}

function modelUnmap(model: ModelMap[], { address, sizeBytes }: DmaMapRequest): number {
  const end = address + sizeBytes;
  const touched = model.filter(({ wanted }) => wanted.address < end && address < wanted.address + wanted.sizeBytes);
  const cut = touched.some(({ wanted }) => wanted.address < address || wanted.address + wanted.sizeBytes > end);
  if (touched.length === 0 || cut) return ERRNO.ENOENT;
  for (const one of touched) model.splice(model.indexOf(one), 1);
  return 0;
}

function modelMap(model: ModelMap[], wanted: DmaMapRequest, file: number | undefined): number {
  const end = wanted.address + wanted.sizeBytes;
  const overlapping = model.filter(
    ({ wanted: other }) => other.address < end && wanted.address < other.address + other.sizeBytes,
  );
  const [only] = overlapping;
  if (only === undefined) {
    model.push({ wanted, file });
    return 0;
  }
  const comparable = (of: DmaMapRequest, itsFile: number | undefined) =>
    JSON.stringify({ ...of, offset: itsFile === undefined ? 0 : of.offset });
  const same = only.file === file && comparable(only.wanted, only.file) === comparable(wanted, file);
  return same ? 0 : ERRNO.EINVAL;
}

function comparePage(space: DmaSpace, model: readonly ModelMap[], address: number): void {
  const expected = model.find(({ wanted }) => address >= wanted.address && address < wanted.address + wanted.sizeBytes);
  const got = space.lookup(address);
  assert.equal(got?.start, expected?.wanted.address);
  if (got === undefined || expected === undefined) return;
  const { wanted, file } = expected;
  assert.equal(got.end, wanted.address + wanted.sizeBytes);
  assert.deepEqual([got.readable, got.writable], [wanted.readable, wanted.writable]);
  assert.equal(
    got.kind === 'guest-memory' ? got.memoryOffset : undefined,
    file === undefined ? undefined : wanted.offset,
  );
}
