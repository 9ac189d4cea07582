/** Runs cells, those of one boot in one guest, and says of each how it went. */
import { availableParallelism } from 'node:os';
import { withCleanup } from '../session/cleanup.js';
import { InterruptedError } from '../session/exit-status.js';
import type { SessionTools } from '../session/session.js';
import type { MatrixCatalogue } from './catalogue.js';
import type { Cell } from './cells.js';
import { type Expectation, expectationOf } from './expectation.js';
import { judge } from './judge.js';
import { MatrixMachine } from './machine.js';

export interface CellResult {
  readonly cell: Cell;
  readonly expectation: Expectation;
  /** `P2P`, `P2P (messages)`, `staged`, an errno, `n/a`, or `failed`. */
  readonly outcome: string;
  /** Empty: as expected. */
  readonly problems: readonly string[];
  /** What the importing function moved from and to guest memory. */
  readonly guestMemoryBytes: number;
  readonly ms: number;
}

export interface MatrixRun {
  readonly results: readonly CellResult[];
  /** The release that each kernel's name stands for. */
  readonly kernelReleases: Readonly<Record<string, string>>;
  readonly boots: number;
  readonly wallMs: number;
}

interface RunContext {
  /** What the cells were generated from. */
  readonly catalogue: MatrixCatalogue;
  readonly tools: SessionTools;
  readonly progress: (text: string) => void;
  /** How many guests may run at once. */
  readonly jobs: number;
  /** Boot every guest, instead of restoring it. */
  readonly cold?: boolean;
  /** Called as soon as a cell is judged; cells of different guests in any order. */
  readonly onResult?: (result: CellResult) => void;
}

/** More guests than that want more memory than a laptop has to spare. */
const MOST_USUAL_JOBS = 4;

/** One guest for each processor: loading its drivers keeps one of a guest's virtual processors busy. */
export const usualJobs = (): number => Math.min(availableParallelism(), MOST_USUAL_JOBS);

/** Results are in the order of `cells`, whatever ended first. */
export async function runMatrix(cells: readonly Cell[], context: RunContext): Promise<MatrixRun> {
  const started = performance.now();
  const results = new Map<Cell, CellResult>();
  const kernelReleases: Record<string, string> = {};
  const add = (result: CellResult) => {
    results.set(result.cell, result);
    context.onResult?.(result);
  };
  for (const cell of cells) if (!isApplicable(cell)) add(notApplicable(cell));
  const groups = groupByBoot(cells.filter(isApplicable));
  await inParallel(groups, context.jobs, (group) =>
    runGroup(group, context, add, (release) => {
      kernelReleases[group[0]!.kernel.choice] = release;
    }),
  );
  return {
    results: cells.map((cell) => results.get(cell)!),
    kernelReleases,
    boots: groups.length,
    wallMs: performance.now() - started,
  };
}

/**
 * Works through `items` in their order, at most `jobs` at a time. Once one has failed no other is begun; rejects as
 * that one did when all that were begun have ended.
 */
export async function inParallel<T>(
  items: readonly T[],
  jobs: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const left = [...items];
  const failures: unknown[] = [];
  const workOff = async () => {
    for (let item = left.shift(); item !== undefined && failures.length === 0; item = left.shift()) {
      await work(item).catch((error: unknown) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: jobs }, workOff));
  if (failures.length > 0) throw failures[0];
}

/** All cells of one kernel and topology share a guest. */
export function groupByBoot(cells: readonly Cell[]): Cell[][] {
  const groups = new Map<string, Cell[]>();
  for (const cell of cells) {
    const key = `${cell.kernel.choice}/${cell.topology.name}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [cell]);
    else group.push(cell);
  }
  return [...groups.values()];
}

/** Runs cells in a guest of their kernel and topology that is up already. */
export async function runIn(machine: MatrixMachine, cells: readonly Cell[]): Promise<MatrixRun> {
  const started = performance.now();
  const results: CellResult[] = [];
  for (const cell of cells) results.push(isApplicable(cell) ? await runCell(machine, cell) : notApplicable(cell));
  const kernelReleases = Object.fromEntries(cells.map(({ kernel }) => [kernel.choice, machine.kernelRelease]));
  return { results, kernelReleases, boots: 0, wallMs: performance.now() - started };
}

function isApplicable(cell: Cell): boolean {
  return expectationOf(cell).kind !== 'not-applicable';
}

function notApplicable(cell: Cell): CellResult {
  return { cell, expectation: expectationOf(cell), outcome: 'n/a', problems: [], guestMemoryBytes: 0, ms: 0 };
}

/** A guest that ends early fails the cells that were left. */
async function runGroup(
  cells: readonly Cell[],
  { catalogue, tools, progress, cold = false }: RunContext,
  add: (result: CellResult) => void,
  onBoot: (kernelRelease: string) => void,
): Promise<void> {
  const left = [...cells];
  try {
    await withCleanup(async (cleanup) => {
      const { kernel, topology } = cells[0]!;
      const tell = (text: string) => progress(`${kernel.choice}, ${topology.title}: ${text}`);
      tell(`${cells.length} cells`);
      const machine = await MatrixMachine.start(
        { catalogue, kernel: kernel.choice, plan: topology, cold },
        { tools, progress: tell, cleanup },
      );
      onBoot(machine.kernelRelease);
      for (let cell = left[0]; cell !== undefined; cell = left[0]) {
        const result = await runCell(machine, cell);
        left.shift();
        add(result);
      }
    });
  } catch (error) {
    if (error instanceof InterruptedError || left.length === 0) throw error;
    for (const cell of left) {
      const problems = [`the guest was lost: ${(error as Error).message}`];
      add({ cell, expectation: expectationOf(cell), outcome: 'failed', problems, guestMemoryBytes: 0, ms: 0 });
    }
  }
}

async function runCell(machine: MatrixMachine, cell: Cell): Promise<CellResult> {
  const started = performance.now();
  const expectation = expectationOf(cell);
  const verdict = judge(cell, expectation, await machine.run(cell));
  return { cell, expectation, ...verdict, ms: performance.now() - started };
}
