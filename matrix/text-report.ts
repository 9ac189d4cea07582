/** The matrix for people at a terminal, and as KTAP and JSON for programs. */
import type { MatrixReport } from './report.js';
import type { CellResult, MatrixRun } from './run.js';
import { type KernelTable, type Square, sumsOf, tablesOf } from './summary.js';

const COLOURS: Readonly<Record<Square['kind'], string>> = {
  p2p: '32',
  staged: '33',
  refused: '36',
  'not-applicable': '2',
  failed: '31',
};

/** Tables, then what was not as expected, then the sums. */
export function renderText(run: MatrixRun, colours: boolean): string {
  const problems = run.results.flatMap(({ cell, problems: found }) => found.map((problem) => `${cell.id}: ${problem}`));
  return `${[...tablesOf(run).map((table) => renderTable(table, colours)), ...problems, sumsOf(run)].join('\n')}\n`;
}

/** One kernel's table. */
function renderTable(table: KernelTable, colours: boolean): string {
  const head = ['exporter', 'importer', ...table.topologies.map(({ title }) => title)];
  const body = table.rows.map(({ exporter, importer, squares }) => [
    exporter.title,
    importer.title,
    ...table.topologies.map(({ name }) => squares.get(name)?.text ?? ''),
  ]);
  const widths = head.map((title, column) => Math.max(title.length, ...body.map((cells) => cells[column]!.length)));
  const line = (cells: readonly string[], paint = (text: string, _column: number) => text) =>
    cells
      .map((text, column) => paint(text.padEnd(widths[column]!), column))
      .join('  ')
      .trimEnd();
  const rows = table.rows.map(({ squares }, index) =>
    line(body[index]!, (text, column) => {
      const square = squares.get(table.topologies[column - 2]?.name ?? '');
      return colours && square !== undefined ? `\u001b[${COLOURS[square.kind]}m${text}\u001b[0m` : text;
    }),
  );
  const title = `kernel ${table.kernel}${table.release === undefined ? '' : ` (${table.release})`}`;
  const absent = table.absent.map((text) => `not in it: ${text}`);
  return [title, line(head), ...rows, ...absent, ''].join('\n');
}

/** KTAP version 1 (Linux Documentation/dev-tools/ktap.rst): a cell a line, its problems as diagnostics. */
export function renderKtap({ results }: MatrixRun): string {
  const lines = results.flatMap(({ cell, expectation, outcome, problems }, index) => {
    const skip = expectation.kind === 'not-applicable' ? ` # SKIP ${expectation.because}` : ` # ${outcome}`;
    const status = problems.length === 0 ? 'ok' : 'not ok';
    return [
      `${status} ${index + 1} ${cell.id}${skip}`,
      ...problems.map((problem) => `# ${problem.replaceAll('\n', ' ')}`),
    ];
  });
  return `KTAP version 1\n1..${results.length}\n${lines.join('\n')}\n`;
}

export function renderJson(run: MatrixRun): string {
  const { kernelReleases, boots, wallMs, results } = run;
  const report: MatrixReport = { kernelReleases, boots, wallMs: Math.round(wallMs), cells: results.map(plainResult) };
  return `${JSON.stringify(report)}\n`;
}

function plainResult({
  cell,
  expectation,
  outcome,
  problems,
  guestMemoryBytes,
  ms,
}: CellResult): MatrixReport['cells'][number] {
  return {
    id: cell.id,
    kernel: cell.kernel.choice,
    topology: cell.topology.name,
    exporter: cell.exporter.name,
    importer: cell.importer.name,
    size: cell.size.name,
    expected: expectation.kind,
    because: expectation.because,
    outcome,
    problems,
    guestMemoryBytes,
    ms: Math.round(ms),
  };
}
