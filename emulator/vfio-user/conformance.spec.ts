/** The conformance checklist of the reference (vfio-user.md §5.4), a real socket and a raw client per row. */
import assert from 'node:assert/strict';
import { openFdCount } from '../host/index.js';
import { CONFIG_SPACE_ROWS } from './conformance/config-space.js';
import { DMA_MAP_ROWS } from './conformance/dma-maps.js';
import { DMA_MESSAGE_ROWS } from './conformance/dma-messages.js';
import { FRAMING_ROWS } from './conformance/framing.js';
import { INFORMATION_ROWS, IO_FDS_ROWS } from './conformance/information.js';
import { INTERRUPT_ROWS } from './conformance/interrupts.js';
import { FEATURE_ROWS, REGION_ACCESS_ROWS } from './conformance/region-access.js';
import { assertInSync, type Row } from './conformance/row.js';
import { VERSION_ROWS } from './conformance/version.js';
import { Bench } from './test-bench.js';

const GROUPS: Readonly<Record<string, readonly Row[]>> = {
  'header and framing': FRAMING_ROWS,
  VERSION: VERSION_ROWS,
  'device, region and irq information': INFORMATION_ROWS,
  'region io fds': IO_FDS_ROWS,
  SET_IRQS: INTERRUPT_ROWS,
  'DMA_MAP and DMA_UNMAP': DMA_MAP_ROWS,
  'region access': REGION_ACCESS_ROWS,
  'configuration space': CONFIG_SPACE_ROWS,
  'device features': FEATURE_ROWS,
  'DMA messages': DMA_MESSAGE_ROWS,
};

/** Rows per letter; G and D, and A-24, are about migration and dirty logging. */
const CHECKLIST: Readonly<Record<string, number>> = {
  H: 26,
  V: 28,
  I: 24,
  Q: 40,
  M: 26,
  U: 16,
  A: 23,
  C: 36,
  F: 10,
  X: 7,
  P: 12,
};

function runRow(row: Row): void {
  const before = openFdCount();
  const options = row.dmaTimeoutMs === undefined ? {} : { dmaTimeoutMs: row.dmaTimeoutMs };
  const bench = new Bench(row.fixture, row.negotiated ?? true, options);
  try {
    row.run!(bench);
    bench.reconnect();
    assertInSync(bench);
  } finally {
    bench.close();
  }
  assert.equal(openFdCount(), before, 'descriptors left open');
}

describe('vfio-user conformance', () => {
  for (const [group, rows] of Object.entries(GROUPS)) {
    describe(group, () => {
      for (const row of rows) {
        const title = `${row.id} ${row.what}${row.rejected === undefined ? '' : ` — ${row.rejected}`}`;
        if (row.run === undefined) it(title);
        else it(title, () => runRow(row));
      }
    });
  }

  it('has every row of the checklist once', () => {
    const expected = Object.entries(CHECKLIST).flatMap(([letter, count]) =>
      Array.from({ length: count }, (_, i) => `${letter}-${String(i + 1).padStart(2, '0')}`),
    );
    const rows = Object.values(GROUPS).flat();
    assert.deepEqual(rows.map(({ id }) => id).sort(), expected.sort());
    for (const { id, run, rejected } of rows) assert.ok(run ?? rejected, `${id} neither runs nor says why not`);
  });
});
