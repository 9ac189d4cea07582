import assert from 'node:assert/strict';
import { MappedFile, openFdCount, WINDOW_BYTES } from '../host/index.js';
import { createMemoryRegion } from './region.js';

const GIB = 2 ** 30;

function numbered(lengthBytes: number, first = 1): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, index) => first + index * 7);
}

function contents(region: { read(offset: number, target: Uint8Array): void }, offset: number, lengthBytes: number) {
  const bytes = new Uint8Array(lengthBytes);
  region.read(offset, bytes);
  return bytes;
}

describe('memory region', () => {
  it('costs nothing until touched, at 64 GiB, and then only what was touched', () => {
    const region = createMemoryRegion('hbm', 64 * GIB);
    try {
      assert.equal(region.sizeBytes, 64 * GIB);
      assert.equal(region.allocatedBytes(), 0);
      region.writeU32(64 * GIB - 4, 0xdeadbeef);
      region.writeU64(5 * GIB, 0x1122334455667788n);
      assert.equal(region.readU32(64 * GIB - 4), 0xdeadbeef);
      assert.equal(region.readU64(5 * GIB), 0x1122334455667788n);
      assert.ok(region.allocatedBytes() <= 4 * 4096, `${region.allocatedBytes()} bytes for two pages`);
    } finally {
      region.close();
    }
  });

  it('shares its memory through fd', () => {
    const region = createMemoryRegion('vram', 8192);
    const other = new MappedFile(region.fd, 8192, { writable: true });
    region.write(4090, numbered(12));
    assert.deepEqual(contents(other, 4090, 12), numbered(12));
    other.writeU32(0, 77);
    assert.equal(region.readU32(0), 77);
    other.close();
    region.close();
  });

  it('gives whole pages back when a large range is filled with zero, and keeps the bytes around it', () => {
    const region = createMemoryRegion('vram', 4 * 2 ** 20);
    region.fill(0, 0xab, region.sizeBytes);
    assert.equal(region.allocatedBytes(), region.sizeBytes);
    region.fill(4096 + 100, 0, 2 ** 20);
    assert.equal(region.allocatedBytes(), region.sizeBytes - (2 ** 20 - 4096));
    assert.deepEqual(contents(region, 4096 + 98, 3), Uint8Array.of(0xab, 0xab, 0));
    assert.deepEqual(contents(region, 4096 + 100 + 2 ** 20 - 1, 2), Uint8Array.of(0, 0xab));
    assert.ok(contents(region, 4096 + 100, 2 ** 20).every((byte) => byte === 0));
    region.close();
  });

  it('stores small zero fills, which keep their pages', () => {
    const region = createMemoryRegion('vram', 2 ** 20);
    region.fill(0, 1, 16384);
    region.fill(4096, 0, 8192);
    assert.equal(region.allocatedBytes(), 16384);
    assert.ok(contents(region, 4096, 8192).every((byte) => byte === 0));
    assert.equal(region.readU32(4092), 0x01010101);
    assert.equal(region.readU32(12288), 0x01010101);
    region.close();
  });

  it('reads, writes and copies across mapping windows', () => {
    const region = createMemoryRegion('vram', 2 * WINDOW_BYTES);
    const edge = WINDOW_BYTES;
    region.write(edge - 5, numbered(10));
    assert.deepEqual(contents(region, edge - 5, 10), numbered(10));
    region.writeU64(edge - 3, 0x0102030405060708n);
    assert.equal(region.readU64(edge - 3), 0x0102030405060708n);
    region.write(100, numbered(64, 9));
    region.copy(edge - 32, 100, 64);
    assert.deepEqual(contents(region, edge - 32, 64), numbered(64, 9));
    region.copy(200, edge - 32, 64);
    assert.deepEqual(contents(region, 200, 64), numbered(64, 9));
    region.close();
  });

  for (const [title, from, to, length] of [
    ['forwards', 5000, 5100, 300],
    ['backwards', 5100, 5000, 300],
    ['forwards, larger than the copy buffer', 4096, 4096 + 12345, 3 * 2 ** 20],
    ['backwards, larger than the copy buffer', 4096 + 12345, 4096, 3 * 2 ** 20],
    ['onto itself', 5000, 5000, 300],
  ] as const) {
    it(`copies overlapping ranges like memmove: ${title}`, () => {
      const region = createMemoryRegion('vram', 4 * 2 ** 20);
      region.write(from, numbered(length));
      region.copy(to, from, length);
      assert.ok(Buffer.from(contents(region, to, length)).equals(numbered(length)));
      region.close();
    });
  }

  it('copies overlapping ranges across a window edge like memmove', () => {
    const region = createMemoryRegion('vram', 2 * WINDOW_BYTES);
    for (const [from, to] of [
      [WINDOW_BYTES - 100, WINDOW_BYTES - 60],
      [WINDOW_BYTES - 60, WINDOW_BYTES - 100],
    ] as const) {
      region.write(from, numbered(160));
      region.copy(to, from, 160);
      assert.deepEqual(contents(region, to, 160), numbered(160));
    }
    region.close();
  });

  it('refuses offsets outside', () => {
    const region = createMemoryRegion('vram', 8192);
    for (const access of [
      () => region.read(8190, new Uint8Array(3)),
      () => region.write(-1, new Uint8Array(1)),
      () => region.fill(8191, 0, 2),
      () => region.fill(0, 0, -1),
      () => region.fill(0.5, 0, 1),
      () => region.copy(0, 8191, 2),
      () => region.copy(8191, 0, 2),
      () => region.readU32(8189),
      () => region.readU64(8185),
      () => region.writeU32(8189, 1),
      () => region.writeU64(Number.NaN, 1n),
      () => region.forEachSpan(8000, 193, () => {}),
    ]) {
      assert.throws(access, RangeError, String(access));
    }
    assert.throws(() => createMemoryRegion('none', 0), RangeError);
    region.close();
  });

  it('closes its descriptors', () => {
    const before = openFdCount();
    const region = createMemoryRegion('vram', 8192);
    region.writeU32(0, 1);
    region.close();
    region.close();
    assert.equal(openFdCount(), before);
    assert.throws(() => region.readU32(0));
  });
});
