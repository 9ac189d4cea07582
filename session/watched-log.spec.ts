import assert from 'node:assert/strict';
import { slowHandlersSummary } from '../emulator/bus.js';
import { HandlerWatch } from '../emulator/handler-watch.js';
import { WatchedLog } from './watched-log.js';

describe('WatchedLog', () => {
  it('keeps warnings and errors', () => {
    const log = new WatchedLog();
    log.warn({ register: 'GRBM' }, 'odd');
    log.error({}, 'broken');
    assert.deepEqual(log.complaints, ['warn: odd {"register":"GRBM"}', 'error: broken {}']);
  });

  it('does not blame a device for a host that is busy', () => {
    let delayMs = 0;
    const watch = new HandlerWatch(() => delayMs);
    watch.look(1, 0.5);
    delayMs = 2900;
    watch.look(3000, 0.5);
    const slowest = { what: 'a request for gpu0', tookMs: 79 };
    const summaries = [
      slowHandlersSummary({ wakeUps: 0, workPieces: 0, slowHandlers: 1, slowest }),
      slowHandlersSummary({ wakeUps: 0, workPieces: 0, slowHandlers: 12, slowest }),
      watch.summary(),
    ];
    const log = new WatchedLog();
    for (const summary of summaries) log.warn({}, summary ?? 'nothing was told');
    assert.deepEqual(log.complaints, []);
  });
});
