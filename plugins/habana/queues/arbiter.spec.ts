import assert from 'node:assert/strict';
import { Driver, qmanOf, register } from '../test/driver.js';
import { ARB_CONFIGURATION } from './arbiter.js';
import { packet } from './packets.js';

const E_N_SOB = 0x4f2000;

/** Every stream: wait for the starting fence, ask for the engine, note its number, release. */
function contend(
  driver: Driver,
  name: string,
  streams: readonly number[],
  rounds: number,
  priorities: readonly number[],
) {
  for (const stream of streams) {
    driver.enable(name, stream);
    const round = [
      packet.arbPoint(priorities[stream]!, false),
      packet.msgLong(register(E_N_SOB + 4 * stream), 0x80000001),
      packet.arbPoint(priorities[stream]!, true),
    ];
    const body = Array.from({ length: rounds }, () => round).flat();
    driver.submit(name, stream, packet.fence(0, 1, 1), ...body);
  }
  driver.bus.run();
}

/** Records the order of grants by spying on sync objects. */
function order(driver: Driver, name: string, streams: readonly number[], go: () => void): number[] {
  const seen: number[] = [];
  const manager = driver.model.syncManagers.list[3]!;
  const write = manager.registers.write.bind(manager.registers);
  manager.registers.write = (offset, sizeBytes, value) => {
    if (offset < 16) seen.push(offset / 4);
    write(offset, sizeBytes, value);
  };
  go();
  for (const stream of streams) driver.write(qmanOf(name) + 0x308 + 4 * stream, 1);
  driver.bus.run();
  return seen;
}

describe('habana: arbiter', () => {
  let driver: Driver;
  beforeEach(() => {
    driver = new Driver();
  });
  const master = ARB_CONFIGURATION.master | ARB_CONFIGURATION.enable;

  it('lets everybody pass while it is off', () => {
    const seen = order(driver, 'DMA0', [0, 1], () => contend(driver, 'DMA0', [0, 1], 1, [1, 2]));
    assert.deepEqual(seen.toSorted(), [0, 1]);
  });

  it('grants the larger priority first', () => {
    driver.write(qmanOf('DMA0') + 0xa00, master);
    const seen = order(driver, 'DMA0', [0, 1, 2, 3], () => contend(driver, 'DMA0', [0, 1, 2, 3], 1, [2, 1, 7, 2]));
    assert.deepEqual(seen, [2, 0, 3, 1]);
  });

  it('grants by weight in turns', () => {
    driver.write(qmanOf('DMA0') + 0xa00, master | ARB_CONFIGURATION.weightedRoundRobin);
    for (const [stream, weight] of [1, 3, 1, 1].entries()) driver.write(qmanOf('DMA0') + 0xa08 + 4 * stream, weight);
    const seen = order(driver, 'DMA0', [0, 1], () => contend(driver, 'DMA0', [0, 1], 6, [0, 0, 0, 0]));
    assert.equal(seen.length, 12);
    assert.deepEqual(seen.slice(0, 8), [1, 1, 1, 0, 1, 1, 1, 0]);
  });

  it('does not grant a masked stream', () => {
    driver.write(qmanOf('DMA0') + 0xa00, master | (1 << (ARB_CONFIGURATION.maskShift + 1)));
    const seen = order(driver, 'DMA0', [0, 1], () => contend(driver, 'DMA0', [0, 1], 1, [1, 9]));
    assert.deepEqual(seen, [0]);
    driver.write(qmanOf('DMA0') + 0xa00, master);
    driver.bus.run();
    assert.deepEqual(seen, [0, 1]);
  });

  it('lets a slave follow its master, credit by credit', () => {
    const [up, down] = ['DMA0', 'DMA1'] as const;
    driver.write(qmanOf(up) + 0xa00, master);
    driver.write(qmanOf(down) + 0xa00, ARB_CONFIGURATION.enable);
    for (const name of [up, down]) {
      driver.write(qmanOf(name) + 0xb54, register(0) % 2 ** 32);
      driver.write(qmanOf(name) + 0xb58, Math.floor(register(0) / 2 ** 32));
    }
    driver.write(qmanOf(up) + 0xb2c, 1 << 4);
    driver.write(qmanOf(up) + 0xaa4 + 4 * 4, qmanOf(down) + 0xa04);
    driver.write(qmanOf(up) + 0xa20 + 4 * 4, 1);
    driver.write(qmanOf(down) + 0xb28, qmanOf(up) + 0xaa0);
    driver.write(qmanOf(down) + 0xb3c, 4);
    const upOrder = order(driver, up, [0, 1], () => contend(driver, up, [0, 1], 1, [1, 2]));
    assert.deepEqual(upOrder, [1], 'one credit, one grant');
    assert.equal(driver.read(qmanOf(down) + 0xb84), 1, 'the choice waits at the slave');
    order(driver, down, [0, 1], () => contend(driver, down, [0, 1], 1, [9, 0]));
    assert.deepEqual(upOrder.slice(1).toSorted(), [0, 0, 1], 'both go on');
  });

  it('reports choices that overrun it', () => {
    driver.write(qmanOf('DMA0') + 0xa00, ARB_CONFIGURATION.enable);
    for (let choice = 0; choice < 65; choice++) driver.write(qmanOf('DMA0') + 0xa04, choice & 3);
    assert.equal(driver.read(qmanOf('DMA0') + 0xb9c), 1);
  });
});
