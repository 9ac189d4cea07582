import assert from 'node:assert/strict';
import { DmaError, PortClosedError } from './dma-error.js';

describe('DmaError', () => {
  it('is recognised by every copy of the package', async () => {
    const url = new URL('./dma-error.js?another-copy', import.meta.url);
    const copy: typeof import('./dma-error.js') = await import(url.href);
    assert.notEqual(copy.DmaError, DmaError, 'two copies');
    assert.ok(new DmaError('access-denied', 'read', 0x1000, 4) instanceof copy.DmaError);
    assert.ok(new copy.DmaError('access-denied', 'read', 0x1000, 4) instanceof DmaError);
  });

  it('is not taken for anything else', () => {
    for (const other of [
      new Error('boom'),
      new PortClosedError('gpu0', 'reset (flr)'),
      {},
      null,
      undefined,
      'DmaError',
    ]) {
      assert.ok(!(other instanceof DmaError));
    }
  });

  it('says what was asked, and why it failed', () => {
    const { message } = new DmaError('message-failed', 'write', 0xfe00, 8, 'no client is connected');
    assert.equal(message, 'DMA write of 8 bytes at 0xfe00: message-failed (no client is connected)');
  });
});

describe('PortClosedError', () => {
  it('is recognised by every copy of the package, and is not taken for anything else', async () => {
    const url = new URL('./dma-error.js?another-copy', import.meta.url);
    const copy: typeof import('./dma-error.js') = await import(url.href);
    assert.notEqual(copy.PortClosedError, PortClosedError, 'two copies');
    assert.ok(new PortClosedError('gpu0', 'reset (flr)') instanceof copy.PortClosedError);
    assert.ok(new copy.PortClosedError('gpu0', 'reset (flr)') instanceof PortClosedError);
    const failed = new DmaError('access-denied', 'read', 0x1000, 4);
    for (const other of [new Error('boom'), failed, {}, null, undefined, 'PortClosedError']) {
      assert.ok(!(other instanceof PortClosedError));
    }
  });
});
