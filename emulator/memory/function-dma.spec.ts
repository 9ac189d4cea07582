import assert from 'node:assert/strict';
import { ERRNO, SystemError } from '../host/index.js';
import {
  DOORBELL_OFFSET,
  MEMORY_OFFSET,
  REGION_SHIFT,
  TestClient,
  type TestFunction,
  type TestGuest,
  TestMachine,
} from './test/machine.js';

const GPU = 0x10_0000_0000;
const VRAM = GPU + MEMORY_OFFSET;
const NIC = 0x10_0010_0000;
const PAGE = 0x1000;
/** A map without a file. */
const ROM = 0xfff0_0000;
const ROM_BYTES = 0x40000;

/** Guest pages 0 to 15 in an order of their own, so that a transfer must scatter: bus page n is file page PAGES[n]. */
const PAGES = [5, 4, 9, 1, 0, 15, 2, 3, 8, 7, 6, 14, 13, 12, 11, 10];

function numbered(lengthBytes: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, index) => 1 + index * 13 + (index >> 8));
}

describe('DMA of a function', () => {
  let machine: TestMachine;
  let guest: TestGuest;
  let gpu: TestFunction;
  let nic: TestFunction;
  let client: TestClient;

  beforeEach(() => {
    machine = new TestMachine();
    guest = machine.addGuest(PAGES.length * PAGE);
    gpu = machine.addFunction('gpu0');
    nic = machine.addFunction('rdma0');
    for (const each of [gpu, nic]) {
      for (const [page, filePage] of PAGES.entries()) guest.mapInto(each, page * PAGE, PAGE, filePage * PAGE);
    }
    gpu.decodeAt(GPU);
    nic.decodeAt(NIC);
    client = new TestClient(ROM, ROM_BYTES);
    nic.messages = client;
    nic.dmaSpace.map({ address: ROM, sizeBytes: ROM_BYTES, offset: 0, readable: true, writable: true }, undefined);
  });

  afterEach(() => machine.close());

  /** Guest memory as the bus shows it. */
  const busContents = (address: number, lengthBytes: number) =>
    Uint8Array.from({ length: lengthBytes }, (_, index) => {
      const at = address + index;
      return guest.contents(PAGES[Math.floor(at / PAGE)]! * PAGE + (at % PAGE), 1)[0]!;
    });
  const counters = () => machine.fabric.snapshot().rdma0!;
  const read = (address: number, lengthBytes: number) => {
    const bytes = new Uint8Array(lengthBytes);
    nic.dma.read(address, bytes);
    return bytes;
  };

  it('scatters writes and gathers reads over mappings', () => {
    const data = numbered(3 * PAGE + 77);
    nic.dma.write(PAGE - 40, data);
    assert.deepEqual(busContents(PAGE - 40, data.length), data);
    assert.deepEqual(busContents(PAGE - 41, 1), Uint8Array.of(0));
    assert.deepEqual(busContents(PAGE - 40 + data.length, 1), Uint8Array.of(0));
    assert.deepEqual(read(PAGE - 40, data.length), data);
    assert.deepEqual(counters().guestMemory, {
      bytesRead: data.length,
      bytesWritten: data.length,
      registerReads: 0,
      registerWrites: 0,
    });
  });

  it('counts the first part of a request that fails in the middle', () => {
    const end = PAGES.length * PAGE;
    assert.throws(() => nic.dma.write(end - 10, numbered(20)), {
      failure: 'unsupported-request',
      address: end,
      lengthBytes: 10,
    });
    assert.deepEqual(busContents(end - 10, 10), numbered(10));
    assert.equal(counters().guestMemory.bytesWritten, 10);
    assert.equal(counters().failedRequests, 1);
  });

  it('refuses addresses that are none', () => {
    for (const address of [-1, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY]) {
      assert.throws(() => nic.dma.readU32(address), { failure: 'unsupported-request' }, String(address));
      assert.throws(() => nic.dma.write(address, numbered(2)), { failure: 'unsupported-request' }, String(address));
      assert.throws(() => nic.dma.copy(0, address, 4), { failure: 'unsupported-request' }, String(address));
    }
    for (const length of [-1, 0.5, Number.NaN]) {
      assert.throws(() => nic.dma.fill(0, 0, length), RangeError);
      assert.throws(() => nic.dma.copy(0, 100, length), RangeError);
    }
  });

  it('does nothing for no bytes, anywhere', () => {
    nic.dma.write(2 ** 40, new Uint8Array(0));
    nic.dma.copy(2 ** 40, 2 ** 41, 0);
    nic.dma.fill(2 ** 40, 0, 0);
    assert.equal(counters().failedRequests, 0);
  });

  describe('accessors', () => {
    const places: [title: string, address: number][] = [
      ['guest memory', 0x100],
      ['unaligned guest memory', 0x103],
      ['guest memory across two mappings', PAGE - 1],
      ['memory of a peer', VRAM + 0x40],
      ['a map without a file', ROM + 0x10],
    ];
    for (const [title, address] of places) {
      it(`have the right width and order of bytes: ${title}`, () => {
        const { dma } = nic;
        const stored = (lengthBytes: number) => Buffer.from(read(address, lengthBytes)).toString('hex');
        dma.writeU64(address, 0x0102030405060708n);
        assert.equal(stored(8), '0807060504030201');
        assert.equal(dma.readU64(address), 0x0102030405060708n);
        assert.equal(dma.readU64BE(address), 0x0807060504030201n);
        assert.equal(dma.readU32(address), 0x05060708);
        assert.equal(dma.readU32BE(address), 0x08070605);
        assert.equal(dma.readU16(address), 0x0708);
        assert.equal(dma.readU16BE(address), 0x0807);
        assert.equal(dma.readU8(address), 8);
        dma.writeU64BE(address, 0xfffefdfcfbfaf9f8n);
        assert.equal(stored(8), 'fffefdfcfbfaf9f8');
        assert.equal(dma.readU64BE(address), 0xfffefdfcfbfaf9f8n);
        assert.equal(dma.readU32BE(address), 0xfffefdfc);
        dma.writeU32(address, 0xdeadbeef);
        assert.equal(stored(5), 'efbeaddefb');
        dma.writeU32BE(address, 0xdeadbeef);
        assert.equal(stored(5), 'deadbeeffb');
        dma.writeU16(address, 0x1234);
        assert.equal(stored(3), '3412be');
        dma.writeU16BE(address, 0x1234);
        assert.equal(stored(3), '1234be');
        dma.writeU8(address, 0x99);
        assert.equal(stored(2), '9934');
      });
    }
  });

  describe('copy', () => {
    const length = 2 * PAGE + 123;

    it('moves between guest memory and a peer straight, exactly counted', () => {
      nic.dma.write(0x80, numbered(length));
      machine.fabric.resetCounters();
      nic.dma.copy(VRAM + 5, 0x80, length);
      assert.deepEqual(gpu.contents(REGION_SHIFT + 5, length), numbered(length));
      nic.dma.copy(6 * PAGE + 9, VRAM + 5, length);
      assert.deepEqual(busContents(6 * PAGE + 9, length), numbered(length));
      const { guestMemory, peers } = counters();
      assert.deepEqual([guestMemory.bytesRead, guestMemory.bytesWritten], [length, length]);
      assert.deepEqual([peers.gpu0!.bytesRead, peers.gpu0!.bytesWritten], [length, length]);
    });

    it('moves from peer to peer without guest memory', () => {
      nic.region.write(REGION_SHIFT, numbered(length));
      const third = machine.addFunction('copier');
      guest.mapInto(third, 0, PAGE);
      third.dma.copy(VRAM, NIC + MEMORY_OFFSET, length);
      assert.deepEqual(gpu.contents(REGION_SHIFT, length), numbered(length));
      const { guestMemory, peers } = machine.fabric.snapshot().copier!;
      assert.deepEqual([guestMemory.bytesRead, guestMemory.bytesWritten], [0, 0]);
      assert.deepEqual([peers.rdma0!.bytesRead, peers.gpu0!.bytesWritten], [length, length]);
    });

    it('passes messages and registers through a buffer, whatever the size', () => {
      const large = 0x20000;
      client.bytes.set(numbered(large), 3);
      nic.dma.copy(VRAM, ROM + 3, large);
      assert.deepEqual(gpu.contents(REGION_SHIFT, large), numbered(large));
      nic.dma.copy(ROM + 0x20000, VRAM, 0x18000);
      assert.deepEqual(client.bytes.subarray(0x20000, 0x38000), numbered(0x18000));
      assert.deepEqual([counters().messages.bytesRead, counters().messages.bytesWritten], [large, 0x18000]);
      nic.dma.copy(GPU + DOORBELL_OFFSET, VRAM, 16);
      machine.runPosted();
      const hex = Buffer.from(numbered(16)).toString('hex');
      assert.deepEqual(gpu.accesses, [`write ff000=${hex.slice(0, 16)}`, `write ff008=${hex.slice(16)}`]);
      nic.dma.copy(0, GPU + DOORBELL_OFFSET, 16);
      assert.deepEqual(busContents(0, 16), new Uint8Array(16).fill(0x5a));
    });

    it('looks memory up again when a message let the client unmap it', () => {
      const file = PAGES[0]! * PAGE;
      guest.memory.writeU32(file, 0xcafe);
      client.whileWaiting = () => {
        client.whileWaiting = () => {};
        nic.dmaSpace.unmap(0, PAGE);
      };
      assert.throws(() => nic.dma.copy(0, ROM, 8), { failure: 'unsupported-request' });
      assert.equal(guest.memory.readU32(file), 0xcafe);
    });

    it("moves from and to the function's own memory", () => {
      nic.region.write(100, numbered(length));
      nic.dma.writeFrom(VRAM + 1, nic.region, 100, length);
      assert.deepEqual(gpu.contents(REGION_SHIFT + 1, length), numbered(length));
      nic.dma.readInto(VRAM + 1, nic.region, 0x10003, length);
      assert.deepEqual(nic.contents(0x10003, length), numbered(length));
      nic.dma.writeFrom(ROM, nic.region, 100, length);
      assert.deepEqual(client.bytes.subarray(0, length), numbered(length));
      nic.dma.readInto(ROM, nic.region, 0x20000, length);
      assert.deepEqual(nic.contents(0x20000, length), numbered(length));
      const { peers, messages, guestMemory } = counters();
      assert.deepEqual(peers, {
        gpu0: { bytesRead: length, bytesWritten: length, registerReads: 0, registerWrites: 0 },
      });
      assert.deepEqual([messages.bytesRead, messages.bytesWritten], [length, length]);
      assert.deepEqual([guestMemory.bytesRead, guestMemory.bytesWritten], [0, 0]);
      assert.throws(() => nic.dma.writeFrom(0, nic.region, nic.region.sizeBytes - 1, 2), RangeError);
    });
  });

  describe('fill', () => {
    it('crosses mappings', () => {
      nic.dma.fill(PAGE - 3, 0xc7, PAGE + 6);
      assert.deepEqual(busContents(PAGE - 4, PAGE + 8), Uint8Array.of(0, ...new Array(PAGE + 6).fill(0xc7), 0));
      assert.equal(counters().guestMemory.bytesWritten, PAGE + 6);
    });

    it('with zero gives pages of a peer back', () => {
      nic.dma.fill(VRAM, 1, 0x80000);
      assert.equal(gpu.region.allocatedBytes(), 0x80000);
      nic.dma.fill(VRAM, 0, 0x80000);
      assert.equal(gpu.region.allocatedBytes(), 0);
      assert.equal(counters().peers.gpu0!.bytesWritten, 0x100000);
    });

    it('reaches registers and messages in pieces', () => {
      nic.dma.fill(ROM, 0x33, 0x18000);
      assert.ok(client.bytes.subarray(0, 0x18000).every((byte) => byte === 0x33));
      assert.deepEqual(client.messages, ['write fff00000+65536', 'write fff10000+32768']);
      nic.dma.fill(GPU, 0x44, 12);
      machine.runPosted();
      assert.deepEqual(gpu.accesses, ['write 0=4444444444444444', 'write 8=44444444']);
    });
  });

  describe('messages', () => {
    it('that fail are DMA errors with the reason', () => {
      for (const [errno, failure] of [
        [ERRNO.EDEADLK, 'would-deadlock'],
        [ERRNO.ENODEV, 'message-failed'],
      ] as const) {
        client.error = new SystemError('DMA message', errno);
        assert.throws(() => nic.dma.readU32(ROM), { name: 'DmaError', failure, message: /DMA message/ });
      }
      nic.messages = undefined;
      assert.throws(() => nic.dma.writeU32(ROM, 1), { failure: 'message-failed', message: /no client/ });
      assert.equal(counters().failedRequests, 3);
      assert.equal(counters().messages.bytesRead, 0);
    });

    it('do not hide a programming error', () => {
      client.error = new TypeError('oops');
      assert.throws(() => nic.dma.readU32(ROM), TypeError);
    });

    it('respect the protection of their map', () => {
      nic.dmaSpace.unmap(ROM, ROM_BYTES);
      nic.dmaSpace.map({ address: ROM, sizeBytes: ROM_BYTES, offset: 0, readable: true, writable: false }, undefined);
      assert.throws(() => nic.dma.writeU32(ROM, 1), { failure: 'access-denied' });
      assert.deepEqual(client.messages, []);
    });
  });

  it('moves what a plain array would, whatever is asked', () => {
    const size = PAGES.length * PAGE;
    const model = new Uint8Array(size);
    let state = 12345;
    const random = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (let step = 0; step < 3000; step++) {
      const length = 1 + random(random(4) === 0 ? 3 * PAGE : 24);
      const [from, to] = [random(size - length), random(size - length)];
      if (random(4) === 0 && (to + length <= from || from + length <= to)) {
        nic.dma.copy(to, from, length);
        model.copyWithin(to, from, from + length);
      } else if (random(3) === 0) {
        nic.dma.fill(to, step, length);
        model.fill(step, to, to + length);
      } else if (random(2) === 0) {
        const value = random(2 ** 32);
        nic.dma.writeU32(Math.min(to, size - 4), value);
        new DataView(model.buffer).setUint32(Math.min(to, size - 4), value, true);
      } else {
        const data = numbered(length);
        nic.dma.write(to, data);
        model.set(data, to);
      }
      assert.ok(Buffer.from(read(from, length)).equals(model.subarray(from, from + length)), `step ${step}`);
    }
    assert.ok(Buffer.from(read(0, size)).equals(model));
  });
});
