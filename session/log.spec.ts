import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { createLog, formatRecord } from './log.js';

describe('log', () => {
  it('is one line for people', () => {
    const record = {
      level: 40,
      time: 1,
      pid: 2,
      hostname: 'h',
      function: 'gpu0',
      register: 'GRBM',
      value: '0x1',
      msg: 'odd',
    };
    assert.equal(formatRecord(JSON.stringify(record)), 'warn gpu0: odd (register=GRBM value=0x1)\n');
    assert.equal(formatRecord('{"level":30,"msg":"plain"}'), 'info plain\n');
  });

  it('shows the stack of a fault', () => {
    const text = formatRecord(JSON.stringify({ level: 50, msg: 'broken', stack: 'Error: no\n    at place' }));
    assert.equal(text, 'error broken\nError: no\n    at place\n');
  });

  it('holds back what is below its level, and can be JSON', () => {
    const target = new PassThrough();
    const log = createLog('warn', true, target);
    log.info({}, 'not this');
    log.warn({ function: 'rdma0' }, 'this');
    assert.equal(JSON.parse(target.read().toString()).msg, 'this');
  });
});
