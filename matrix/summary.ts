/** What the reports have in common: squares of the table, and sums. */
import type { Cell } from './cells.js';
import { absenceOf } from './kernels.js';
import type { CellResult, MatrixRun } from './run.js';
import { topologies } from './topologies.js';

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
  const kernels = unique(results.map(({ cell }) => cell.kernel.choice));
  return kernels.map((kernel) => {
    const ran = results.filter(({ cell }) => cell.kernel.choice === kernel);
    const used = topologies.filter(({ name }) => ran.some(({ cell }) => cell.topology.name === name));
    const absent = absentOf(ran.map(({ cell }) => cell));
    return { kernel, release: kernelReleases[kernel], topologies: used, rows: rowsOf(ran), absent };
  });
}

/** A row for each pair that one kernel has, in the order of the cells. */
function rowsOf(ran: readonly CellResult[]): Row[] {
  const exporters = unique(ran.map(({ cell }) => cell.exporter));
  const importers = unique(ran.map(({ cell }) => cell.importer));
  return exporters.flatMap((exporter) =>
    importers.flatMap((importer) => {
      const pair = ran.filter(({ cell }) => cell.exporter === exporter && cell.importer === importer);
      if (pair.length === 0 || absenceIn(pair[0]!.cell, importer) || absenceIn(pair[0]!.cell, exporter)) return [];
      const names = unique(pair.map(({ cell }) => cell.topology.name));
      const squares = new Map(
        names.map((name) => [name, squareOf(pair.filter(({ cell }) => cell.topology.name === name))]),
      );
      return [{ exporter, importer, squares }];
    }),
  );
}

type Party = Pick<Cell['exporter'] | Cell['importer'], 'driver' | 'title'>;

function absenceIn({ kernel }: Cell, { driver }: Party): string | undefined {
  return absenceOf(driver, kernel);
}

function absentOf(cells: readonly Cell[]): string[] {
  const parties = unique<Party>(cells.flatMap(({ exporter, importer }) => [exporter, importer]));
  return parties.flatMap((party) => {
    const reason = absenceIn(cells[0]!, party);
    return reason === undefined ? [] : [`${party.title}: ${reason}`];
  });
}

function unique<T>(all: readonly T[]): T[] {
  return [...new Set(all)];
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
