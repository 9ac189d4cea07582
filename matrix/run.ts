/** Runs cells, those of one boot in one guest, and says of each how it went. */
import { withCleanup } from '../emulator/cli/cleanup.js';
import { InterruptedError } from '../emulator/cli/exit-status.js';
import type { SessionTools } from '../emulator/cli/session.js';
import type { Cell } from './declaration.js';
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

export interface RunContext {
  readonly tools: SessionTools;
  readonly progress: (text: string) => void;
  /** Called as soon as a cell is judged. */
  readonly onResult?: (result: CellResult) => void;
}

export async function runMatrix(cells: readonly Cell[], context: RunContext): Promise<MatrixRun> {
  const started = performance.now();
  const results: CellResult[] = [];
  const kernelReleases: Record<string, string> = {};
  const add = (result: CellResult) => {
    results.push(result);
    context.onResult?.(result);
  };
  let boots = 0;
  for (const group of groupByBoot(cells)) {
    const applicable = group.filter((cell) => expectationOf(cell).kind !== 'not-applicable');
    for (const cell of group) if (!applicable.includes(cell)) add(notApplicable(cell));
    if (applicable.length === 0) continue;
    boots++;
    await runGroup(applicable, context, add, (release) => {
      kernelReleases[applicable[0]!.kernel] = release;
    });
  }
  return { results, kernelReleases, boots, wallMs: performance.now() - started };
}

/** All cells of one kernel and topology share a guest. */
export function groupByBoot(cells: readonly Cell[]): Cell[][] {
  const groups = new Map<string, Cell[]>();
  for (const cell of cells) {
    const key = `${cell.kernel}/${cell.topology.name}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [cell]);
    else group.push(cell);
  }
  return [...groups.values()];
}

function notApplicable(cell: Cell): CellResult {
  return { cell, expectation: expectationOf(cell), outcome: 'n/a', problems: [], guestMemoryBytes: 0, ms: 0 };
}

/** A guest that ends early fails the cells that were left. */
async function runGroup(
  cells: readonly Cell[],
  { tools, progress }: RunContext,
  add: (result: CellResult) => void,
  onBoot: (kernelRelease: string) => void,
): Promise<void> {
  const left = [...cells];
  try {
    await withCleanup(async (cleanup) => {
      const { kernel, topology } = cells[0]!;
      progress(`${kernel}, ${topology.title}: ${cells.length} cells`);
      const machine = await MatrixMachine.start(kernel, topology, { tools, progress, cleanup });
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
