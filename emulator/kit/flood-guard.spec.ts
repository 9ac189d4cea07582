import assert from 'node:assert/strict';
import { ManualClock, RecordingLog } from '../testing/index.js';
import { FloodGuard } from './flood-guard.js';

describe('habana: rate-limited log', () => {
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
});
