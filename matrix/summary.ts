/** What the reports have in common: squares of the table, and sums. */
import { type Cell, exporters, importers, topologies } from './declaration.js';
import type { CellResult, MatrixRun } from './run.js';

/** All sizes of one pair in one machine. */
export interface Square {
  /** The outcome that all sizes share, or each different one. */
  readonly text: string;
  readonly kind: 'p2p' | 'staged' | 'refused' | 'not-applicable' | 'failed';
  readonly results: readonly CellResult[];
}

export interface Row {
  readonly exporter: Cell['exporter'];
  readonly importer: Cell['importer'];
  /** By the name of the topology; a combination that was not run has none. */
  readonly squares: ReadonlyMap<string, Square>;
}

export interface KernelTable {
  readonly kernel: string;
  readonly release: string | undefined;
  readonly topologies: readonly Cell['topology'][];
  readonly rows: readonly Row[];
  /** What has no rows because the kernel lacks it: `iommufd: Debian builds …`. */
  readonly absent: readonly string[];
}

/** One table for each kernel that was run. */
export function tablesOf({ results, kernelReleases }: Pick<MatrixRun, 'results' | 'kernelReleases'>): KernelTable[] {
  const kernels = [...new Set(results.map(({ cell }) => cell.kernel))];
  return kernels.map((kernel) => {
    const ran = results.filter(({ cell }) => cell.kernel === kernel);
    const used = topologies.filter(({ name }) => ran.some(({ cell }) => cell.topology.name === name));
    const rows = exporters.flatMap((exporter) =>
      importers.flatMap((importer) => {
        const pair = ran.filter(
          ({ cell }) => cell.exporter.name === exporter.name && cell.importer.name === importer.name,
        );
        if (pair.length === 0 || lacks(pair[0]!.cell, importer) || lacks(pair[0]!.cell, exporter)) return [];
        const squares = new Map<string, Square>();
        for (const { name } of used) {
          const inSquare = pair.filter(({ cell }) => cell.topology.name === name);
          if (inSquare.length > 0) squares.set(name, squareOf(inSquare));
        }
        return [{ exporter, importer, squares }];
      }),
    );
    const absent = absentOf(ran.map(({ cell }) => cell));
    return { kernel, release: kernelReleases[kernel], topologies: used, rows, absent };
  });
}

type Party = Pick<Cell['exporter'] | Cell['importer'], 'driver' | 'title'>;

function lacks({ traits }: Cell, { driver }: Party): boolean {
  return traits.missing[driver] !== undefined;
}

function absentOf(cells: readonly Cell[]): string[] {
  const { missing } = cells[0]!.traits;
  const parties = new Set<Party>(cells.flatMap(({ exporter, importer }) => [exporter, importer]));
  return [...parties].flatMap(({ driver, title }) => {
    const reason = missing[driver];
    return reason === undefined ? [] : [`${title}: ${reason}`];
  });
}

function squareOf(results: readonly CellResult[]): Square {
  const outcomes = [...new Set(results.map(({ outcome }) => outcome))];
  const failed = results.filter(({ problems }) => problems.length > 0).length;
  if (failed > 0) return { text: `FAILED ${failed}/${results.length}`, kind: 'failed', results };
  return { text: outcomes.join(', '), kind: results[0]!.expectation.kind, results };
}

/** `60 cells: 30 P2P, 20 staged, 10 refused; 0 not as expected; 2 boots, 43 s`. */
export function sumsOf({ results, boots, wallMs }: MatrixRun): string {
  const count = (kind: string) => results.filter(({ expectation }) => expectation.kind === kind).length;
  const kinds = [
    [count('p2p'), 'P2P'],
    [count('staged'), 'staged'],
    [count('refused'), 'refused'],
    [count('not-applicable'), 'not applicable'],
  ] as const;
  const words = kinds.filter(([number]) => number > 0).map(([number, word]) => `${number} ${word}`);
  const failed = results.filter(({ problems }) => problems.length > 0).length;
  const effort = [...(boots > 0 ? [`${boots} boots`] : []), `${(wallMs / 1000).toFixed(0)} s`];
  return `${results.length} cells: ${words.join(', ')}; ${failed} not as expected; ${effort.join(', ')}`;
}
