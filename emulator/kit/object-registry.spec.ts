import assert from 'node:assert/strict';
import { ObjectRegistry, RegistryError, type RegistryRefusal } from './object-registry.js';

interface Queue {
  readonly number: number;
}

const queues = (options?: { limit?: number }) =>
  new ObjectRegistry<Queue>({ kind: 'work queue', firstId: 4, lastId: 7, ...options });
const send = (number: number): Queue => ({ number });

/** A refusal, recognized by its reason. */
const refusal = (expected: RegistryRefusal, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof RegistryError);
  assert.equal(error.refusal, expected);
  assert.match(error.message, message);
  return true;
};

describe('kit: object registry', () => {
  it('hands out numbers in a circle, and finds objects by them', () => {
    const registry = queues();
    assert.deepEqual([registry.add(send), registry.add(send)], [4, 5]);
    assert.equal(registry.remove(4).number, 4);
    assert.deepEqual([registry.add(send), registry.add(send), registry.add(send)], [6, 7, 4]);
    assert.equal(registry.get(6).number, 6);
    assert.equal(registry.find(8), undefined);
    assert.deepEqual(
      [...registry.values()].map(({ number }) => number),
      [5, 6, 7, 4],
    );
  });

  it('refuses when all numbers are in use, or as many as the limit', () => {
    const registry = queues();
    for (let count = 0; count < 4; count++) registry.add(send);
    assert.throws(() => registry.add(send), refusal('full', /all 4 of work queue are in use/));
    const limited = queues({ limit: 1 });
    limited.add(send);
    assert.throws(() => limited.add(send), refusal('full', /all 1 of work queue are in use/));
    limited.remove(4);
    assert.equal(limited.add(send), 5);
  });

  it('refuses numbers that name nothing', () => {
    assert.throws(() => queues().get(4), refusal('unknown', /there is no work queue 4/));
    assert.throws(() => queues().remove(9), refusal('unknown', /there is no work queue 9/));
  });

  it('adds nothing when the object cannot be made', () => {
    const registry = queues();
    const failing = () => {
      throw new Error('no memory');
    };
    assert.throws(() => registry.add(failing), /no memory/);
    assert.equal(registry.size, 0);
    assert.equal(registry.add(send), 4);
  });

  it("throws the device's own errors", () => {
    const registry = new ObjectRegistry<Queue>({
      kind: 'queue',
      firstId: 1,
      lastId: 1,
      refuse: (reason, message) => new TypeError(`${reason}: ${message}`),
    });
    assert.throws(() => registry.get(1), new TypeError('unknown: there is no queue 1'));
  });
});
