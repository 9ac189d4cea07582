import assert from 'node:assert/strict';
import { SERVICE } from './queues/queue-pair.js';
import { TURN_UNITS } from './queues/turns.js';
import { OPCODE } from './queues/work-queue-entry.js';
import { dataSegment, type TestDriver, type TestQueues, twoDrivers, workRequest } from './test/driver.js';

interface Objects {
  readonly objects: Readonly<Record<string, number>>;
}

function objectsOf(driver: TestDriver): Record<string, number> {
  const { objects } = driver.adapter.inspect() as unknown as Objects;
  return { ...objects };
}

function destroy(driver: TestDriver, queues: TestQueues): void {
  driver.runNumber('DESTROY_QP', queues.qpn);
  driver.runNumber('DESTROY_CQ', queues.cqn);
}

describe('many objects', () => {
  it('gives back everything that 10,000 keys cost', () => {
    const { a } = twoDrivers();
    const before = objectsOf(a);
    const pd = a.run('ALLOC_PD').number;
    const keys = Array.from({ length: 10_000 }, () => a.createPhysicalKey(pd));
    assert.equal(objectsOf(a).memoryKeys, 10_000);
    for (const key of keys) a.runNumber('DESTROY_MKEY', key >>> 8);
    a.runNumber('DEALLOC_PD', pd);
    assert.deepEqual(objectsOf(a), before);
  }).timeout(60_000);

  it('survives a hundred connections that end in the middle of a message, and keeps nothing of them', () => {
    const { a, b, bus, gids } = twoDrivers();
    const before = [objectsOf(a), objectsOf(b)];
    const { eqn: leftEq } = a.createEq(1, 0n);
    const { eqn: rightEq } = b.createEq(1, 0n);
    const [leftPd, rightPd] = [a.run('ALLOC_PD').number, b.run('ALLOC_PD').number];
    const [leftKey, rightKey] = [a.createPhysicalKey(leftPd), b.createPhysicalKey(rightPd)];
    const length = 3 * TURN_UNITS;
    const [source, target] = [a.allocate(length), b.allocate(length)];
    for (let round = 0; round < 100; round++) {
      const left = a.createQp(SERVICE.RC, leftPd, leftEq);
      const right = b.createQp(SERVICE.RC, rightPd, rightEq);
      a.connect(left, leftPd, right.qpn, gids[1]);
      b.connect(right, rightPd, left.qpn, gids[0]);
      b.postReceive(right, 0, rightKey, target, length);
      a.post(left, 0, workRequest(OPCODE.SEND, [dataSegment(leftKey, source, length)]));
      // The doorbell, then one turn of three.
      for (let piece = 0; piece < 2; piece++) bus.runOne();
      const first = round % 2 === 0 ? ([a, left] as const) : ([b, right] as const);
      const second = round % 2 === 0 ? ([b, right] as const) : ([a, left] as const);
      destroy(...first);
      bus.run();
      destroy(...second);
    }
    a.runNumber('DESTROY_MKEY', leftKey >>> 8);
    b.runNumber('DESTROY_MKEY', rightKey >>> 8);
    for (const [driver, pd] of [
      [a, leftPd],
      [b, rightPd],
    ] as const)
      driver.runNumber('DEALLOC_PD', pd);
    for (const [index, driver] of [a, b].entries()) {
      const { heapBytes, eventQueues, ...rest } = objectsOf(driver);
      const { heapBytes: _heap, eventQueues: _queues, ...expected } = before[index]!;
      assert.deepEqual(rest, expected);
      assert.equal(eventQueues, 1);
      assert.equal(heapBytes, 8, 'the page list of the event queue');
    }
    bus.clock.advance(10_000);
    bus.run();
  }).timeout(60_000);

  it('serves a small message while a large one is under way', () => {
    const { a, b, bus, gids } = twoDrivers();
    const { eqn: leftEq } = a.createEq(1, 0n);
    const { eqn: rightEq } = b.createEq(1, 0n);
    const [leftPd, rightPd] = [a.run('ALLOC_PD').number, b.run('ALLOC_PD').number];
    const [leftKey, rightKey] = [a.createPhysicalKey(leftPd), b.createPhysicalKey(rightPd)];
    const length = 8 * TURN_UNITS;
    const [source, target] = [a.allocate(length), b.allocate(length)];
    const pair = () => {
      const left = a.createQp(SERVICE.RC, leftPd, leftEq);
      const right = b.createQp(SERVICE.RC, rightPd, rightEq);
      a.connect(left, leftPd, right.qpn, gids[1]);
      b.connect(right, rightPd, left.qpn, gids[0]);
      b.postReceive(right, 0, rightKey, target, length);
      return left;
    };
    const [large, small] = [pair(), pair()];
    a.post(large, 0, workRequest(OPCODE.SEND, [dataSegment(leftKey, source, length)]));
    a.post(small, 0, workRequest(OPCODE.SEND, [dataSegment(leftKey, source, 64)]));
    const isDone = (queues: TestQueues) => a.completion(queues, 0).getUint8(63) >>> 4 === 0;
    while (!isDone(small)) assert.ok(bus.runOne(), 'the small one never completed');
    assert.ok(!isDone(large), 'the large one was not in the way');
    bus.run();
    assert.ok(isDone(large));
  });
});
