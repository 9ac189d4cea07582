import assert from 'node:assert/strict';
import { SLICE_BYTES } from 'ghostbus';
import { TestBus, type TestFunction } from 'ghostbus/testing';
import { COMPLETION_OFFSET, DESCRIPTOR_BYTES, type Descriptor, encodeDescriptor, flags, status } from './descriptor.js';
import { haltReason } from './engine.js';
import plugin from './index.js';
import { bar0, cause, control, ID_VALUE, MEMORY_BAR, statusBits, VERSION_VALUE, vectors } from './registers.js';

/** Where the list of capabilities begins, and the ids in it (linux/pci_regs.h). */
const CAPABILITIES = 0x34;
const POWER_MANAGEMENT = 0x01;
const PCI_EXPRESS = 0x10;
const MSIX = 0x11;

const CONTROL = 0x08;
const STATUS = 0x0c;
const RING_BASE_LO = 0x20;
const RING_BASE_HI = 0x24;
const RING_SIZE = 0x28;
const HEAD = 0x2c;
const TAIL = 0x30;
const INTERRUPT_STATUS = 0x40;
const INTERRUPT_ENABLE = 0x44;
const ERROR = 0x48;

const MIB = 2 ** 20;
const RING = 0x1000;
const LOG2_ENTRIES = 3;
const ENTRIES = 2 ** LOG2_ENTRIES;

/** A driver in thirty lines: what the guest module does, without a kernel. */
class Driver {
  readonly bus: TestBus;
  readonly fn: TestFunction;
  readonly ring: number;
  #tail = 0;

  constructor(bus: TestBus, name = 'example0', ring = RING) {
    this.bus = bus;
    this.ring = ring;
    this.fn = bus.add(name, plugin.create({ memory: 16 * MIB }, bus.context(name)), plugin.commands);
  }

  start(): void {
    this.#tail = 0;
    this.fn.write(0, RING_BASE_LO, this.ring);
    this.fn.write(0, RING_BASE_HI, 0);
    this.fn.write(0, RING_SIZE, LOG2_ENTRIES);
    this.fn.write(0, INTERRUPT_ENABLE, cause.completion | cause.halt);
    this.fn.write(0, CONTROL, control.enable);
  }

  /** Puts descriptors into the ring and rings the doorbell once. Returns their indices. */
  submit(...descriptors: Partial<Descriptor>[]): number[] {
    const indices = descriptors.map((descriptor) => {
      const index = this.#tail;
      const whole = { source: 0n, destination: 0n, lengthBytes: 1, flags: 0, ...descriptor };
      this.bus.guestMemory.write(this.ring + index * DESCRIPTOR_BYTES, encodeDescriptor(whole));
      this.#tail = (index + 1) % ENTRIES;
      return index;
    });
    this.doorbell(this.#tail);
    return indices;
  }

  doorbell(tail: number): void {
    this.fn.write(0, bar0.doorbellOffset, tail);
  }

  completion(index: number): { status: number; copiedBytes: number } {
    const address = this.ring + index * DESCRIPTOR_BYTES + COMPLETION_OFFSET;
    return { status: this.bus.guestMemory.readU32(address), copiedBytes: this.bus.guestMemory.readU32(address + 4) };
  }

  get statusRegister(): number {
    return this.fn.read(0, STATUS);
  }
}

function pattern(lengthBytes: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, index) => (index * 131 + seed * 17) & 0xff);
}

function guestBytes(bus: TestBus, address: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  bus.guestMemory.read(address, bytes);
  return bytes;
}

describe('example copy engine', () => {
  let bus: TestBus;
  let driver: Driver;

  beforeEach(() => {
    bus = new TestBus(32 * MIB);
    driver = new Driver(bus);
    driver.start();
  });

  afterEach(() => bus.close());

  it('names itself', () => {
    assert.equal(driver.fn.read(0, 0x00), ID_VALUE);
    assert.equal(driver.fn.read(0, 0x04), VERSION_VALUE);
    assert.equal(driver.statusRegister, statusBits.running);
  });

  it('fits into a configuration space', () => {
    const found = new Map<number, number>();
    for (let at = driver.fn.readConfig(CAPABILITIES, 1); at !== 0; at = driver.fn.readConfig(at + 1, 1)) {
      found.set(driver.fn.readConfig(at, 1), at);
    }
    assert.deepEqual([...found.keys()], [POWER_MANAGEMENT, PCI_EXPRESS, MSIX]);
    assert.equal((driver.fn.readConfig(found.get(MSIX)! + 2, 2) & 0x7ff) + 1, Object.keys(vectors).length);
  });

  it('copies from guest memory to guest memory and reports it', () => {
    bus.guestMemory.write(0x10001, pattern(1000));
    const [index] = driver.submit({
      source: 0x10001n,
      destination: 0x20003n,
      lengthBytes: 1000,
      flags: flags.interrupt,
    });
    assert.deepEqual(driver.completion(index!), { status: status.pending, copiedBytes: 0 });
    assert.equal(driver.statusRegister, statusBits.running | statusBits.busy, 'the doorbell itself copies nothing');
    bus.run();
    assert.deepEqual(guestBytes(bus, 0x20003, 1000), pattern(1000));
    assert.deepEqual(driver.completion(index!), { status: status.done, copiedBytes: 1000 });
    assert.equal(driver.statusRegister, statusBits.running);
    assert.deepEqual(driver.fn.interrupts, [vectors.completion]);
    assert.equal(driver.fn.read(0, INTERRUPT_STATUS), cause.completion);
    driver.fn.write(0, INTERRUPT_STATUS, cause.completion);
    assert.equal(driver.fn.read(0, INTERRUPT_STATUS), 0);
  });

  it('moves through device memory, which the CPU sees behind its BAR', () => {
    bus.guestMemory.write(0x10000, pattern(4096));
    driver.submit(
      { source: 0x10000n, destination: 0x3000n, lengthBytes: 4096, flags: flags.destinationIsLocal },
      {
        source: 0x3000n,
        destination: 0x9000n,
        lengthBytes: 4096,
        flags: flags.sourceIsLocal | flags.destinationIsLocal,
      },
      { source: 0x9000n, destination: 0x20000n, lengthBytes: 4096, flags: flags.sourceIsLocal },
    );
    bus.run();
    assert.deepEqual(guestBytes(bus, 0x20000, 4096), pattern(4096));
    assert.equal(driver.fn.read(MEMORY_BAR, 0x9000, 1), pattern(1)[0]);
    assert.equal(driver.fn.read(0, HEAD), 3);
    assert.equal(driver.fn.read(0, TAIL), 3);
    assert.deepEqual(driver.fn.interrupts, [], 'nobody asked for an interrupt');
  });

  it('copies into the memory of a peer by its bus address', () => {
    const peer = new Driver(bus, 'example1', 0x2000);
    bus.guestMemory.write(0x10000, pattern(64));
    driver.submit({ source: 0x10000n, destination: BigInt(peer.fn.barAddress(MEMORY_BAR) + 128), lengthBytes: 64 });
    bus.run();
    assert.equal(peer.fn.read(MEMORY_BAR, 128), new DataView(pattern(4).buffer).getUint32(0, true));
  });

  it("rings a peer's doorbell with immediate data: the peer starts without the CPU", () => {
    const peer = new Driver(bus, 'example1', 0x2000);
    peer.start();
    bus.guestMemory.write(0x10000, pattern(64));
    const prepared = { source: 0x10000n, destination: 0x20000n, lengthBytes: 64, flags: flags.interrupt };
    bus.guestMemory.write(peer.ring, encodeDescriptor(prepared));
    driver.submit({
      source: 1n,
      destination: BigInt(peer.fn.barAddress(0) + bar0.doorbellOffset),
      lengthBytes: 4,
      flags: flags.immediate,
    });
    bus.run();
    assert.deepEqual(peer.completion(0), { status: status.done, copiedBytes: 64 });
    assert.deepEqual(guestBytes(bus, 0x20000, 64), pattern(64));
    assert.deepEqual(peer.fn.interrupts, [vectors.completion]);
  });

  it('writes immediate data of every length', () => {
    for (let lengthBytes = 1; lengthBytes <= 8; lengthBytes++) {
      bus.guestMemory.fill(0x10000, 0xee, 16);
      const source = 0x8877665544332211n;
      driver.submit({ source, destination: 0x10000n, lengthBytes, flags: flags.immediate });
      bus.run();
      const expected = Array.from({ length: 16 }, (_, index) => (index < lengthBytes ? 0x11 * (index + 1) : 0xee));
      assert.deepEqual([...guestBytes(bus, 0x10000, 16)], expected);
    }
  });

  it('goes round the ring many times, each descriptor once and in order', () => {
    for (let round = 0; round < 5 * ENTRIES; round++) {
      const count = 1 + (round % (ENTRIES - 1));
      const first = driver.fn.read(0, HEAD);
      const indices = driver.submit(
        ...Array.from({ length: count }, (_, index) => ({
          source: BigInt(round * 16 + index),
          destination: BigInt(0x10000 + 4 * index),
          lengthBytes: 4,
          flags: flags.immediate | flags.interrupt,
        })),
      );
      bus.run();
      assert.equal(driver.fn.read(0, HEAD), (first + count) % ENTRIES);
      for (const [position, index] of indices.entries()) {
        assert.equal(driver.completion(index).status, status.done);
        assert.equal(bus.guestMemory.readU32(0x10000 + 4 * position), round * 16 + position);
      }
      assert.equal(driver.fn.interrupts.splice(0).length, count);
    }
  });

  it('copies in slices, so that other work gets its turn', () => {
    const lengthBytes = 2 * SLICE_BYTES + 5;
    bus.guestMemory.write(0x100000, pattern(lengthBytes));
    const [index] = driver.submit({
      source: 0x100000n,
      destination: 0n,
      lengthBytes,
      flags: flags.destinationIsLocal | flags.interrupt,
    });
    let slices = 0;
    while (driver.completion(index!).status === status.pending) {
      assert.ok(bus.runOne(), 'the engine has forgotten its work');
      slices++;
    }
    assert.ok(slices >= 3, `${slices} slices for ${lengthBytes} bytes`);
    assert.equal(driver.completion(index!).copiedBytes, lengthBytes);
    const copied = new Uint8Array(lengthBytes);
    driver.fn.readBytes(MEMORY_BAR, 0, copied);
    assert.equal(Buffer.compare(copied, pattern(lengthBytes)), 0);
  });

  const refused: readonly [string, Partial<Descriptor>][] = [
    ['no length', { lengthBytes: 0 }],
    ['an unknown flag', { flags: 1 << 4 }],
    ['nine immediate bytes', { lengthBytes: 9, flags: flags.immediate }],
    ['an immediate from device memory', { flags: flags.immediate | flags.sourceIsLocal }],
    ['a source beyond device memory', { source: BigInt(16 * MIB), flags: flags.sourceIsLocal }],
    ['a range that leaves device memory', { destination: BigInt(16 * MIB - 1), lengthBytes: 2, flags: 2 }],
    ['a source of 2^64-1', { source: 2n ** 64n - 1n }],
    ['a destination above 2^53', { destination: 2n ** 53n }],
    ['ranges that overlap', { source: 0x10000n, destination: 0x10010n, lengthBytes: 32 }],
  ];
  for (const [name, descriptor] of refused) {
    it(`refuses ${name} and goes on`, () => {
      const [bad, good] = driver.submit(descriptor, { source: 7n, destination: 0x20000n, flags: flags.immediate });
      bus.run();
      assert.deepEqual(driver.completion(bad!), { status: status.invalidDescriptor, copiedBytes: 0 });
      assert.equal(driver.completion(good!).status, status.done);
    });
  }

  it('reports an address that nobody claims and goes on', () => {
    const [bad, good] = driver.submit(
      { source: 0x10000n, destination: 0xdead_0000_0000n, lengthBytes: 64 },
      { source: 7n, destination: 0x20000n, flags: flags.immediate },
    );
    bus.run();
    assert.deepEqual(driver.completion(bad!), { status: status.unsupportedRequest, copiedBytes: 0 });
    assert.equal(driver.completion(good!).status, status.done);
  });

  it('fails the next descriptor on command', () => {
    driver.fn.control('fail-next', { status: status.injected });
    const [bad, good] = driver.submit(
      { source: 7n, destination: 0x20000n, flags: flags.immediate },
      { source: 8n, destination: 0x20001n, flags: flags.immediate },
    );
    bus.run();
    assert.deepEqual(driver.completion(bad!), { status: status.injected, copiedBytes: 0 });
    assert.equal(driver.completion(good!).status, status.done);
    assert.deepEqual([...guestBytes(bus, 0x20000, 2)], [0, 8]);
    assert.throws(() => driver.fn.control('explode', {}), /unknown command "explode"/);
    assert.throws(() => driver.fn.control('fail-next', {}), /needs a status/);
  });

  describe('halts', () => {
    function assertHalted(reason: number): void {
      assert.equal(driver.fn.read(0, ERROR), reason);
      assert.equal(driver.statusRegister, statusBits.halted);
      assert.deepEqual(driver.fn.interrupts, [vectors.halt]);
      assert.equal(driver.fn.read(0, INTERRUPT_STATUS), cause.halt);
    }

    it('on a tail outside the ring', () => {
      driver.doorbell(ENTRIES);
      assertHalted(haltReason.badTail);
    });

    it('on a ring that cannot be read', () => {
      driver.fn.write(0, CONTROL, 0);
      driver.fn.write(0, RING_BASE_HI, 0x100);
      driver.fn.write(0, CONTROL, control.enable);
      driver.doorbell(1);
      bus.run();
      assertHalted(haltReason.fetchFailed);
    });

    it('on a doorbell while the guest forbids bus mastering', () => {
      driver.fn.busMasterEnabled = false;
      driver.doorbell(1);
      bus.run();
      assertHalted(haltReason.fetchFailed);
    });

    for (const [name, log2Entries, baseHigh] of [
      ['of one entry', 0, 0],
      ['of 2^17 entries', 17, 0],
      ['above 2^53', LOG2_ENTRIES, 0xffffffff],
    ] as const) {
      it(`on a ring ${name}`, () => {
        driver.fn.write(0, CONTROL, 0);
        driver.fn.write(0, RING_SIZE, log2Entries);
        driver.fn.write(0, RING_BASE_HI, baseHigh);
        driver.fn.write(0, CONTROL, control.enable);
        assertHalted(haltReason.badRing);
      });
    }

    it('and starts again after CONTROL.RESET', () => {
      driver.doorbell(ENTRIES);
      driver.fn.write(0, CONTROL, control.reset);
      assert.equal(driver.statusRegister, 0);
      assert.equal(driver.fn.read(0, ERROR), haltReason.none);
      assert.equal(driver.fn.read(0, CONTROL), 0, 'RESET clears itself');
      driver.start();
      const [index] = driver.submit({ source: 7n, destination: 0x20000n, flags: flags.immediate });
      bus.run();
      assert.equal(driver.completion(index!).status, status.done);
    });
  });

  it('stays silent while its interrupts are masked, but remembers the cause', () => {
    driver.fn.write(0, INTERRUPT_ENABLE, 0);
    driver.submit({ source: 7n, destination: 0x20000n, flags: flags.immediate | flags.interrupt });
    bus.run();
    assert.deepEqual(driver.fn.interrupts, []);
    assert.equal(driver.fn.read(0, INTERRUPT_STATUS), cause.completion);
  });

  it('ignores a doorbell while stopped', () => {
    driver.fn.write(0, CONTROL, 0);
    driver.doorbell(1);
    assert.equal(bus.run(), 0);
    assert.equal(driver.statusRegister, 0);
    assert.match(driver.fn.log.records.map((record) => record.message).join(), /while the engine is stopped/);
  });

  it('drops a copy under way when it is reset, and forgets everything', () => {
    const lengthBytes = 2 * SLICE_BYTES;
    const [index] = driver.submit({ source: 0n, destination: 0n, lengthBytes, flags: flags.destinationIsLocal });
    bus.runOne();
    driver.fn.write(MEMORY_BAR, 0x100, 0x12345678);
    driver.fn.reset('flr');
    bus.run();
    assert.equal(driver.completion(index!).status, status.pending);
    assert.equal(driver.fn.read(MEMORY_BAR, 0x100), 0);
    assert.equal(driver.statusRegister, 0);
    assert.equal(driver.fn.read(0, RING_SIZE), 0);
    driver.start();
    const [again] = driver.submit({ source: 7n, destination: 0x20000n, flags: flags.immediate });
    bus.run();
    assert.equal(driver.completion(again!).status, status.done);
  });

  it('drops a copy under way at CONTROL.RESET and forgets everything but device memory', () => {
    const lengthBytes = 2 * SLICE_BYTES;
    driver.submit({ source: 7n, destination: 0x20000n, flags: flags.immediate });
    bus.run();
    const [index] = driver.submit({ source: 0n, destination: 0n, lengthBytes, flags: flags.destinationIsLocal });
    bus.runOne();
    driver.fn.control('fail-next', { status: status.injected });
    driver.fn.write(MEMORY_BAR, 0x100, 0x12345678);
    driver.fn.write(0, CONTROL, control.enable | control.reset);
    assert.equal(driver.fn.read(0, CONTROL), 0, 'RESET wins and clears itself at once');
    assert.equal(driver.fn.read(0, RING_SIZE), 0);
    bus.run();
    assert.equal(driver.completion(index!).status, status.pending);
    assert.equal(driver.fn.read(MEMORY_BAR, 0x100), 0x12345678);
    const { running, descriptors, bytes } = driver.fn.inspect() as Record<string, unknown>;
    assert.deepEqual({ running, descriptors, bytes }, { running: false, descriptors: 0, bytes: 0 });
    driver.start();
    const [again] = driver.submit({ source: 7n, destination: 0x20000n, flags: flags.immediate });
    bus.run();
    assert.equal(driver.completion(again!).status, status.done);
  });

  it('is loud about registers that it does not have', () => {
    assert.equal(driver.fn.read(0, 0x800), 0);
    driver.fn.write(0, 0x804, 1);
    const { unimplemented } = driver.fn.inspect() as { unimplemented: { offset: number }[] };
    assert.deepEqual(unimplemented.map((entry) => entry.offset).sort(), [0x800, 0x804]);
  });
});

describe('example options', () => {
  it('gives 16 MiB unless told otherwise, and at least 2 MiB', () => {
    assert.deepEqual(plugin.options.parse({}), { memory: 16 * MIB });
    assert.deepEqual(plugin.options.parse({ memory: '64M' }), { memory: 64 * MIB });
    assert.equal(plugin.options.safeParse({ memory: '1M' }).success, false);
    assert.equal(plugin.options.safeParse({ memory: '48M' }).success, false);
    assert.equal(plugin.options.safeParse({ color: 'red' }).success, false);
  });
});
