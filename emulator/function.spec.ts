import assert from 'node:assert/strict';
import { Bus } from './bus.js';
import { EmulatedFunction } from './function.js';
import { createMemfd, duplicateFd } from './host/index.js';
import { Fabric } from './memory/fabric.js';
import { createMemoryRegion } from './memory/region.js';
import {
  type FunctionPort,
  type MemoryRegion,
  msi,
  type PcieFunction,
  pciExpress,
  type RegisterHandler,
  type ResetKind,
} from './plugin/index.js';
import { RecordingLog } from './testing/index.js';
import { IRQ, REGION } from './vfio-user/device.js';

const MEMORY_BYTES = 2 * 1024 * 1024;
const COMMAND = 0x04;
const MEMORY_AND_MASTER = 0x6;

/** BAR0: one page of registers; BAR2: memory. */
class Model implements PcieFunction {
  readonly identity = {
    vendorId: 0x1234,
    deviceId: 0x5678,
    subsystemVendorId: 1,
    subsystemId: 2,
    classCode: 0xff0000,
    revisionId: 3,
  };
  readonly memory = createMemoryRegion('memory', MEMORY_BYTES);
  linkMemory?: MemoryRegion;
  readonly writes: [number, number][] = [];
  readonly resets: ResetKind[] = [];
  onWrite: (value: number) => void = () => {};
  port!: FunctionPort;
  readonly #registers: RegisterHandler = {
    read: (offset) => offset + 1,
    write: (offset, _size, value) => {
      this.writes.push([offset, value]);
      this.onWrite(value);
    },
  };
  readonly bars = [
    {
      index: 0,
      kind: 'memory32',
      sizeBytes: 4096,
      parts: [{ offset: 0, sizeBytes: 4096, registers: this.#registers }],
    },
    {
      index: 2,
      kind: 'memory64',
      prefetchable: true,
      sizeBytes: MEMORY_BYTES,
      parts: [{ offset: 0, sizeBytes: MEMORY_BYTES, memory: this.memory }],
    },
  ] as const;
  readonly capabilities = [msi({ vectors: 1 }), pciExpress({ functionLevelReset: true })];
  readonly configRegisters = [{ offset: 0xff0, sizeBytes: 16, registers: this.#registers }];

  attach(port: FunctionPort): void {
    this.port = port;
  }

  reset(kind: ResetKind): void {
    this.resets.push(kind);
  }
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

describe('EmulatedFunction', () => {
  let bus: Bus;
  let fabric: Fabric;
  let log: RecordingLog;
  let functions: EmulatedFunction[];

  beforeEach(() => {
    log = new RecordingLog();
    bus = new Bus({ log });
    fabric = new Fabric({ schedule: (_member, work) => bus.postPeerWrite(work) });
    functions = [];
  });

  afterEach(() => {
    for (const emulated of functions) {
      emulated.close();
      (emulated.model as Model).memory.close();
    }
    bus.close();
  });

  function add(name: string): { model: Model; emulated: EmulatedFunction } {
    const model = new Model();
    const sibling = (other: string) => functions.find((candidate) => candidate.name === other)?.model;
    const emulated = new EmulatedFunction(name, model, { bus, fabric, log, sibling });
    functions.push(emulated);
    return { model, emulated };
  }

  function place(emulated: EmulatedFunction, registersAt: number, memoryAt: number): void {
    emulated.regionWrite(REGION.CONFIG, 0x10, u32(registersAt));
    emulated.regionWrite(REGION.CONFIG, 0x18, u32(memoryAt));
    emulated.regionWrite(REGION.CONFIG, 0x1c, u32(0));
    emulated.regionWrite(REGION.CONFIG, COMMAND, u32(MEMORY_AND_MASTER));
  }

  function read32(emulated: EmulatedFunction, region: number, offset: number): number {
    const bytes = new Uint8Array(4);
    emulated.regionRead(region, offset, bytes);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  function rest(): void {
    while (!bus.resting) bus.turn(0);
  }

  /** Both functions see the same guest memory, so they are one virtual machine. */
  function shareGuestMemory(...members: EmulatedFunction[]): void {
    const fds = createMemfd('guest', 1024 * 1024);
    for (const member of members) {
      member.dmaMap(
        { address: 0, sizeBytes: 1024 * 1024, readable: true, writable: true, offset: 0 },
        member === members.at(-1) ? fds : duplicateFd(fds),
      );
    }
  }

  it('answers registers, memory and configuration space', () => {
    const { model, emulated } = add('a');
    assert.equal(read32(emulated, 0, 8), 9);
    emulated.regionWrite(2, 0x100, u32(0xabcd));
    assert.equal(model.memory.readU32(0x100), 0xabcd);
    assert.equal(read32(emulated, REGION.CONFIG, 0), 0x56781234);
    assert.deepEqual(
      emulated.regions.map((region) => region.sizeBytes),
      [4096, 0, MEMORY_BYTES, 0, 0, 0, 0, 4096, 0],
    );
    assert.equal(emulated.irqs[IRQ.MSI]?.count, 1);
  });

  it('lets the model answer vendor registers in configuration space, also inside a larger read', () => {
    const { model, emulated } = add('a');
    assert.equal(read32(emulated, REGION.CONFIG, 0xff4), 5);
    emulated.regionWrite(REGION.CONFIG, 0xff8, u32(7));
    assert.deepEqual(model.writes, [[8, 7]]);
    const all = new Uint8Array(4096);
    emulated.regionRead(REGION.CONFIG, 0, all);
    assert.equal(new DataView(all.buffer).getUint32(0xff4, true), 5);
  });

  it('moves bytes from one function into another by bus address, and counts exactly that pair', () => {
    const a = add('a');
    const b = add('b');
    shareGuestMemory(a.emulated, b.emulated);
    place(a.emulated, 0xe0000000, 0xe1000000);
    place(b.emulated, 0xe2000000, 0xe3000000);
    a.model.memory.write(0, new Uint8Array(100_000).fill(7));
    a.model.port.dma.writeFrom(0xe3000000 + 64, a.model.memory, 0, 100_000);
    assert.equal(b.model.memory.readU32(64), 0x07070707);
    assert.equal(a.emulated.counters.peers.b?.bytesWritten, 100_000);
    assert.deepEqual(Object.keys(a.emulated.counters.peers), ['b']);
    assert.equal(a.emulated.counters.guestMemory.bytesWritten, 0);
  });

  it("rings a peer's register by DMA after the handler has returned", () => {
    const a = add('a');
    const b = add('b');
    shareGuestMemory(a.emulated, b.emulated);
    place(a.emulated, 0xe0000000, 0xe1000000);
    place(b.emulated, 0xe2000000, 0xe3000000);
    a.model.onWrite = () => {
      a.model.port.dma.writeU32(0xe2000010, 42);
      assert.deepEqual(b.model.writes, []);
    };
    a.emulated.regionWrite(0, 0, u32(1));
    rest();
    assert.deepEqual(b.model.writes, [[0x10, 42]]);
    assert.equal(a.emulated.counters.peers.b?.registerWrites, 1);
  });

  it('reaches what another function offers on a private link, counted apart from the bus', () => {
    const [first, second] = [add('a'), add('b')];
    assert.equal(first.model.port.link('b'), undefined, 'offers nothing');
    second.model.linkMemory = second.model.memory;
    const link = first.model.port.link('b');
    link?.memory.writeU32(0x40, 7);
    link?.count('write', 4);
    link?.count('read', 8);
    assert.equal(second.model.memory.readU32(0x40), 7);
    const { links, peers } = first.emulated.counters;
    assert.deepEqual({ links, peers }, { links: { b: { bytesRead: 8, bytesWritten: 4 } }, peers: {} });
    assert.equal(first.model.port.link('c'), undefined, 'is not there');
  });

  it('reaches nobody while bus mastering is off', () => {
    const { model, emulated } = add('a');
    shareGuestMemory(emulated);
    assert.throws(() => model.port.dma.readU32(0), { failure: 'bus-master-disabled' });
    place(emulated, 0xe0000000, 0xe1000000);
    assert.equal(model.port.dma.readU32(0), 0);
  });

  it('keeps a fault of the model inside its function, until a reset', () => {
    const a = add('a');
    const b = add('b');
    a.model.onWrite = () => {
      throw new Error('boom');
    };
    a.emulated.regionWrite(0, 4, u32(0x1234));
    assert.match(a.emulated.broken ?? '', /0x00001234 at BAR0\+0x4 .*boom/);
    assert.equal(read32(a.emulated, 0, 0), 0xffffffff);
    assert.equal(read32(b.emulated, 0, 0), 1);
    assert.match(log.records.find(({ level }) => level === 'error')?.message ?? '', /a is broken/);
    a.emulated.reset();
    assert.equal(a.emulated.broken, undefined);
    assert.equal(read32(a.emulated, 0, 0), 1);
  });

  it('is gone when its model says so, until the machine resets it', () => {
    const { model, emulated } = add('a');
    shareGuestMemory(emulated);
    place(emulated, 0xe0000000, 0xe1000000);
    model.port.post(() => assert.fail('work of a function that is gone ran'));
    model.port.vanish();
    rest();
    assert.equal(read32(emulated, 0, 0), 0xffffffff);
    assert.equal(read32(emulated, REGION.CONFIG, 0), 0xffffffff, 'no vendor id');
    assert.deepEqual(emulated.windows(), []);
    assert.throws(() => model.port.dma.readU32(0), { failure: 'bus-master-disabled' });
    emulated.regionWrite(REGION.CONFIG, 4, Uint8Array.of(7, 0));
    emulated.reset();
    assert.notEqual(read32(emulated, REGION.CONFIG, 0), 0xffffffff);
    assert.equal(emulated.busMasterEnabled, false, 'what was written meanwhile is lost');
    assert.equal(read32(emulated, 0, 0), 1);
  });

  it('breaks on a fault in posted work, and the loop goes on', () => {
    const { model, emulated } = add('a');
    model.port.post(() => model.port.dma.writeU32(0x1000, 1));
    model.port.post(() => assert.fail('work of a broken function ran'));
    rest();
    assert.match(emulated.broken ?? '', /bus-master-disabled/);
  });

  it('resets on an FLR: work and timers dropped, decode off, model told', () => {
    const { model, emulated } = add('a');
    place(emulated, 0xe0000000, 0xe1000000);
    assert.equal(emulated.barAddress(0), 0xe0000000);
    model.port.post(() => assert.fail('work posted before the reset ran'));
    model.port.clock.after(0, () => assert.fail('a timer set before the reset ran'));
    const express = emulated.config.find(0x10)!;
    emulated.regionWrite(REGION.CONFIG, express + 8, Uint8Array.of(0, 0x80));
    rest();
    assert.deepEqual(model.resets, ['flr']);
    assert.equal(emulated.barAddress(0), undefined);
    assert.equal(emulated.broken, undefined);
  });
});
