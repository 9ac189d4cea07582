import assert from 'node:assert/strict';
import { openFdCount } from '../host/index.js';
import {
  type FunctionModel,
  type FunctionPort,
  type MemoryRegion,
  msix,
  type PcieFunction,
  type PowerOnCause,
  pciExpress,
} from '../plugin/index.js';
import { ManualClock, openTestBuses, TestBus, type TestFunction } from './index.js';

const MIB = 2 ** 20;
const DOORBELL = 0x10;

/** BAR0: registers that tell the test what is written; BAR2: memory. */
class Card implements PcieFunction {
  readonly identity = {
    vendorId: 0x1234,
    deviceId: 1,
    subsystemVendorId: 0,
    subsystemId: 0,
    classCode: 0xff0000,
    revisionId: 0,
  };
  readonly bars = [
    { index: 0, kind: 'memory32', sizeBytes: 0x4000 },
    { index: 2, kind: 'memory64', prefetchable: true, sizeBytes: MIB },
  ] as const;
  readonly capabilities = [
    pciExpress({ functionLevelReset: true }),
    msix({ vectors: 4, tableBar: 0, tableOffset: 0x2000, pendingBar: 0, pendingOffset: 0x3000 }),
  ];
  readonly memory: MemoryRegion;
  readonly causes: PowerOnCause[] = [];
  readonly writes: number[] = [];
  onWrite: (value: number, port: FunctionPort) => void = () => {};
  port!: FunctionPort;

  constructor(memory: MemoryRegion) {
    this.memory = memory;
  }

  powerOn(port: FunctionPort, cause: PowerOnCause): FunctionModel {
    this.port = port;
    this.causes.push(cause);
    const registers = {
      read: (offset: number) => offset,
      write: (_offset: number, _sizeBytes: number, value: number) => {
        this.writes.push(value);
        this.onWrite(value, port);
      },
    };
    return {
      bars: {
        0: [{ offset: 0, sizeBytes: 0x1000, registers }],
        2: [{ offset: 0, sizeBytes: MIB, memory: this.memory }],
      },
    };
  }
}

describe('TestBus', () => {
  let bus: TestBus;
  let card: Card;
  let fn: TestFunction;
  let peerCard: Card;
  let peer: TestFunction;

  beforeEach(() => {
    bus = new TestBus();
    [card, peerCard] = [new Card(bus.createMemory('one', MIB)), new Card(bus.createMemory('two', MIB))];
    fn = bus.add('fn0', card);
    peer = bus.add('fn1', peerCard);
  });

  afterEach(() => bus.close());

  it('is what a driver finds: BARs that decode, bus mastering, configuration space, guest memory at 0', () => {
    assert.equal(fn.readConfig(0), 0x0001_1234);
    assert.equal(fn.read(0, 8), 8);
    fn.write64(2, 0x100, 0x1122_3344_5566_7788n);
    assert.equal(card.memory.readU64(0x100), 0x1122_3344_5566_7788n);
    assert.equal(fn.read(2, 0x104, 2), 0x3344);
    card.port.dma.writeU32(0x2000, 7);
    assert.equal(bus.guestMemory.readU32(0x2000), 7);
    bus.guestBytes[0x2001] = 1;
    assert.equal(card.port.dma.readU32(0x2000), 0x107);
    assert.throws(() => fn.read(2, MIB), RangeError);
    assert.throws(() => fn.barAddress(4), /fn0 has no BAR4/);
  });

  it('records interrupts in the order they are sent, while the guest takes them', () => {
    for (const vector of [2, 0, 2]) card.port.interrupt(vector);
    assert.deepEqual(fn.interrupts, [2, 0, 2]);
    assert.deepEqual(fn.counters.interrupts, { 0: 1, 2: 2 });
    assert.throws(() => card.port.interrupt(4), RangeError);
  });

  it('executes a write to a register of a peer when the handler has returned, and its work after that', () => {
    const order: string[] = [];
    peerCard.onWrite = (_value, port) => {
      order.push('peer rung');
      port.post(() => order.push('peer works'));
    };
    card.onWrite = (_value, port) => {
      port.dma.writeU32(peer.barAddress(0) + DOORBELL, 1);
      order.push('handler returns');
    };
    fn.write(0, 0, 1);
    assert.deepEqual(order, ['handler returns', 'peer rung']);
    assert.equal(bus.run(), 1);
    assert.deepEqual(order, ['handler returns', 'peer rung', 'peer works']);
    assert.equal(fn.counters.peers.fn1?.registerWrites, 1);
  });

  it('reads a register of a peer after the writes that wait for it', () => {
    card.onWrite = (_value, port) => {
      port.dma.writeU32(peer.barAddress(0) + DOORBELL, 1);
      assert.deepEqual(peerCard.writes, []);
      port.dma.readU32(peer.barAddress(0));
      assert.deepEqual(peerCard.writes, [1]);
    };
    fn.write(0, 0, 1);
  });

  it('runs work in the order it was posted, one piece at a time if asked, and not forever', () => {
    const order: string[] = [];
    card.port.post(() => order.push('a'));
    peerCard.port.post(() => order.push('b'));
    card.port.post(() => order.push('c'));
    assert.equal(bus.runOne(), true);
    assert.deepEqual(order, ['a']);
    assert.equal(bus.run(), 2);
    assert.equal(bus.runOne(), false);
    assert.deepEqual(order, ['a', 'b', 'c']);
    const again = () => card.port.post(again);
    again();
    assert.throws(() => bus.run(100), /did not come to rest after 100 pieces/);
  });

  for (const kind of ['device', 'flr'] as const) {
    it(`drops work and timers at a reset (${kind}), and gives the new model its place`, () => {
      card.port.post(() => assert.fail('work of the old model ran'));
      card.port.clock.after(1, () => assert.fail('a timer of the old model ran'));
      const old = card.port;
      fn.reset(kind);
      old.post(() => assert.fail('work of the old model ran'));
      assert.equal(bus.run(), 0);
      bus.clock.advance(10);
      assert.deepEqual(card.causes, ['attach', kind]);
      assert.equal(fn.busMasterEnabled, true);
      card.port.dma.writeU32(peer.barAddress(2), 5);
      assert.equal(peer.read(2, 0), 5);
    });
  }

  it('leaves decode and bus mastering off after a reset if the test wants to see that', () => {
    fn.reset('device', { restoreConfig: false });
    assert.throws(() => card.port.dma.readU32(0), { failure: 'bus-master-disabled' });
    assert.throws(() => peerCard.port.dma.readU32(fn.barAddress(2)), { failure: 'unsupported-request' });
  });

  it('lets nothing through while bus mastering is off', () => {
    fn.busMasterEnabled = false;
    assert.equal(card.port.busMasterEnabled, false);
    assert.throws(() => card.port.dma.writeU32(peer.barAddress(2), 5), { failure: 'bus-master-disabled' });
    fn.busMasterEnabled = true;
    card.port.dma.writeU32(peer.barAddress(2), 5);
  });

  it('finds a function that vanished nowhere, until the machine resets it', () => {
    card.port.post(() => assert.fail('work of a function that is gone ran'));
    card.port.vanish();
    bus.run();
    assert.equal(fn.read(0, 0), 0xffff_ffff);
    assert.equal(fn.readConfig(0), 0xffff_ffff);
    assert.throws(() => peerCard.port.dma.readU32(fn.barAddress(2)), { failure: 'unsupported-request' });
    fn.reset('device');
    assert.equal(fn.read(0, 4), 4);
  });

  it('throws the fault of a model out of the call in which it happened, and breaks only its function', () => {
    const boom = new Error('boom');
    const fail = () => {
      throw boom;
    };
    card.onWrite = fail;
    assert.throws(() => fn.write(0, 0, 1), boom);
    assert.match(fn.broken ?? '', /writing 0x00000001 at BAR0\+0x0.*boom/);
    assert.equal(fn.read(0, 0), 0xffff_ffff);
    assert.equal(peer.read(0, 4), 4);
    fn.reset();
    card.port.post(fail);
    assert.throws(() => bus.run(), boom);
    fn.reset();
    card.port.clock.after(1, fail);
    assert.throws(() => bus.clock.advance(1), boom);
  });

  it('gives every function of the bus the same service, and functions of another bus their own', () => {
    const create = () => ({});
    const service = bus.context('a').machineService('spec.switch', create);
    assert.equal(bus.context('b').machineService('spec.switch', create), service);
    const other = new TestBus();
    assert.notEqual(other.context('a').machineService('spec.switch', create), service);
    other.close();
  });

  it('holds nothing after it was closed', () => {
    const before = openFdCount();
    const other = new TestBus();
    other.add('fn0', new Card(other.createMemory('one', MIB))).write(2, 0, 1);
    assert.ok(other.guestBytes.length > 0);
    assert.ok(openTestBuses().includes(other));
    other.close();
    other.close();
    assert.ok(!openTestBuses().includes(other));
    assert.equal(openFdCount(), before);
  });
});

describe('ManualClock', () => {
  it('runs timers in the order of their due times, at these times, those that they set as well', () => {
    const clock = new ManualClock();
    const order: [string, bigint][] = [];
    const note = (name: string) => order.push([name, clock.nowNs()]);
    clock.after(3, () => note('c'));
    clock.after(1, () => {
      note('a');
      clock.after(1, () => note('b'));
    });
    clock.after(2.5, () => assert.fail('cancelled')).cancel();
    clock.after(5, () => assert.fail('not due yet'));
    clock.advance(4);
    assert.deepEqual(order, [
      ['a', 1_000_000n],
      ['b', 2_000_000n],
      ['c', 3_000_000n],
    ]);
    assert.equal(clock.nowNs(), 4_000_000n);
  });
});
