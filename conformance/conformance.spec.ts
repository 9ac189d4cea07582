/** The conformance checklist of docs/reference (vfio-user.md §5.4), a real socket and a raw client per row. */
import assert from 'node:assert/strict';
import { openFdCount } from '../emulator/host/index.js';
import { Bench } from './bench.js';
import { GROUPS } from './checklist.js';
import { assertInSync, type Row } from './row.js';

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
  const bench = new Bench(row.variant, row.negotiated ?? true, options);
  try {
    (row.inside ?? row.run)!(bench);
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
        if (row.inside === undefined && row.run === undefined) it(title);
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
    for (const { id, run, inside, rejected } of rows)
      assert.ok(run ?? inside ?? rejected, `${id} neither runs nor says why not`);
  });
});
