import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { discoveryTable, IP_LIST } from './discovery.js';

const sum = (bytes: Uint8Array) => bytes.reduce((total, byte) => (total + byte) & 0xffff, 0);

describe('gpu discovery table', () => {
  const bytes = discoveryTable();
  const view = new DataView(bytes.buffer);
  const u16 = (offset: number) => view.getUint16(offset, true);
  const u32 = (offset: number) => view.getUint32(offset, true);

  it('passes the checks of amdgpu_discovery_init', () => {
    assert.equal(u32(0), 0x28211407);
    assert.equal(u16(10), bytes.length);
    assert.equal(u16(8), sum(bytes.subarray(10)), 'checksum of the binary');
    for (const entry of [12, 20]) {
      const [offset, checksum, size] = [u16(entry), u16(entry + 2), u16(entry + 4)];
      assert.equal(checksum, sum(bytes.subarray(offset, offset + size)), `checksum of the table at ${offset}`);
    }
  });

  it('has the size that the recipe measured', () => {
    assert.equal(bytes.length, 452);
    assert.deepEqual([u16(12), u16(16), u16(20), u16(24)], [0x3c, 0x138, 0x174, 0x50]);
  });

  it('lists every block with its version and bases', () => {
    const die = u16(u16(12) + 14);
    const dieHeader = u16(12) + 12 + 2;
    assert.equal(u16(dieHeader), 0, 'die id');
    const at = u16(dieHeader + 2);
    assert.equal(at, 0x8c, String(die));
    assert.equal(u16(at + 2), IP_LIST.length);
    let entry = at + 4;
    for (const ip of IP_LIST) {
      assert.equal(u16(entry), ip.hardwareId);
      assert.deepEqual([...bytes.subarray(entry + 4, entry + 7)], [...ip.version]);
      const count = bytes[entry + 3]!;
      const bases = Array.from({ length: count }, (_, index) => u32(entry + 8 + 4 * index));
      assert.deepEqual(bases, [...ip.bases]);
      entry += 8 + 4 * count;
    }
    assert.equal(entry, u16(20), 'the GC information follows');
  });

  it('carries gc_info v2.0 with 8 shader engines', () => {
    const gc = u16(20);
    assert.deepEqual([u32(gc), u16(gc + 4), u16(gc + 6), u32(gc + 8), u32(gc + 12)], [0x4347, 2, 0, 80, 8]);
  });
});
