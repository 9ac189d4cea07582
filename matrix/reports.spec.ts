import assert from 'node:assert/strict';
import { type Cell, generateCells } from './cells.js';
import { expectationOf } from './expectation.js';
import { renderHtml } from './html-report.js';
import { matrixReport } from './report.js';
import { type CellResult, groupByBoot, type MatrixRun } from './run.js';
import { builtIn as catalogue } from './test/made-up.js';
import { renderJson, renderKtap, renderText } from './text-report.js';

function resultOf(cell: Cell, outcome: string, problems: readonly string[] = []): CellResult {
  return { cell, expectation: expectationOf(cell), outcome, problems, guestMemoryBytes: 0, ms: 12.4 };
}

const cells = generateCells(catalogue, {
  kernels: ['latest'],
  topologies: ['switch', 'refused'],
  exporters: ['habanalabs-hbm'],
  importers: ['mlx5'],
  sizes: ['4K', '2M'],
});

function runWith(problems: readonly string[] = []): MatrixRun {
  const outcome = { switch: 'P2P', refused: 'EPERM' } as Record<string, string>;
  const results = cells.map((cell, index) => resultOf(cell, outcome[cell.topology.name]!, index === 0 ? problems : []));
  return { results, kernelReleases: { latest: '7.3.4' }, boots: 2, wallMs: 61_000 };
}

describe('the matrix’s reports', () => {
  it('show one square for all sizes of a pair, and the sums', () => {
    assert.equal(
      renderText(runWith(), false),
      [
        'kernel latest (7.3.4)',
        'exporter        importer         one switch  host bridge, qemu64',
        'habanalabs HBM  mlx5, on demand  P2P         EPERM',
        '',
        '4 cells: 2 P2P, 2 refused; 0 not as expected; 2 boots, 61 s',
        '',
      ].join('\n'),
    );
  });

  it('say in one line what a kernel lacks, instead of rows that are n/a', () => {
    const all = generateCells(catalogue, {
      kernels: ['latest'],
      topologies: ['switch'],
      importers: ['mlx5', 'iommufd'],
    });
    const results = all.map((cell) => resultOf(cell, 'n/a'));
    const run = { ...runWith(), results };
    const text = renderText(run, false);
    assert.match(text, /^not in it: iommufd \(vfio-pci\): Debian builds no kernel with CONFIG_IOMMUFD$/m);
    assert.doesNotMatch(text, /^(?!not).*iommufd/m);
    assert.match(renderHtml(run), /Not in it: iommufd/);
    assert.match(renderKtap(run), /iommufd\/4K # SKIP Debian builds no kernel/);
  });

  it('name what was not as expected', () => {
    const text = renderText(runWith(['read: 3 bytes are wrong']), true);
    assert.ok(text.includes('\u001b[31mFAILED 1/2'));
    assert.match(text, /latest\/switch\/habanalabs-hbm\/mlx5\/4K: read: 3 bytes are wrong/);
    assert.match(text, /1 not as expected/);
  });

  it('are KTAP', () => {
    const [version, plan, first, diagnostic, second] = renderKtap(runWith(['a\nb'])).split('\n');
    assert.deepEqual([version, plan], ['KTAP version 1', '1..4']);
    assert.equal(first, 'not ok 1 latest/switch/habanalabs-hbm/mlx5/4K # P2P');
    assert.equal(diagnostic, '# a b');
    assert.equal(second, 'ok 2 latest/switch/habanalabs-hbm/mlx5/2M # P2P');
  });

  it('are JSON', () => {
    const parsed = matrixReport.parse(JSON.parse(renderJson(runWith())));
    assert.deepEqual(
      parsed.cells.map(({ outcome, expected }) => `${expected} ${outcome}`),
      ['p2p P2P', 'p2p P2P', 'refused EPERM', 'refused EPERM'],
    );
  });

  it('are one HTML page that loads nothing and escapes what programs said', () => {
    const page = renderHtml(runWith(['<script>alert("x")</script> & more']));
    assert.match(page, /^<!doctype html>/);
    assert.doesNotMatch(page, /<script>|https?:|src=|href=/);
    assert.match(page, /&#60;script&#62;/);
    assert.match(page, /<td class="failed">/);
  });
});

describe('the matrix’s cells', () => {
  it('have names of their own', () => {
    const ids = generateCells(catalogue).map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length);
  });

  it('of one kernel and topology share a boot', () => {
    assert.deepEqual(
      groupByBoot(cells).map((group) => group.length),
      [2, 2],
    );
  });
});
