import assert from 'node:assert/strict';
import { ConsoleLog } from './console-log.js';

describe('ConsoleLog', () => {
  it('shows the last lines without terminal control', () => {
    const log = new ConsoleLog();
    log.push(Buffer.from('one\r\n\x1b[2J\x1bctwo\r\n\r\nthr'));
    log.push(Buffer.from('ee'));
    assert.equal(log.tail(), 'one\ntwo\nthree');
    assert.equal(log.tail(2), 'two\nthree');
  });

  it('sees a panic begin and end, also when split over chunks', () => {
    const log = new ConsoleLog();
    assert.equal(log.panic(), 'none');
    log.push(Buffer.from('[ 1.0] Kernel panic - not syn'));
    log.push(Buffer.from('cing: why\r\nCall Trace:\r\n'));
    assert.equal(log.panic(), 'begun');
    log.push(Buffer.from('---[ end Kernel panic - not syncing: why ]---\r\n'));
    assert.equal(log.panic(), 'complete');
    log.clear();
    assert.equal(log.panic(), 'none');
  });
});
