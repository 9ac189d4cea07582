import assert from 'node:assert/strict';
import { ManualClock } from '../testing/index.js';
import { COST, type Runnable, Scheduler, type SchedulerOptions, type TurnResult, WorkBudget } from './scheduler.js';

/** Posted work by hand, as the bus runs it. */
class Posts {
  readonly clock = new ManualClock();
  readonly #work: (() => void)[] = [];

  post(work: () => void): void {
    this.#work.push(work);
  }

  get waiting(): number {
    return this.#work.length;
  }

  runOne(): void {
    this.#work.shift()?.();
  }

  run(): void {
    while (this.#work.length > 0) this.runOne();
  }
}

function make(options?: SchedulerOptions) {
  const posts = new Posts();
  const order: string[] = [];
  const scheduler = new Scheduler(posts, options);
  const engine = (name: string, turn: (budget: WorkBudget) => TurnResult): Runnable => ({
    turn: (budget) => {
      order.push(name);
      return turn(budget);
    },
  });
  /** An engine with `units` of work that takes what it is given. */
  const worker = (name: string, units: number): Runnable => {
    let left = units;
    return engine(name, (budget) => {
      const used = Math.min(left, budget.left);
      budget.charge(used);
      left -= used;
      return left > 0 ? 'ready' : 'idle';
    });
  };
  return { posts, order, scheduler, engine, worker };
}

const SLICE = { sliceUnits: 40_000, turnUnits: 10_000 };

describe('kit: scheduler', () => {
  it('runs nothing before the posted slice', () => {
    const { posts, order, scheduler, worker } = make();
    scheduler.wake(worker('a', 1));
    assert.deepEqual(order, []);
    assert.equal(scheduler.readyCount, 1);
    posts.run();
    assert.deepEqual(order, ['a']);
    assert.ok(scheduler.isIdle);
  });

  it('gives turns in a circle, whoever has more', () => {
    const { posts, order, scheduler, worker } = make(SLICE);
    for (const [name, units] of [
      ['a', 30_000],
      ['b', 10_000],
      ['c', 20_000],
    ] as const) {
      scheduler.wake(worker(name, units));
    }
    posts.run();
    assert.deepEqual(order, ['a', 'b', 'c', 'a', 'c', 'a']);
  });

  it('ends a slice when its units are used up and posts the next', () => {
    const { posts, order, scheduler, worker } = make(SLICE);
    scheduler.wake(worker('a', 100_000));
    posts.runOne();
    assert.equal(order.length, 4);
    assert.equal(posts.waiting, 1);
    posts.run();
    assert.equal(order.length, 10);
    assert.deepEqual(scheduler.counters, { slices: 3, turns: 10 });
  });

  it('charges turns that charged nothing, so that nobody spins in a slice', () => {
    const { posts, order, scheduler, engine } = make(SLICE);
    scheduler.wake(engine('a', () => 'ready'));
    posts.runOne();
    assert.equal(order.length, Math.ceil(SLICE.sliceUnits / COST.entry));
  });

  it('lets a turn overdraw its budget by a step, at the cost of the slice', () => {
    const { posts, order, scheduler, engine } = make(SLICE);
    scheduler.wake(
      engine('a', (budget) => {
        budget.charge(1_000_000);
        assert.ok(budget.isSpent);
        assert.equal(budget.left, 0);
        return 'ready';
      }),
    );
    posts.runOne();
    assert.equal(order.length, 1);
  });

  it('keeps an engine ready that is woken during its own turn', () => {
    const { posts, order, scheduler, engine } = make();
    const a = engine('a', () => {
      if (order.length < 3) scheduler.wake(a);
      return 'idle';
    });
    scheduler.wake(a);
    posts.run();
    assert.deepEqual(order, ['a', 'a', 'a']);
  });

  it('asks an engine that polls after a while, or as soon as something happened', () => {
    const { posts, order, scheduler, engine, worker } = make();
    let isThere = false;
    scheduler.wake(engine('waits', () => (isThere ? 'idle' : 'poll')));
    posts.run();
    posts.clock.advance(1);
    posts.run();
    assert.deepEqual(order, ['waits', 'waits']);
    assert.ok(scheduler.isIdle);
    scheduler.wake(worker('fence', 1));
    posts.run();
    isThere = true;
    scheduler.recheck();
    posts.run();
    assert.deepEqual(order, ['waits', 'waits', 'fence', 'waits']);
    posts.clock.advance(10);
    assert.equal(posts.waiting, 0);
  });

  it('asks a removed engine no more', () => {
    const { posts, order, scheduler, engine, worker } = make();
    const ready = worker('ready', 1);
    const polls = engine('polls', () => 'poll');
    scheduler.wake(polls);
    posts.run();
    scheduler.wake(ready);
    scheduler.remove(ready);
    scheduler.remove(polls);
    posts.run();
    posts.clock.advance(10);
    posts.run();
    assert.deepEqual(order, ['polls']);
  });

  it('lets parts of an engine share a turn', () => {
    const whole = new WorkBudget(10);
    const part = whole.portion(4);
    part.charge(5);
    assert.deepEqual([part.isSpent, whole.used, whole.left], [true, 5, 5]);
    assert.equal(whole.portion(100).left, 5);
  });

  it('is dead once it was stopped, also by one of its own engines', () => {
    const { posts, order, scheduler, engine, worker } = make();
    scheduler.wake(
      engine('a', (budget) => {
        scheduler.stop();
        assert.ok(budget.isSpent);
        return 'ready';
      }),
    );
    scheduler.wake(worker('b', 1));
    posts.run();
    scheduler.wake(worker('c', 1));
    posts.run();
    assert.deepEqual(order, ['a']);
    assert.equal(posts.waiting, 0);
  });
});
