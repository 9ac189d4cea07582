/** The shelf on the real bus, and every public face of ghostbus from outside: `node --test dist`. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { conformanceRows } from 'ghostbus/conformance';
import { BitFields32 } from 'ghostbus/kit';
import { withGuest } from 'ghostbus/session';
import { TestBus } from 'ghostbus/testing';
import plugin from './index.js';

const MEMORY_BAR = 2;
const LABEL = 0x4;

function shelfOn(bus: TestBus) {
  const created = plugin.create({ memory: 2 ** 21 }, bus.context('shelf0'));
  assert.ok('bars' in created);
  return bus.add('shelf0', created, plugin.commands);
}

it('carries a label until it is reset, and keeps its memory', () => {
  const bus = new TestBus();
  const shelf = shelfOn(bus);
  assert.deepEqual(shelf.control('label', { value: '0x2a' }), { value: 42 });
  shelf.write(MEMORY_BAR, 8, 7);
  assert.equal(shelf.read(0, LABEL), 42);
  shelf.reset('flr');
  assert.equal(shelf.read(0, LABEL), 0);
  assert.equal(shelf.read(MEMORY_BAR, 8), 7);
  bus.close();
});

it('has everything that ghostbus shows to others', () => {
  assert.equal(new BitFields32({ LOW: [0, 4] }).get(0xab, 'LOW'), 0xb);
  assert.ok(conformanceRows().length > 100);
  assert.equal(typeof withGuest, 'function');
});
