import assert from 'node:assert/strict';
import { z } from 'zod';
import { createFunctions } from './create-functions.js';
import { definePlugin } from './plugin/index.js';
import { TestBus } from './testing/index.js';

const IDENTITY = {
  vendorId: 0x1234,
  deviceId: 1,
  subsystemVendorId: 0,
  subsystemId: 0,
  classCode: 0xff0000,
  revisionId: 0,
};
const CARD = { identity: IDENTITY, bars: [], capabilities: [], powerOn: () => ({ bars: {} }) };
const without = (key: keyof typeof CARD) => ({ ...CARD, [key]: undefined });

describe('what a plugin makes', () => {
  let bus: TestBus;
  beforeEach(() => {
    bus = new TestBus();
  });
  afterEach(() => bus.close());

  const create = (make: () => unknown) => {
    const plugin = definePlugin({ name: 'toy', description: '', options: z.object({}), create: make as () => [] });
    return createFunctions(plugin, {}, bus.context('toy0'));
  };

  it('is a function, a list of them, or none', () => {
    assert.deepEqual(
      [create(() => CARD), create(() => [CARD, CARD]), create(() => [])].map(({ length }) => length),
      [1, 2, 0],
    );
  });

  it('is refused with the name of the device and what is missing', () => {
    const fail = (thrown: unknown) => () => {
      throw thrown;
    };
    const rows: [() => unknown, RegExp][] = [
      [() => undefined, /^Error: toy0: create returned undefined; return a function, or a list of functions$/],
      [async () => CARD, /^Error: toy0: create returned a promise; return a function/],
      [() => [1], /^Error: toy0: create returned a number; /],
      [() => without('identity'), /^Error: toy0: create returned a function without identity: give { vendorId, /],
      [() => ({ ...CARD, identity: {} }), /toy0: create returned a function whose identity has no vendorId/],
      [() => without('bars'), /toy0: create returned a function without bars: /],
      [() => without('capabilities'), /toy0: create returned a function without capabilities: /],
      [() => without('powerOn'), /toy0: create returned a function without powerOn: /],
      [fail(new Error('no licence')), /^Error: toy0: create failed: no licence$/],
      [fail('a string'), /^Error: toy0: create failed: a string$/],
    ];
    for (const [make, message] of rows) assert.throws(() => create(make), message);
  });

  it('is refused on the bus, by name, when the card or its model lacks a part', () => {
    const bar = { index: 0, kind: 'memory32', sizeBytes: 12288 };
    const refusal = (card: unknown) => {
      try {
        bus.add('toy0', card as never);
      } catch (error) {
        return (error as Error).message;
      }
      return assert.fail('was taken');
    };
    const rows: [unknown, RegExp][] = [
      [without('bars'), /it is a function without bars: /],
      [without('powerOn'), /it is a function without powerOn: /],
      [{ ...CARD, bars: [bar] }, /BAR 0: size 12288 is not a power of two$/],
      [{ ...CARD, rom: new Uint8Array(2 ** 21) }, /the ROM has 2097152 bytes/],
      [{ ...CARD, powerOn: () => undefined }, /powerOn returned undefined; return the model$/],
      [{ ...CARD, powerOn: async () => ({ bars: {} }) }, /powerOn returned a promise; return the model$/],
      [{ ...CARD, powerOn: () => ({}) }, /powerOn returned a model without bars: /],
      [{ ...CARD, powerOn: () => ({ bars: { 0: {} } }) }, /powerOn returned a model whose bars\[0\] is an object: /],
    ];
    for (const [card, message] of rows) {
      const text = refusal(card);
      assert.match(text, /^toy0 cannot be put on the bus: /);
      assert.match(text, message);
    }
  });
});
