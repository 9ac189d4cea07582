import assert from 'node:assert/strict';
import { HandlerWatch, runDelayMs } from './handler-watch.js';

describe('HandlerWatch', () => {
  let delayMs: number;
  let watch: HandlerWatch;

  beforeEach(() => {
    delayMs = 1000;
    watch = new HandlerWatch(() => delayMs);
  });

  it('says nothing of handlers that end in time, and of none', () => {
    assert.equal(watch.look(1000, 0), undefined);
    assert.equal(watch.look(1500, 1000), undefined);
    assert.equal(watch.look(3400, 1500), undefined);
  });

  it('reports a handler that is late once, and the next one again', () => {
    assert.equal(watch.look(500, 100), undefined);
    const report = watch.look(2300, 100);
    assert.deepEqual(report, {
      level: 'error',
      message: 'one handler has held the bus thread for 2.2 s; QEMU gives a function up after 5 s',
    });
    assert.equal(watch.look(2800, 100), undefined);
    assert.equal(watch.look(3000, 2900), undefined);
    assert.equal(watch.look(5000, 2900)?.level, 'error');
  });

  it('takes the time that the thread waited for a processor for the host’s', () => {
    watch.look(500, 100);
    delayMs += 1500;
    const report = watch.look(2300, 100);
    assert.equal(report?.level, 'debug');
    assert.match(
      report!.message,
      /^the host had no processor for the bus thread during 1\.5 s of the 2\.2 s of one handler/,
    );
    assert.equal(watch.look(2800, 100), undefined);
  });

  it('and still reports a handler that has been late by itself', () => {
    watch.look(500, 100);
    delayMs += 1500;
    watch.look(2300, 100);
    assert.equal(watch.look(3700, 100)?.level, 'error');
    assert.equal(watch.look(4000, 100), undefined);
  });

  it('has one line about all handlers that the host let be late', () => {
    const late = (sinceMs: number, untilMs: number) => {
      watch.look(sinceMs + 1, sinceMs);
      delayMs += untilMs - sinceMs - 100;
      watch.look(untilMs, sinceMs);
    };
    assert.equal(watch.summary(), undefined);
    late(100, 1200);
    watch.look(10_000, 0);
    assert.equal(watch.summary(), undefined);
    late(20_000, 23_000);
    assert.match(
      watch.summary()!,
      /^the host had no processor for the bus thread during 2\.9 s of the 3\.0 s of one handler;/,
    );
    late(30_000, 34_000);
    watch.look(34_050, 30_000);
    late(40_000, 42_500);
    assert.match(watch.summary()!, /during [34]\.\d s of the 4\.\d s of the longest of 3 handlers;/);
  });

  it('does not count handlers that are late by themselves', () => {
    watch.look(500, 100);
    assert.equal(watch.look(2300, 100)?.level, 'error');
    assert.equal(watch.summary(), undefined);
  });

  it('asks the kernel how long a thread has waited, and takes a thread that is not there for one that never did', () => {
    assert.ok(runDelayMs(process.pid) > 0);
    assert.equal(runDelayMs(0), 0);
  });
});
