import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { drainEventfd } from '../../emulator/host/index.js';
import { COMMAND, IRQ_SET } from '../../emulator/vfio-user/messages.js';
import { accepted, fail, type Row, raw, refused, refusedWithFds, resetDevice, setIrqs, succeed } from '../row.js';
import { MSIX_VECTORS } from '../shape.js';
import type { Wire } from '../wire.js';

const { NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER } = IRQ_SET;
const [INTX, MSI, MSIX, ERR, REQ] = [0, 1, 2, 3, 4];

/** Adds to an eventfd's counter as another process would. */
function add(fd: number, value: bigint): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  writeSync(fd, bytes);
}

/** Vectors 0 and 1 of MSI-X with counters 4 and 8. */
function twoVectors(wire: Wire): [number, number] {
  const fds: [number, number] = [wire.eventfd(), wire.eventfd()];
  add(fds[0], 4n);
  add(fds[1], 8n);
  succeed(wire, setIrqs({ flags: EVENTFD | TRIGGER, index: MSIX, count: 2 }), fds);
  return fds;
}

function assertCounters(fds: readonly number[], ...counters: readonly bigint[]): void {
  assert.deepEqual(fds.map(drainEventfd), counters);
}

export const INTERRUPT_ROWS: readonly Row[] = [
  { id: 'Q-01', what: 'no payload: EINVAL', run: refused(raw(COMMAND.DEVICE_SET_IRQS)) },
  { id: 'Q-02', what: 'body of 8 bytes: EINVAL', run: refused(raw(COMMAND.DEVICE_SET_IRQS, 8)) },
  { id: 'Q-03', what: 'argsz 3: EINVAL', run: refused(setIrqs({ argsz: 3, flags: NONE | TRIGGER, index: REQ })) },
  { id: 'Q-04', what: 'index 5: EINVAL', run: refused(setIrqs({ flags: NONE | TRIGGER, index: 5 })) },
  {
    id: 'Q-05',
    what: 'MASK|UNMASK: EINVAL',
    run: refused(setIrqs({ flags: NONE | MASK | UNMASK, index: MSIX, count: 1 })),
  },
  { id: 'Q-06', what: 'no action: EINVAL', run: refused(setIrqs({ flags: NONE, index: MSIX, count: 1 })) },
  {
    id: 'Q-07',
    what: 'NONE|BOOL: EINVAL',
    run: refused(setIrqs({ flags: NONE | BOOL | TRIGGER, index: MSIX, count: 1 }, Uint8Array.of(1))),
  },
  { id: 'Q-08', what: 'no kind of data: EINVAL', run: refused(setIrqs({ flags: TRIGGER, index: MSIX, count: 1 })) },
  {
    id: 'Q-09',
    what: 'MSI-X start 2047 count 2: EINVAL',
    run: refused(setIrqs({ flags: NONE | TRIGGER, index: MSIX, start: MSIX_VECTORS - 1, count: 2 })),
  },
  {
    id: 'Q-10',
    what: 'MSI-X start 2049 count 1: EINVAL',
    run: refused(setIrqs({ flags: NONE | TRIGGER, index: MSIX, start: MSIX_VECTORS + 1, count: 1 })),
  },
  {
    id: 'Q-11',
    what: 'start 284 count 0xffffffff: EINVAL, no overflow',
    run: refused(setIrqs({ flags: NONE | TRIGGER, index: MSIX, start: 284, count: 0xffffffff })),
  },
  { id: 'Q-12', what: 'MASK on ERR: EINVAL', run: refused(setIrqs({ flags: NONE | MASK, index: ERR, count: 1 })) },
  { id: 'Q-13', what: 'MASK on REQ: EINVAL', run: refused(setIrqs({ flags: NONE | MASK, index: REQ, count: 1 })) },
  { id: 'Q-14', what: 'ERR count 2: EINVAL', run: refused(setIrqs({ flags: NONE | TRIGGER, index: ERR, count: 2 })) },
  { id: 'Q-15', what: 'REQ count 2: EINVAL', run: refused(setIrqs({ flags: NONE | TRIGGER, index: REQ, count: 2 })) },
  {
    id: 'Q-16',
    what: 'start 1 count 0: EINVAL',
    run: refused(setIrqs({ flags: NONE | TRIGGER, index: MSIX, start: 1 })),
  },
  { id: 'Q-17', what: 'MASK|NONE count 0: EINVAL', run: refused(setIrqs({ flags: NONE | MASK, index: MSIX })) },
  { id: 'Q-18', what: 'TRIGGER|BOOL count 0: EINVAL', run: refused(setIrqs({ flags: BOOL | TRIGGER, index: MSIX })) },
  {
    id: 'Q-19',
    what: 'BOOL with a fd: EINVAL, closed',
    run: refusedWithFds(setIrqs({ flags: BOOL | TRIGGER, index: MSIX, count: 1 }, Uint8Array.of(1)), 1),
  },
  {
    id: 'Q-20',
    what: 'NONE with a fd: EINVAL, closed',
    run: refusedWithFds(setIrqs({ flags: NONE | TRIGGER, index: MSIX, count: 1 }), 1),
  },
  {
    id: 'Q-21',
    what: 'EVENTFD count 2 with one fd: EINVAL, closed',
    run: refusedWithFds(setIrqs({ flags: EVENTFD | TRIGGER, index: MSIX, count: 2 }), 1),
  },
  {
    id: 'Q-22',
    what: 'BOOL count 2 with 1 data byte: EINVAL',
    run: refused(setIrqs({ flags: BOOL | TRIGGER, index: MSIX, count: 2 }, new Uint8Array(1))),
  },
  {
    id: 'Q-23',
    what: 'BOOL count 2 with 3 data bytes: EINVAL',
    run: refused(setIrqs({ flags: BOOL | TRIGGER, index: MSIX, count: 2 }, new Uint8Array(3))),
  },
  {
    id: 'Q-24',
    what: 'an index without vectors (MSI) is switched off: OK',
    rejected: 'libvfio-user answers EINVAL; QEMU sends this on every reset, so it is no error here',
    run: accepted(setIrqs({ flags: NONE | TRIGGER, index: MSI })),
  },
  { id: 'Q-25', what: 'REQ switched off: OK', run: accepted(setIrqs({ flags: NONE | TRIGGER, index: REQ })) },
  {
    id: 'Q-26',
    what: 'REQ EVENTFD|TRIGGER without fd: OK, de-assigned',
    inside: (bench) => {
      succeed(bench, setIrqs({ flags: EVENTFD | TRIGGER, index: REQ, count: 1 }), [bench.eventfd()]);
      succeed(bench, setIrqs({ flags: EVENTFD | TRIGGER, index: REQ, count: 1 }));
      assert.equal(bench.device.hasEventfd(REQ!, 0), false);
    },
  },
  {
    id: 'Q-27',
    what: 'MSI-X EVENTFD|TRIGGER with a fd: OK, fires',
    inside: (bench) => {
      const fd = bench.eventfd();
      succeed(bench, setIrqs({ flags: EVENTFD | TRIGGER, index: MSIX, start: 2047, count: 1 }), [fd]);
      bench.device.fire(MSIX!, 2047);
      assertCounters([fd], 1n);
    },
  },
  {
    id: 'Q-28',
    what: 'again with a new fd: OK, only the new one fires (the old one closed: see the leak check)',
    inside: (bench) => {
      const fds = [bench.eventfd(), bench.eventfd()];
      for (const fd of fds) succeed(bench, setIrqs({ flags: EVENTFD | TRIGGER, index: MSIX, count: 1 }), [fd]);
      bench.device.fire(MSIX!, 0);
      assertCounters(fds, 0n, 1n);
    },
  },
  {
    id: 'Q-29',
    what: '2 fds with counters 4, 8, then NONE|TRIGGER of the second: 4, 9',
    run: (wire) => {
      const fds = twoVectors(wire);
      succeed(wire, setIrqs({ flags: NONE | TRIGGER, index: MSIX, start: 1, count: 1 }));
      assertCounters(fds, 4n, 9n);
    },
  },
  {
    id: 'Q-30',
    what: '2 fds, BOOL {0, 1}: 4, 9',
    run: (wire) => {
      const fds = twoVectors(wire);
      succeed(wire, setIrqs({ flags: BOOL | TRIGGER, index: MSIX, count: 2 }, Uint8Array.of(0, 1)));
      assertCounters(fds, 4n, 9n);
    },
  },
  {
    id: 'Q-31',
    what: 'MASK|NONE, UNMASK|BOOL of MSI-X: OK, the device hears it',
    inside: (bench) => {
      succeed(bench, setIrqs({ flags: NONE | MASK, index: MSIX, count: 1 }));
      succeed(bench, setIrqs({ flags: BOOL | UNMASK, index: MSIX, start: 6, count: 2 }, Uint8Array.of(0, 1)));
      assert.deepEqual(bench.device.maskCalls, [
        { irq: MSIX, start: 0, masked: [true] },
        { irq: MSIX, start: 6, masked: [undefined, false] },
      ]);
    },
  },
  {
    id: 'Q-32',
    what: "QEMU's enable: EVENTFD|TRIGGER without fd as the first ever: OK",
    run: accepted(setIrqs({ flags: EVENTFD | TRIGGER, index: MSIX, count: 1 })),
  },
  {
    id: 'Q-33',
    what: '16 fds in one message: OK, each its vector',
    inside: (bench) => {
      const fds = Array.from({ length: 16 }, () => bench.eventfd());
      succeed(bench, setIrqs({ flags: EVENTFD | TRIGGER, index: MSIX, start: 100, count: 16 }), fds);
      fds.forEach((_, i) => {
        if (i % 3 === 0) bench.device.fire(MSIX!, 100 + i);
      });
      assertCounters(fds, ...fds.map((_, i) => (i % 3 === 0 ? 1n : 0n)));
    },
  },
  {
    id: 'Q-34',
    what: 'INTx EVENTFD|UNMASK with a fd: OK, the device has it; anything else by eventfd: EINVAL',
    rejected:
      'polling it would be the device: no function here has INTx, which under TCG costs BAR mappings (vfio-user.md §2.9)',
    inside: (bench) => {
      const fd = bench.eventfd();
      succeed(bench, setIrqs({ flags: EVENTFD | UNMASK, index: INTX, count: 1 }), [fd]);
      add(fd, 3n);
      assert.equal(drainEventfd(bench.device.unmaskFd!), 3n);
      fail(bench, setIrqs({ flags: EVENTFD | MASK, index: INTX, count: 1 }), 'EINVAL', [fd]);
      fail(bench, setIrqs({ flags: EVENTFD | UNMASK, index: MSIX, count: 1 }), 'EINVAL', [fd]);
    },
  },
  { id: 'Q-35', what: 'INTx level raised again on UNMASK', rejected: 'no function here has INTx, see Q-34' },
  {
    id: 'Q-36',
    what: 'a vector fires without fd: counted, nothing else',
    inside: (bench) => {
      bench.device.fire(MSIX!, 3);
      succeed(bench, setIrqs({ flags: NONE | TRIGGER, index: MSIX, start: 3, count: 1 }));
      assert.equal(bench.device.firedWithoutFd, 2);
    },
  },
  {
    id: 'Q-37',
    what: 'the model fires a vector that does not exist',
    rejected: "not the server's: InterruptLines.fire throws RangeError, see interrupts.spec.ts",
  },
  {
    id: 'Q-38',
    what: 'a saturated eventfd: the server does not block',
    run: (wire) => {
      const fd = wire.eventfd();
      add(fd, 0xffff_ffff_ffff_fffen);
      succeed(wire, setIrqs({ flags: EVENTFD | TRIGGER, index: MSIX, count: 1 }), [fd]);
      succeed(wire, setIrqs({ flags: NONE | TRIGGER, index: MSIX, count: 1 }));
      assertCounters([fd], 0xffff_ffff_ffff_fffen);
    },
  },
  {
    id: 'Q-39',
    what: 'DEVICE_RESET keeps the eventfds',
    inside: (bench) => {
      const fds = twoVectors(bench);
      succeed(bench, resetDevice());
      bench.device.fire(MSIX!, 0);
      assertCounters(fds, 5n, 8n);
    },
  },
  {
    id: 'Q-40',
    what: 'disconnect: all eventfds closed',
    inside: (bench) => {
      twoVectors(bench);
      succeed(bench, setIrqs({ flags: EVENTFD | TRIGGER, index: ERR, count: 1 }), [bench.eventfd()]);
      bench.disconnect();
      bench.turn();
      for (const [irq, vector] of [
        [MSIX, 0],
        [MSIX, 1],
        [ERR, 0],
      ]) {
        assert.equal(bench.device.hasEventfd(irq!, vector!), false);
      }
    },
  },
];
