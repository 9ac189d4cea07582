import assert from 'node:assert/strict';
import { TimerQueue } from './timers.js';

describe('TimerQueue', () => {
  it('runs timers by due time, then by creation, and skips cancelled ones', () => {
    let now = 0n;
    const timers = new TimerQueue(() => now);
    const ran: string[] = [];
    const add = (name: string, delayMs: number) => timers.after(delayMs, () => ran.push(name));
    add('c', 30);
    add('a', 10);
    add('b1', 20);
    add('b2', 20);
    add('never', 15).cancel();
    assert.equal(timers.msUntilNext(), 10);
    timers.runDue((callback) => callback());
    assert.deepEqual(ran, []);
    now = 20_000_000n;
    timers.runDue((callback) => callback());
    assert.deepEqual(ran, ['a', 'b1', 'b2']);
    assert.equal(timers.msUntilNext(), 10);
    now = 31_000_000n;
    assert.equal(timers.msUntilNext(), 0);
    timers.runDue((callback) => callback());
    assert.equal(timers.msUntilNext(), -1);
  });

  it('leaves a timer that a timer sets for the next time', () => {
    const timers = new TimerQueue(() => 0n);
    let ran = 0;
    const again = () => {
      ran++;
      timers.after(0, again);
    };
    timers.after(0, again);
    timers.runDue((callback) => callback());
    assert.equal(ran, 1);
  });

  it('keeps its order under many random timers', () => {
    let seed = 7;
    const random = () => {
      seed = (seed * 1103515245 + 12345) & 0x7fffffff;
      return seed / 0x7fffffff;
    };
    let now = 0n;
    const timers = new TimerQueue(() => now);
    const due: number[] = [];
    for (let i = 0; i < 2000; i++) {
      const delayMs = Math.floor(random() * 500);
      const timer = timers.after(delayMs, () => due.push(delayMs));
      if (random() < 0.2) timer.cancel();
    }
    now = 1_000_000_000n;
    timers.runDue((callback) => callback());
    assert.ok(due.length > 1000);
    assert.deepEqual(
      due,
      due.toSorted((a, b) => a - b),
    );
  });
});
