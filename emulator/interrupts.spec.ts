import assert from 'node:assert/strict';
import { createEventfd, drainEventfd, openFdCount } from './host/index.js';
import { InterruptLines } from './interrupts.js';
import { IRQ } from './vfio-user/device.js';

const MSIX = {
  kind: 'msix',
  vectors: 4,
  tableBar: 0,
  tableOffset: 0,
  pendingBar: 0,
  pendingOffset: 0x800,
} as const;

describe('InterruptLines', () => {
  it('signals the eventfd of the vector', () => {
    const lines = new InterruptLines([MSIX]);
    const fd = createEventfd();
    lines.assign(IRQ.MSIX, 2, [fd]);
    assert.equal(lines.fire(2), true);
    assert.equal(lines.fire(2), true);
    assert.equal(drainEventfd(fd), 2n);
    lines.disableAll();
  });

  it('says when nobody listens, and refuses a vector that does not exist', () => {
    const lines = new InterruptLines([MSIX]);
    assert.equal(lines.fire(0), false);
    assert.throws(() => lines.fire(4), RangeError);
    assert.throws(() => new InterruptLines([]).fire(0), RangeError);
  });

  it('closes an eventfd that is replaced, de-assigned or disabled', () => {
    const lines = new InterruptLines([MSIX]);
    const before = openFdCount();
    lines.assign(IRQ.MSIX, 0, [createEventfd(), createEventfd()]);
    lines.assign(IRQ.MSIX, 0, [createEventfd()]);
    assert.equal(openFdCount(), before + 2);
    lines.assign(IRQ.MSIX, 1, [undefined]);
    assert.equal(openFdCount(), before + 1);
    lines.disable(IRQ.MSIX);
    assert.equal(openFdCount(), before);
  });

  it('declares what QEMU expects: one error vector, no INTx', () => {
    assert.deepEqual(
      new InterruptLines([{ kind: 'msi', vectors: 8 }]).irqs.map((irq) => irq.count),
      [0, 8, 0, 1, 0],
    );
  });
});
