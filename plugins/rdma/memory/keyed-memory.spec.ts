import assert from 'node:assert/strict';
import type { Dma, FunctionPort } from 'ghostbus';
import { TestBus } from 'ghostbus/testing';
import { type Extent, KeyedMemory } from './keyed-memory.js';

const BYTES = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);

describe('memory that keys lead to', () => {
  let bus: TestBus;
  let memory: KeyedMemory;

  beforeEach(() => {
    bus = new TestBus(64 * 1024);
    memory = new KeyedMemory(dmaOn(bus), bus.createMemory('device', 64 * 1024));
  });

  function load(extent: Extent, offset = 0): number[] {
    const bytes = new Uint8Array(BYTES.length).fill(0xee);
    memory.read(extent, offset, bytes);
    return [...bytes];
  }

  it('is on the bus or on the adapter, at the same numbers', () => {
    const place = { address: 0x1000, lengthBytes: 0x100 };
    memory.write({ kind: 'bus', ...place }, 8, BYTES);
    assert.deepEqual(load({ kind: 'bus', ...place }, 8), [...BYTES]);
    assert.deepEqual(load({ kind: 'device', ...place }, 8), new Array(8).fill(0));
    memory.fill({ kind: 'device', ...place }, 8, 9, 4);
    assert.deepEqual(load({ kind: 'device', ...place }, 8), [9, 9, 9, 9, 0, 0, 0, 0]);
    assert.equal(memory.readU64({ kind: 'bus', address: 0x1008, lengthBytes: 8 }), 0x0807060504030201n);
  });

  it('is nothing: reads give zero, writes vanish', () => {
    const nothing = { kind: 'nothing', lengthBytes: 0x100 } as const;
    memory.write(nothing, 0, BYTES);
    memory.fill(nothing, 0, 1, 8);
    memory.writeU64(nothing, 1n);
    assert.deepEqual(load(nothing), new Array(8).fill(0));
    assert.equal(memory.readU64(nothing), 0n);
    assert.ok(bus.guestBytes.every((byte) => byte === 0));
  });
});

/** The DMA of a function that does nothing itself. */
function dmaOn(bus: TestBus): Dma {
  let dma: Dma | undefined;
  bus.add('idle0', {
    identity: {
      vendorId: 0x15b3,
      deviceId: 0x1021,
      subsystemVendorId: 0,
      subsystemId: 0,
      classCode: 0x020000,
      revisionId: 0,
    },
    bars: [],
    capabilities: [],
    powerOn: (port: FunctionPort) => {
      dma = port.dma;
      return { bars: {} };
    },
  });
  return dma!;
}
