import assert from 'node:assert/strict';
import { type Cleanup, withCleanup } from './cleanup.js';
import { InterruptedError } from './exit-status.js';
import { FakeProcess } from './test/fake-guest.js';

const forever = () => new Promise<never>(() => undefined);

describe('cleanup', () => {
  it('undoes in reverse order after success, once', async () => {
    const undone: string[] = [];
    const result = await withCleanup(async (cleanup) => {
      cleanup.add(() => void undone.push('first'));
      cleanup.add(async () => void undone.push('second'));
      return 42;
    }, new FakeProcess());
    assert.equal(result, 42);
    assert.deepEqual(undone, ['second', 'first']);
  });

  it('undoes after a failure and passes the failure on', async () => {
    const undone: string[] = [];
    const work = withCleanup(async (cleanup) => {
      cleanup.add(() => void undone.push('done'));
      throw new Error('the work failed');
    }, new FakeProcess());
    await assert.rejects(work, /the work failed/);
    assert.deepEqual(undone, ['done']);
  });

  it('tries every step although one fails, and tells of the failure', async () => {
    const undone: string[] = [];
    const work = withCleanup(async (cleanup) => {
      cleanup.add(() => void undone.push('first'));
      cleanup.add(() => {
        throw new Error('cannot undo');
      });
    }, new FakeProcess());
    await assert.rejects(work, /cannot undo/);
    assert.deepEqual(undone, ['first']);
  });

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    it(`undoes on ${signal} and rejects with it, and listens no more`, async () => {
      const source = new FakeProcess();
      const undone: string[] = [];
      const work = withCleanup(async (cleanup) => {
        cleanup.add(() => void undone.push('done'));
        return forever();
      }, source);
      source.emit(signal, signal);
      await assert.rejects(work, (error) => error instanceof InterruptedError && error.signal === signal);
      assert.deepEqual(undone, ['done']);
      assert.equal(source.listenerCount(signal), 0);
    });
  }

  it('forces and exits on the second signal while the first is being obeyed', async () => {
    const source = new FakeProcess();
    const forced: string[] = [];
    let finish: () => void = () => undefined;
    const work = withCleanup(async (cleanup) => {
      cleanup.add(
        () => new Promise<void>((resolve) => (finish = resolve)),
        () => void forced.push('forced'),
      );
      return forever();
    }, source);
    source.emit('SIGTERM', 'SIGTERM');
    source.emit('SIGINT', 'SIGINT');
    assert.deepEqual(forced, ['forced']);
    assert.deepEqual(source.exits, [128 + 2]);
    await new Promise(setImmediate);
    finish();
    await assert.rejects(work, InterruptedError);
  });

  it('undoes at once what was still starting when the end began', async () => {
    const source = new FakeProcess();
    const undone: string[] = [];
    let kept: Cleanup | undefined;
    let finish: () => void = () => undefined;
    const work = withCleanup(async (cleanup) => {
      kept = cleanup;
      cleanup.add(() => new Promise<void>((resolve) => (finish = resolve)));
      return forever();
    }, source);
    source.emit('SIGINT', 'SIGINT');
    await new Promise(setImmediate);
    kept!.add(() => void undone.push('late'));
    finish();
    await assert.rejects(work, InterruptedError);
    await new Promise(setImmediate);
    assert.deepEqual(undone, ['late']);
  });
});
