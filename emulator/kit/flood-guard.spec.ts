import assert from 'node:assert/strict';
import { RegisterBlock } from '../plugin/index.js';
import { ManualClock, RecordingLog } from '../testing/index.js';
import { FloodGuard } from './flood-guard.js';

function make() {
  const records = new RecordingLog();
  const clock = new ManualClock();
  const shown = (from = 0) => records.records.slice(from).map(({ level, message }) => [level, message]);
  return { records, clock, shown, guard: new FloodGuard(records, clock) };
}

describe('kit: flood guard', () => {
  it('leaves out what comes too fast, and says how much', () => {
    const records = new RecordingLog();
    const clock = new ManualClock();
    const log = new FloodGuard(records);
    for (let count = 0; count < 100; count++) log.warn('before the guest');
    log.attach(clock);
    for (let count = 0; count < 80; count++) log.warn('again', { count });
    assert.equal(records.records.length, 150);
    clock.advance(1000);
    log.info('later');
    assert.deepEqual(
      records.records.slice(150).map(({ level, message }) => [level, message]),
      [
        ['warn', '30 records were left out'],
        ['info', 'later'],
      ],
    );
  });

  it('says how much was left out though nothing follows', () => {
    const { guard, clock, shown } = make();
    for (let count = 0; count < 60; count++) guard.error('burst');
    clock.advance(999);
    assert.equal(shown(50).length, 0);
    clock.advance(1);
    assert.deepEqual(shown(50), [['warn', '10 records were left out']]);
    clock.advance(10_000);
    assert.equal(shown().length, 51);
  });

  it('keeps sources apart, and counts them', () => {
    const { guard, clock, shown } = make();
    for (let count = 0; count < 55; count++) guard.source('stopped ring').warn('ring 0 stops');
    guard.source('page fault').warn('at 0x1000');
    guard.warn('something else');
    clock.advance(1000);
    assert.deepEqual(shown(50), [
      ['warn', 'at 0x1000'],
      ['warn', 'something else'],
      ['warn', '5 records of "stopped ring" were left out'],
    ]);
    assert.deepEqual(guard.counts(), { 'stopped ring': 55, 'page fault': 1 });
  });

  it('shows only the first of a source without a period, and says so', () => {
    const { guard, clock, shown } = make();
    const source = guard.source('smu', { records: 2, periodMs: Number.POSITIVE_INFINITY });
    for (let count = 0; count < 9; count++) source.warn(`message ${count}`);
    clock.advance(1_000_000);
    source.warn('much later');
    assert.deepEqual(shown(), [
      ['warn', 'message 0'],
      ['warn', 'message 1'],
      ['warn', 'further records of "smu" are only counted'],
    ]);
    assert.deepEqual(guard.counts(), { smu: 10 });
  });

  it('keeps its account over a reset of the function, whose timers are gone', () => {
    const { guard, records, shown } = make();
    for (let count = 0; count < 55; count++) guard.warn('burst');
    const anew = new ManualClock();
    guard.attach(anew);
    guard.warn('still too fast');
    anew.advance(1000);
    assert.deepEqual(shown(50), [['warn', '6 records were left out']]);
    assert.equal(records.records.length, 51);
  });

  it('never limits debug', () => {
    const { guard, records } = make();
    for (let count = 0; count < 200; count++) guard.debug('detail');
    assert.equal(records.records.length, 200);
  });

  it('bounds the warnings of a register block', () => {
    const { guard, records } = make();
    const block = new RegisterBlock({ name: 'block', sizeBytes: 4096, log: guard.source('registers') }, {});
    for (let offset = 0; offset < 4096; offset += 4) block.read(offset, 4);
    assert.equal(records.records.length, 50);
  });
});
