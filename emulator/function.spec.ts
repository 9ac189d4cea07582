import assert from 'node:assert/strict';
import { Bus } from './bus.js';
import { EmulatedFunction } from './function.js';
import { createMemfd, duplicateFd } from './host/index.js';
import { Fabric } from './memory/fabric.js';
import { createMemoryRegion } from './memory/region.js';
import {
  type FunctionModel,
  type FunctionPort,
  type MemoryRegion,
  msi,
  type PcieFunction,
  type PowerOnCause,
  pciExpress,
  type RegisterHandler,
} from './plugin/index.js';
import { RecordingLog } from './testing/index.js';
import { IRQ, REGION } from './vfio-user/device.js';

const MEMORY_BYTES = 2 * 1024 * 1024;
const COMMAND = 0x04;
const MEMORY_AND_MASTER = 0x6;

/** BAR0: one page of registers; BAR2: memory. */
class Card implements PcieFunction {
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
  /** Why each model was made. */
  readonly powerOns: PowerOnCause[] = [];
  /** What became of each model, in order. */
  powerOffs = 0;
  onWrite: (value: number) => void = () => {};
  onPowerOn: (model: FunctionModel) => FunctionModel = (model) => model;
  /** Of the model of the time. */
  port!: FunctionPort;
  readonly #registers: RegisterHandler = {
    read: (offset) => offset + 1,
    write: (offset, _size, value) => {
      this.writes.push([offset, value]);
      this.onWrite(value);
    },
  };
  readonly bars = [
    { index: 0, kind: 'memory32', sizeBytes: 4096 },
    { index: 2, kind: 'memory64', prefetchable: true, sizeBytes: MEMORY_BYTES },
  ] as const;
  readonly capabilities = [msi({ vectors: 1 }), pciExpress({ functionLevelReset: true })];

  powerOn(port: FunctionPort, cause: PowerOnCause): FunctionModel {
    this.port = port;
    this.powerOns.push(cause);
    return this.onPowerOn({
      bars: {
        0: [{ offset: 0, sizeBytes: 4096, registers: this.#registers }],
        2: [{ offset: 0, sizeBytes: MEMORY_BYTES, memory: this.memory }],
      },
      configRegisters: [{ offset: 0xff0, sizeBytes: 16, registers: this.#registers }],
      powerOff: () => {
        this.powerOffs++;
      },
    });
  }
}

/** Everything that a region has but its origin. */
function lookalike(memory: MemoryRegion): MemoryRegion {
  return Object.defineProperties({}, Object.getOwnPropertyDescriptors(memory)) as MemoryRegion;
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
      (emulated.card as Card).memory.close();
    }
    bus.close();
  });

  function add(name: string): { card: Card; emulated: EmulatedFunction } {
    const card = new Card();
    const sibling = (other: string) => functions.find((candidate) => candidate.name === other)?.card;
    const emulated = new EmulatedFunction(name, card, { bus, fabric, log, sibling });
    functions.push(emulated);
    return { card, emulated };
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
    const { card, emulated } = add('a');
    assert.equal(read32(emulated, 0, 8), 9);
    emulated.regionWrite(2, 0x100, u32(0xabcd));
    assert.equal(card.memory.readU32(0x100), 0xabcd);
    assert.equal(read32(emulated, REGION.CONFIG, 0), 0x56781234);
    assert.deepEqual(
      emulated.regions.map((region) => region.sizeBytes),
      [4096, 0, MEMORY_BYTES, 0, 0, 0, 0, 4096, 0],
    );
    assert.equal(emulated.irqs[IRQ.MSI]?.count, 1);
  });

  it('lets the model answer vendor registers in configuration space, also inside a larger read', () => {
    const { card, emulated } = add('a');
    assert.equal(read32(emulated, REGION.CONFIG, 0xff4), 5);
    emulated.regionWrite(REGION.CONFIG, 0xff8, u32(7));
    assert.deepEqual(card.writes, [[8, 7]]);
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
    a.card.memory.write(0, new Uint8Array(100_000).fill(7));
    a.card.port.dma.writeFrom(0xe3000000 + 64, a.card.memory, 0, 100_000);
    assert.equal(b.card.memory.readU32(64), 0x07070707);
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
    a.card.onWrite = () => {
      a.card.port.dma.writeU32(0xe2000010, 42);
      assert.deepEqual(b.card.writes, []);
    };
    a.emulated.regionWrite(0, 0, u32(1));
    rest();
    assert.deepEqual(b.card.writes, [[0x10, 42]]);
    assert.equal(a.emulated.counters.peers.b?.registerWrites, 1);
  });

  it('reaches what another function offers on a private link, counted apart from the bus', () => {
    const [first, second] = [add('a'), add('b')];
    assert.equal(first.card.port.link('b'), undefined, 'offers nothing');
    second.card.linkMemory = second.card.memory;
    const link = first.card.port.link('b');
    link?.memory.writeU32(0x40, 7);
    link?.count('write', 4);
    link?.count('read', 8);
    assert.equal(second.card.memory.readU32(0x40), 7);
    const { links, peers } = first.emulated.counters;
    assert.deepEqual({ links, peers }, { links: { b: { bytesRead: 8, bytesWritten: 4 } }, peers: {} });
    assert.equal(first.card.port.link('c'), undefined, 'is not there');
  });

  it('reaches nobody while bus mastering is off', () => {
    const { card, emulated } = add('a');
    shareGuestMemory(emulated);
    assert.throws(() => card.port.dma.readU32(0), { failure: 'bus-master-disabled' });
    place(emulated, 0xe0000000, 0xe1000000);
    assert.equal(card.port.dma.readU32(0), 0);
  });

  it('keeps a fault of the model inside its function, until a reset', () => {
    const a = add('a');
    const b = add('b');
    a.card.onWrite = () => {
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
    const { card, emulated } = add('a');
    shareGuestMemory(emulated);
    place(emulated, 0xe0000000, 0xe1000000);
    card.port.post(() => assert.fail('work of a function that is gone ran'));
    card.port.vanish();
    rest();
    assert.equal(read32(emulated, 0, 0), 0xffffffff);
    assert.equal(read32(emulated, REGION.CONFIG, 0), 0xffffffff, 'no vendor id');
    assert.deepEqual(emulated.windows(), []);
    assert.throws(() => card.port.dma.readU32(0), { failure: 'bus-master-disabled' });
    emulated.regionWrite(REGION.CONFIG, 4, Uint8Array.of(7, 0));
    emulated.reset();
    assert.notEqual(read32(emulated, REGION.CONFIG, 0), 0xffffffff);
    assert.equal(emulated.busMasterEnabled, false, 'what was written meanwhile is lost');
    assert.equal(read32(emulated, 0, 0), 1);
  });

  it('breaks on a fault in posted work, and the loop goes on', () => {
    const { card, emulated } = add('a');
    card.port.post(() => card.port.dma.writeU32(0x1000, 1));
    card.port.post(() => assert.fail('work of a broken function ran'));
    rest();
    assert.match(emulated.broken ?? '', /bus-master-disabled/);
  });

  it('resets on an FLR: work and timers dropped, decode off, a new model', () => {
    const { card, emulated } = add('a');
    place(emulated, 0xe0000000, 0xe1000000);
    assert.equal(emulated.barAddress(0), 0xe0000000);
    card.port.post(() => assert.fail('work posted before the reset ran'));
    card.port.clock.after(0, () => assert.fail('a timer set before the reset ran'));
    const express = emulated.config.find(0x10)!;
    emulated.regionWrite(REGION.CONFIG, express + 8, Uint8Array.of(0, 0x80));
    rest();
    assert.deepEqual(card.powerOns, ['attach', 'flr']);
    assert.equal(emulated.barAddress(0), undefined);
    assert.equal(emulated.broken, undefined);
  });

  it('makes a model at each reset, after the one before has let go', () => {
    const { card, emulated } = add('a');
    card.onPowerOn = (model) => {
      assert.equal(card.powerOffs, card.powerOns.length - 1, 'the old one is still on');
      return model;
    };
    emulated.reset();
    emulated.reset();
    assert.deepEqual(card.powerOns, ['attach', 'device', 'device']);
    emulated.close();
    functions.splice(0);
    card.memory.close();
    assert.equal(card.powerOffs, 3);
  });

  it('closes the port of a model that is thrown away: nothing of it reaches the machine any more', () => {
    const { card, emulated } = add('a');
    shareGuestMemory(emulated);
    place(emulated, 0xe0000000, 0xe1000000);
    const old = card.port;
    emulated.reset();
    place(emulated, 0xe0000000, 0xe1000000);
    old.post(() => assert.fail('work of a dead port ran'));
    old.clock.after(0, () => assert.fail('a timer of a dead port ran'));
    old.interrupt(0);
    old.restart();
    old.vanish();
    rest();
    assert.equal(old.busMasterEnabled, false);
    assert.equal(card.port.busMasterEnabled, true);
    const text = 'DMA of a after the end of its model (reset (device)): nothing is moved; the work that asked must end';
    assert.throws(() => old.dma.writeU32(0, 1), { name: 'PortClosedError', message: text });
    assert.throws(() => old.dma.copy(0, 0x1000, 64), { name: 'PortClosedError' });
    assert.deepEqual(card.powerOns, ['attach', 'device']);
    assert.equal(emulated.broken, undefined);
  });

  it('lets work end that finds its port closed, and tells of any other fault of a model that is gone', () => {
    const { card, emulated } = add('a');
    const old = card.port;
    old.post(() => {
      emulated.reset();
      old.dma.readU32(0);
    });
    rest();
    assert.equal(emulated.broken, undefined);
    assert.equal(log.records.length, 0);
    card.port.post(() => {
      emulated.reset();
      throw new Error('boom');
    });
    rest();
    assert.equal(emulated.broken, undefined);
    assert.match(log.records.at(-1)?.message ?? '', /a: posted work failed in a model that was thrown away.*: boom/);
  });

  it('restarts when its model asks for it, and keeps its place on the bus', () => {
    const { card, emulated } = add('a');
    place(emulated, 0xe0000000, 0xe1000000);
    const old = card.port;
    card.onWrite = () => {
      old.restart();
      assert.notEqual(card.port, old, 'the new model is there when the call returns');
    };
    old.post(() => assert.fail('work of the old model ran'));
    emulated.regionWrite(0, 0, u32(1));
    rest();
    assert.deepEqual(card.powerOns, ['attach', 'self']);
    assert.equal(emulated.barAddress(0), 0xe0000000);
    assert.equal(read32(emulated, 0, 0), 1);
  });

  it('is broken when its model cannot be made after a reset, until a reset in which it can', () => {
    const { card, emulated } = add('a');
    card.onPowerOn = () => {
      throw new Error('no firmware');
    };
    emulated.reset();
    assert.equal(emulated.broken, 'power-on after a reset (device) failed: no firmware');
    assert.equal(read32(emulated, 0, 0), 0xffffffff);
    assert.match(log.records.at(-1)?.message ?? '', /a is broken: power-on .* a reset of the function brings it back/);
    card.port.post(() => assert.fail('work of a model that was not made ran'));
    rest();
    card.onPowerOn = (model) => model;
    emulated.reset();
    assert.equal(emulated.broken, undefined);
    assert.equal(read32(emulated, 0, 0), 1);
  });

  it('is broken when a model has other memory than the first, which guests have mapped', () => {
    const { card, emulated } = add('a');
    card.onPowerOn = (model) => ({ ...model, bars: { 0: model.bars[0]! } });
    emulated.reset();
    assert.match(emulated.broken ?? '', /BAR2 has no memory where it had 2097152 bytes of memory\+0x0 at 0x0 at first/);
  });

  it('is refused when its model cannot be made at first, or does not fit its BARs, and leaves nothing behind', () => {
    const card = new Card();
    const attach = () => new EmulatedFunction('a', card, { bus, fabric, log, sibling: () => undefined });
    const wrong: [RegExp, (model: FunctionModel) => FunctionModel][] = [
      [/^a cannot be put on the bus: no firmware$/, () => assert.fail('no firmware')],
      [/BAR4, which is not declared/, (model) => ({ bars: { ...model.bars, 4: [] } })],
      [/BAR 0: part at 0x0 ends at 2097152, beyond/, (model) => ({ bars: { 0: model.bars[2]! } })],
      [
        /^a cannot be put on the bus: BAR 2: memory at 0x0 is "memory", which context.createMemory did not make/,
        () => ({ bars: { 2: [{ offset: 0, sizeBytes: MEMORY_BYTES, memory: lookalike(card.memory) }] } }),
      ],
      [/must not call restart/, () => card.port.restart() as never],
    ];
    for (const [message, onPowerOn] of wrong) {
      card.onPowerOn = onPowerOn;
      assert.throws(attach, { message });
      assert.throws(() => card.port.dma.readU32(0), { name: 'PortClosedError' });
    }
    card.onPowerOn = (model) => model;
    card.linkMemory = lookalike(card.memory);
    assert.throws(attach, /^Error: a: linkMemory is "memory", which context.createMemory did not make/);
    delete card.linkMemory;
    functions.push(attach());
  });
});
