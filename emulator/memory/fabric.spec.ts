import assert from 'node:assert/strict';
import { emptyFunctionCounters, emptyTransferCounters } from './counters.js';
import {
  BAR_BYTES,
  DOORBELL_OFFSET,
  MEMORY_BYTES,
  MEMORY_OFFSET,
  REGION_SHIFT,
  TestClient,
  type TestFunction,
  type TestGuest,
  TestMachine,
} from './test/machine.js';

const RAM_BYTES = 0x400000;
/** Bus addresses of the BARs: above guest memory. */
const GPU = 0x10_0000_0000;
const NIC = 0x10_0010_0000;

describe('fabric', () => {
  let machine: TestMachine;
  let guest: TestGuest;
  let gpu: TestFunction;
  let nic: TestFunction;

  beforeEach(() => {
    machine = new TestMachine();
    guest = machine.addGuest(RAM_BYTES);
    gpu = machine.addFunction('gpu0');
    nic = machine.addFunction('rdma0');
    for (const each of [gpu, nic]) guest.mapInto(each, 0, RAM_BYTES);
    gpu.decodeAt(GPU);
    nic.decodeAt(NIC);
  });

  afterEach(() => machine.close());

  const fails = (action: () => unknown, failure: string) => assert.throws(action, { name: 'DmaError', failure });

  it('routes to the memory of a peer, to guest memory, and nowhere else', () => {
    nic.dma.writeU32(GPU + MEMORY_OFFSET + 0x10, 0x11223344);
    assert.equal(gpu.region.readU32(REGION_SHIFT + 0x10), 0x11223344);
    nic.dma.writeU32(0x1000, 0x55667788);
    assert.equal(guest.memory.readU32(0x1000), 0x55667788);
    fails(() => nic.dma.writeU32(RAM_BYTES, 1), 'unsupported-request');
    fails(() => nic.dma.readU8(GPU - 1), 'unsupported-request');
    assert.deepEqual(machine.fabric.snapshot().rdma0, {
      ...emptyFunctionCounters(),
      guestMemory: { ...emptyTransferCounters(), bytesWritten: 4 },
      peers: { gpu0: { ...emptyTransferCounters(), bytesWritten: 4 } },
      failedRequests: 2,
    });
  });

  it("reaches the function's own BAR", () => {
    gpu.dma.writeU32(GPU + MEMORY_OFFSET, 5);
    assert.equal(gpu.region.readU32(REGION_SHIFT), 5);
    assert.equal(machine.fabric.snapshot().gpu0!.peers.gpu0!.bytesWritten, 4);
  });

  it('prefers a BAR to a DMA map at the same address, byte-exactly', () => {
    nic.dmaSpace.unmap(0, RAM_BYTES);
    guest.mapInto(nic, 0, 0x1000);
    guest.mapInto(nic, 0x100000, 0x200000);
    gpu.decodeAt(0x180000);
    nic.dma.fill(0x100000, 0xee, 0x200000);
    machine.runPosted();
    assert.deepEqual(guest.contents(0x7ffff, 2), Uint8Array.of(0xee, 0));
    assert.deepEqual(guest.contents(0x17ffff, 2), Uint8Array.of(0, 0xee));
    const { guestMemory, peers } = machine.fabric.snapshot().rdma0!;
    assert.equal(guestMemory.bytesWritten, 0x200000 - BAR_BYTES);
    assert.equal(peers.gpu0!.bytesWritten, MEMORY_BYTES);
    assert.equal(peers.gpu0!.registerWrites, (BAR_BYTES - MEMORY_BYTES) / 8);
  });

  it('stops every request while Bus Master Enable is clear', () => {
    nic.busMasterEnabled = false;
    fails(() => nic.dma.writeU32(0x1000, 1), 'bus-master-disabled');
    fails(() => nic.dma.readU32(GPU + MEMORY_OFFSET), 'bus-master-disabled');
    fails(() => nic.dma.copy(0x1000, GPU + MEMORY_OFFSET, 16), 'bus-master-disabled');
    fails(() => nic.dma.fill(0x1000, 1, 16), 'bus-master-disabled');
    assert.equal(guest.memory.readU32(0x1000), 0);
    assert.equal(machine.fabric.snapshot().rdma0!.failedRequests, 4);
    nic.busMasterEnabled = true;
    nic.dma.writeU32(0x1000, 1);
    assert.equal(guest.memory.readU32(0x1000), 1);
  });

  it('follows a BAR that moves or stops decoding', () => {
    nic.dma.writeU8(GPU + MEMORY_OFFSET, 1);
    gpu.decodeAt(GPU + 0x1000_0000);
    fails(() => nic.dma.writeU8(GPU + MEMORY_OFFSET, 2), 'unsupported-request');
    nic.dma.writeU8(GPU + 0x1000_0000 + MEMORY_OFFSET + 1, 3);
    assert.deepEqual(gpu.contents(REGION_SHIFT, 2), Uint8Array.of(1, 3));
    gpu.decodeAt(undefined);
    fails(() => nic.dma.writeU8(GPU + 0x1000_0000 + MEMORY_OFFSET, 4), 'unsupported-request');
    assert.deepEqual(gpu.contents(REGION_SHIFT, 2), Uint8Array.of(1, 3));
  });

  it('lets protection of a map decide, and leaves memory unchanged', () => {
    nic.dmaSpace.close();
    guest.mapInto(nic, 0, 0x1000, 0, 'r');
    guest.mapInto(nic, 0x1000, 0x1000, 0x1000, 'w');
    guest.memory.writeU32(0xffc, 0x01010101);
    fails(() => nic.dma.writeU32(0, 7), 'access-denied');
    fails(() => nic.dma.readU32(0x1000), 'access-denied');
    fails(() => nic.dma.copy(0x800, 0x400, 4), 'access-denied');
    nic.dma.copy(0x1000, 0xffc, 4);
    assert.equal(guest.memory.readU32(0x1000), 0x01010101);
    assert.equal(guest.memory.readU32(0), 0);
  });

  it('leaves a range alone from the moment it is unmapped', () => {
    guest.memory.writeU32(0x2000, 0xcafe);
    nic.dma.writeU32(0x2004, 1);
    nic.dmaSpace.unmap(0, RAM_BYTES);
    fails(() => nic.dma.writeU32(0x2000, 0), 'unsupported-request');
    fails(() => nic.dma.readU32(0x2000), 'unsupported-request');
    assert.equal(guest.memory.readU32(0x2000), 0xcafe);
    gpu.dma.writeU32(0x2000, 0xbeef);
    assert.equal(guest.memory.readU32(0x2000), 0xbeef, "another function's map is its own");
  });

  describe('groups', () => {
    it('separate the functions of two machines', () => {
      const otherGuest = machine.addGuest(RAM_BYTES);
      const stranger = machine.addFunction('gpu1');
      otherGuest.mapInto(stranger, 0, RAM_BYTES);
      stranger.decodeAt(GPU);
      fails(() => stranger.dma.readU32(NIC + MEMORY_OFFSET), 'unsupported-request');
      nic.dma.writeU32(GPU + MEMORY_OFFSET, 1);
      assert.deepEqual([gpu.region.readU32(REGION_SHIFT), stranger.region.readU32(REGION_SHIFT)], [1, 0]);
    });

    it('begin with the first map of guest memory', () => {
      const late = machine.addFunction('late');
      late.decodeAt(0x20_0000_0000);
      fails(() => late.dma.readU32(GPU + MEMORY_OFFSET), 'unsupported-request');
      fails(() => nic.dma.readU32(0x20_0000_0000 + MEMORY_OFFSET), 'unsupported-request');
      late.dma.writeU32(0x20_0000_0000 + MEMORY_OFFSET, 9);
      guest.mapInto(late, 0, 0x1000);
      assert.equal(nic.dma.readU32(0x20_0000_0000 + MEMORY_OFFSET), 9);
      assert.equal(late.dma.readU32(GPU + MEMORY_OFFSET), 0);
    });

    it('outlast an unmap of everything and end with the client', () => {
      gpu.dmaSpace.unmapAll();
      assert.equal(nic.dma.readU32(GPU + MEMORY_OFFSET), 0);
      gpu.dmaSpace.close();
      fails(() => nic.dma.readU32(GPU + MEMORY_OFFSET), 'unsupported-request');
    });

    it('lose a function that leaves, whose name is free then', () => {
      assert.throws(() => machine.addFunction('gpu0'), /already has a function named gpu0/);
      gpu.port.leave();
      fails(() => nic.dma.readU32(GPU + MEMORY_OFFSET), 'unsupported-request');
      const next = machine.addFunction('gpu0');
      guest.mapInto(next, 0, RAM_BYTES);
      next.decodeAt(GPU);
      nic.dma.writeU32(GPU + MEMORY_OFFSET, 3);
      assert.equal(next.region.readU32(REGION_SHIFT), 3);
    });
  });

  describe('registers of a peer', () => {
    const doorbell = GPU + DOORBELL_OFFSET + 0x20;

    it('are written later, outside the handler of the requester, behind the data', () => {
      const seen: number[] = [];
      gpu.onAccess = () => seen.push(guest.memory.readU32(0x3000));
      nic.dma.writeU32(0x3000, 0xd0d0);
      nic.dma.writeU32(doorbell, 0x42);
      assert.deepEqual(gpu.accesses, []);
      machine.runPosted();
      assert.deepEqual(gpu.accesses, ['write ff020=42000000']);
      assert.deepEqual(seen, [0xd0d0]);
      assert.equal(machine.fabric.snapshot().rdma0!.peers.gpu0!.registerWrites, 1);
    });

    it('are read at once, behind the writes that wait', () => {
      nic.dma.writeU64(doorbell, 1n);
      assert.equal(nic.dma.readU32(GPU), 0x5a5a5a5a);
      assert.deepEqual(gpu.accesses, ['write ff020=0100000000000000', 'read 0+4']);
      machine.runPosted();
      assert.equal(gpu.accesses.length, 2);
      assert.deepEqual(machine.fabric.snapshot().rdma0!.peers.gpu0, {
        ...emptyTransferCounters(),
        registerWrites: 1,
        registerReads: 1,
      });
    });

    it('get naturally aligned accesses on both sides of memory', () => {
      nic.dma.write(GPU + MEMORY_OFFSET - 3, Uint8Array.of(1, 2, 3, 4, 5));
      machine.runPosted();
      assert.deepEqual(gpu.accesses, ['write ffd=01', 'write ffe=0203']);
      assert.deepEqual(gpu.contents(REGION_SHIFT, 3), Uint8Array.of(4, 5, 0));
      const target = new Uint8Array(6);
      nic.dma.read(GPU + DOORBELL_OFFSET - 2, target);
      assert.deepEqual(target, Uint8Array.of(0, 0, 0x5a, 0x5a, 0x5a, 0x5a));
      assert.deepEqual(machine.fabric.snapshot().rdma0!.peers.gpu0, {
        bytesRead: 2,
        bytesWritten: 2,
        registerReads: 1,
        registerWrites: 2,
      });
    });

    it('may be the own ones, from the own handler', () => {
      nic.onAccess = (access) => {
        if (access === 'write 0=01000000') nic.dma.writeU32(NIC + 8, 2);
      };
      gpu.dma.writeU32(NIC, 1);
      machine.runPosted();
      machine.runPosted();
      assert.deepEqual(nic.accesses, ['write 0=01000000', 'write 8=02000000']);
    });

    it('are not entered twice: a circle of reads fails and leaves everything usable', () => {
      let failure: unknown;
      gpu.onAccess = () => gpu.dma.readU32(NIC);
      nic.onAccess = () => {
        try {
          nic.dma.readU32(GPU);
        } catch (error) {
          ({ failure } = error as { failure: string });
        }
      };
      nic.dma.readU32(GPU);
      assert.equal(failure, 'would-deadlock');
      gpu.onAccess = nic.onAccess = () => {};
      assert.equal(nic.dma.readU32(GPU), 0x5a5a5a5a);
    });

    it('forget at a reset what was posted before', () => {
      nic.dma.writeU32(doorbell, 1);
      gpu.port.dropPostedWrites();
      nic.dma.writeU32(doorbell, 2);
      machine.runPosted();
      assert.deepEqual(gpu.accesses, ['write ff020=02000000']);
    });
  });

  describe('with an IOMMU that every request passes', () => {
    const flags = { offset: 0, readable: true, writable: true };

    beforeEach(() => {
      machine.close();
      machine = new TestMachine('iommu');
      guest = machine.addGuest(RAM_BYTES);
      gpu = machine.addFunction('gpu0');
      nic = machine.addFunction('rdma0');
      gpu.decodeAt(GPU);
      nic.decodeAt(NIC);
      guest.mapInto(gpu, 0, RAM_BYTES);
    });

    describe('and translates', () => {
      // A page of the guest at IOVA 0, as a program may have it.
      beforeEach(() => guest.mapInto(nic, 0, 0x1000, 0x1000));

      it('a bare BAR address faults', () => {
        fails(() => nic.dma.readU32(GPU + MEMORY_OFFSET), 'unsupported-request');
        fails(() => nic.dma.writeU32(GPU, 1), 'unsupported-request');
      });

      it('a BAR mapped at an IOVA is reached by messages', () => {
        const client = new TestClient(0xff00_0000, 0x1000);
        nic.messages = client;
        nic.dmaSpace.map({ ...flags, address: 0xff00_0000, sizeBytes: 0x1000 }, undefined);
        nic.dma.writeU32(0xff00_0010, 6);
        assert.equal(client.bytes[0x10], 6);
      });

      it('also at an IOVA that is some BAR’s address: it need not be that BAR', () => {
        const address = GPU + MEMORY_OFFSET;
        const client = new TestClient(address, 0x1000);
        nic.messages = client;
        nic.dmaSpace.map({ ...flags, address, sizeBytes: 0x1000 }, undefined);
        nic.dma.writeU32(address, 6);
        assert.equal(client.bytes[0], 6);
        assert.equal(gpu.region.readU32(REGION_SHIFT), 0);
        assert.deepEqual(nic.port.counters.peers, {});
      });

      it('guest memory mapped at an IOVA inside a window is guest memory, across the window’s parts', () => {
        guest.mapInto(nic, GPU, MEMORY_OFFSET + 0x1000, 0x4000);
        nic.dma.write(GPU + MEMORY_OFFSET - 1, Uint8Array.of(5, 6));
        assert.deepEqual(guest.contents(0x4000 + MEMORY_OFFSET - 1, 2), Uint8Array.of(5, 6));
        assert.equal(gpu.region.readU32(REGION_SHIFT), 0);
        machine.runPosted();
        assert.deepEqual(gpu.accesses, []);
      });

      it('a peer that it does not translate reaches BARs by address at the same time', () => {
        gpu.dma.writeU32(NIC + MEMORY_OFFSET, 6);
        assert.equal(nic.region.readU32(REGION_SHIFT), 6);
      });
    });

    describe('and does not translate', () => {
      beforeEach(() => guest.mapInto(nic, 0, RAM_BYTES));

      it('a BAR is reached by address, registers too', () => {
        nic.dma.writeU32(GPU + MEMORY_OFFSET, 6);
        assert.equal(gpu.region.readU32(REGION_SHIFT), 6);
        nic.dma.writeU32(GPU + 0x20, 1);
        machine.runPosted();
        assert.deepEqual(gpu.accesses, ['write 20=01000000']);
      });

      it('until it begins to, and again when it ends', () => {
        nic.dmaSpace.unmap(0, RAM_BYTES);
        fails(() => nic.dma.writeU32(GPU + MEMORY_OFFSET, 6), 'unsupported-request');
        guest.mapInto(nic, 0, RAM_BYTES);
        nic.dma.writeU32(GPU + MEMORY_OFFSET, 7);
        assert.equal(gpu.region.readU32(REGION_SHIFT), 7);
      });
    });
  });

  it('counts interrupts, and starts anew when told', () => {
    nic.port.countInterrupt(3);
    nic.port.countInterrupt(3);
    nic.dma.writeU8(GPU + MEMORY_OFFSET, 1);
    const before = machine.fabric.snapshot();
    assert.deepEqual(before.rdma0!.interrupts, { 3: 2 });
    machine.fabric.resetCounters();
    assert.deepEqual(machine.fabric.snapshot(), { gpu0: emptyFunctionCounters(), rdma0: emptyFunctionCounters() });
    assert.equal(before.rdma0!.peers.gpu0!.bytesWritten, 1, 'a snapshot is a copy');
    nic.dma.writeU8(GPU + MEMORY_OFFSET, 1);
    assert.equal(machine.fabric.snapshot().rdma0!.peers.gpu0!.bytesWritten, 1);
  });
});
