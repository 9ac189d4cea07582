import assert from 'node:assert/strict';
import type { FunctionPort, MemoryRegion } from 'ghostbus';
import { TestBus } from 'ghostbus/testing';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { PRODUCTS } from '../product/product.js';
import { BLOCK_FRAGMENT_9, closeBuses, PDE_VALID, PTE } from '../test/driver.js';
import { AddressSpace } from './address-space.js';
import { FrameBuffer } from './frame-buffer.js';
import type { TranslationContext } from './page-tables.js';

const VRAM = 2 ** 26;
const [ROOT, PDB1, PDB0, PTB] = [0x1000, 0x2000, 0x3000, 0x4000];
/** As the driver programs it: DEPTH 2, PAGE_TABLE_BLOCK_SIZE 9. */
const FOUR_LEVELS: TranslationContext = {
  enabled: true,
  depth: 2,
  blockBits: 18,
  tableAddress: ROOT,
  tableInSystem: false,
  startPage: 0,
  endPage: 2 ** 36 - 1,
};

/** A function that is nothing but its connection to the bus. */
function portOn(bus: TestBus): FunctionPort {
  const ports: FunctionPort[] = [];
  bus.add('port', {
    identity: PRODUCTS['7af0'].identity,
    bars: [],
    capabilities: [],
    powerOn(port) {
      ports.push(port);
      return { bars: {} };
    },
  });
  return ports[0]!;
}

describe('gpu address translation', () => {
  afterEach(closeBuses);

  let vram: MemoryRegion;
  let bus: TestBus;
  let port: FunctionPort;
  let faults: string[];
  let context: TranslationContext;

  const space = (vmid: number) =>
    new AddressSpace(vmid, {
      dma: port.dma,
      frameBuffer: new FrameBuffer(port, vram),
      frameBufferBase: 0x80_0000_0000,
      context: () => context,
      fault: ({ vmid, address, kind, reason }) => faults.push(`${vmid} ${kind} ${address.toString(16)} ${reason}`),
    });

  beforeEach(() => {
    bus = new TestBus();
    vram = bus.createMemory('vram', VRAM);
    port = portOn(bus);
    faults = [];
    context = FOUR_LEVELS;
    vram.writeU64(ROOT, BigInt(PDB1) | PDE_VALID);
    vram.writeU64(PDB1, BigInt(PDB0) | PDE_VALID | BLOCK_FRAGMENT_9);
    vram.writeU64(PDB0, BigInt(PTB) | PDE_VALID | PTE.FURTHER);
  });

  it('maps VMID 0 window to VRAM without a table', () => {
    context = { ...FOUR_LEVELS, enabled: false };
    assert.deepEqual(space(0).translate(0x80_0000_1234, 16), { target: 'vram', address: 0x1234, lengthBytes: 16 });
    assert.equal(space(1).translate(0x80_0000_1234, 16).target, 'none', 'only VMID 0 has the window');
    assert.equal(space(0).translate(0x80_0000_0000 + VRAM, 16).target, 'none', 'the window ends with VRAM');
  });

  it('walks the flat GART table from its first page', () => {
    context = { ...FOUR_LEVELS, depth: 0, blockBits: 9, startPage: 0x10, endPage: 0x11, tableAddress: 0x8000 };
    vram.writeU64(0x8008, 0xabcd000n | PTE.VALID | PTE.SYSTEM);
    assert.deepEqual(space(0).translate(0x11_010, 8), { target: 'bus', address: 0xabcd010, lengthBytes: 8 });
    assert.equal(space(0).translate(0x12_000, 8).target, 'none');
    assert.equal(space(0).translate(0xf_000, 8).target, 'none');
  });

  it('translates further to 4 KiB pages, in VRAM and on the bus', () => {
    vram.writeU64(PTB, 0x20_0000n | PTE.VALID);
    vram.writeU64(PTB + 8, 0x12_3456_7000n | PTE.VALID | PTE.SYSTEM);
    assert.deepEqual(space(1).translate(0x10, 0x10000), { target: 'vram', address: 0x20_0010, lengthBytes: 0xff0 });
    assert.deepEqual(space(1).translate(0x1008, 4), { target: 'bus', address: 0x12_3456_7008, lengthBytes: 4 });
  });

  it('takes an entry without TF as a 2 MiB leaf, and adds the offset to a base that is not aligned', () => {
    vram.writeU64(PDB0 + 8, 0x10_3000n | PTE.VALID);
    const va = 0x20_0000 + 0x1f_f000;
    assert.deepEqual(space(1).translate(va, 8192), { target: 'vram', address: 0x30_2000, lengthBytes: 4096 });
  });

  it('takes a directory entry with bit 54 as a leaf of its level', () => {
    vram.writeU64(PDB1 + 8, 0x4000_0000_0000n | PTE.VALID | PTE.SYSTEM | PTE.LEAF);
    const extent = space(1).translate(2 ** 30 + 0x1234_5678, 2 ** 31);
    assert.deepEqual(extent, {
      target: 'bus',
      address: 0x4000_1234_5678,
      lengthBytes: 2 ** 30 - 0x1234_5678,
    });
  });

  it('reads tables that lie in guest memory', () => {
    vram.writeU64(PDB0, 0x5000n | PDE_VALID | PTE.SYSTEM | PTE.FURTHER);
    bus.guestMemory.writeU64(0x5000, 0x30_0000n | PTE.VALID);
    assert.equal(space(1).translate(0, 4).address, 0x30_0000);
  });

  it('merges pages that lie behind one another', () => {
    for (let page = 0; page < 4; page++) vram.writeU64(PTB + 8 * page, BigInt(0x20_0000 + page * 4096) | PTE.VALID);
    vram.writeU64(PTB + 32, 0x90_0000n | PTE.VALID);
    assert.deepEqual(space(1).extent(0, 0x5000), { target: 'vram', address: 0x20_0000, lengthBytes: 0x4000 });
  });

  it('merges across tables, and stops where a page is elsewhere, not valid, or on the other side of the bus', () => {
    const page = (number: number, address: number, flags: bigint = PTE.VALID) =>
      vram.writeU64(PTB + 8 * number, BigInt(address) | flags);
    for (let number = 500; number < 512; number++) page(number, 0x20_0000 + number * 4096);
    vram.writeU64(PDB0 + 8, 0x5000n | PDE_VALID | PTE.FURTHER);
    for (let number = 0; number < 8; number++)
      vram.writeU64(0x5000 + 8 * number, BigInt(0x40_0000 + number * 4096) | PTE.VALID);
    const from = 500 * 4096 + 16;
    const length = (address: number) => space(1).extent(address, 2 ** 20).lengthBytes;
    assert.equal(length(from), 20 * 4096 - 16, 'through both tables');
    page(505, 0x90_0000);
    assert.equal(length(from), 5 * 4096 - 16);
    page(504, 0x20_0000 + 504 * 4096, PTE.VALID | PTE.SYSTEM);
    assert.equal(length(from), 4 * 4096 - 16);
    page(503, 0x20_0000 + 503 * 4096, 0n);
    assert.equal(length(from), 3 * 4096 - 16);
    assert.equal(space(1).extent(from, 100).lengthBytes, 100, 'no more than asked for');
  });

  it('sees a changed entry at once', () => {
    const view = space(1);
    vram.writeU64(PTB, 0x20_0000n | PTE.VALID);
    assert.equal(view.translate(0, 4).address, 0x20_0000);
    vram.writeU64(PTB, 0x30_0000n | PTE.VALID);
    assert.equal(view.translate(0, 4).address, 0x30_0000);
  });

  it('reads zero and drops writes where no page is, and reports it', () => {
    const bytes = new Uint8Array(4).fill(7);
    space(1).read(0, bytes);
    assert.deepEqual([...bytes], [0, 0, 0, 0]);
    space(1).write(0, bytes);
    assert.deepEqual(faults, ['1 read 0 no valid page', '1 write 0 no valid page']);
  });

  it('treats PRT pages as zero without a fault', () => {
    vram.writeU64(PTB, PTE.PRT);
    const bytes = new Uint8Array(4).fill(7);
    space(1).read(0, bytes);
    space(1).write(0, bytes);
    assert.deepEqual([...bytes, ...faults], [0, 0, 0, 0]);
  });

  it('turns a refused DMA request into a fault', () => {
    vram.writeU64(PTB, 0x7fff_0000_0000n | PTE.VALID | PTE.SYSTEM);
    space(1).writeU32(0, 1);
    assert.match(faults[0] ?? '', /unsupported-request/);
  });

  it('ignores a leaf beyond VRAM', () => {
    vram.writeU64(PTB, 0x7f_ffff_f000n | PTE.VALID);
    assert.equal(space(1).readU32(0), 0);
    assert.equal(faults.length, 1);
  });

  it('copies between VRAM and guest memory across pages in every direction', () => {
    vram.writeU64(PTB, 0x20_0000n | PTE.VALID);
    vram.writeU64(PTB + 8, 0x30_0000n | PTE.VALID);
    vram.writeU64(PTB + 16, 0x6000n | PTE.VALID | PTE.SYSTEM);
    vram.writeU64(PTB + 24, 0x9000n | PTE.VALID | PTE.SYSTEM);
    const view = space(1);
    const data = Uint8Array.from({ length: 0x1800 }, (_, index) => index * 7);
    view.write(0x400, data);
    view.copy(0x2000, 0x400, data.length);
    const back = new Uint8Array(data.length);
    view.read(0x2000, back);
    assert.deepEqual(back, data);
    assert.equal(bus.guestBytes[0x9000], data[0x1000]);
    view.fill(0x400, 0, 0x1800);
    view.copy(0x400, 0x2000, data.length);
    view.read(0x400, back);
    assert.deepEqual(back, data);
  });

  it('copies ranges whose pages are scattered differently on both sides', () => {
    const order = [3, 0, 7, 1, 2, 6, 5, 4];
    order.forEach((place, page) => {
      vram.writeU64(PTB + 8 * page, BigInt(0x20_0000 + page * 4096) | PTE.VALID);
      vram.writeU64(PTB + 8 * (page + 16), BigInt(0x40_0000 + place * 4096) | PTE.VALID);
    });
    const data = Uint8Array.from({ length: 7 * 4096 }, (_, index) => (index * 31) >>> 3);
    const view = space(1);
    view.write(100, data);
    view.copy(0x10_000 + 300, 100, data.length);
    const back = new Uint8Array(data.length);
    view.read(0x10_000 + 300, back);
    assert.deepEqual(back, data);
    assert.deepEqual(faults, []);
  });

  it('fills with a 32-bit pattern that keeps its phase across pages', () => {
    vram.writeU64(PTB, 0x20_0000n | PTE.VALID);
    vram.writeU64(PTB + 8, 0x30_0000n | PTE.VALID);
    space(1).fill(0xffe, 0x4433_2211, 6);
    const bytes = (offset: number, length: number) => {
      const target = new Uint8Array(length);
      vram.read(offset, target);
      return [...target];
    };
    assert.deepEqual(bytes(0x20_0ffe, 2), [0x11, 0x22]);
    assert.deepEqual(bytes(0x30_0000, 4), [0x33, 0x44, 0x11, 0x22]);
  });
});
