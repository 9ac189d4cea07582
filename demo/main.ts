/** The main job, shown step by step. `scripts/demo` does the set-up and starts it. */
import { loadCatalogue, type MatrixCatalogue } from '../matrix/catalogue.js';
import { MatrixMachine } from '../matrix/machine.js';
import type { MatrixRun } from '../matrix/run.js';
import { InterruptedError, statusOfError, USAGE_STATUS } from '../session/exit-status.js';
import { WatchedLog } from '../session/watched-log.js';
import { moveToAdapter } from './adapter-step.js';
import { ringDoorbell } from './doorbell-step.js';
import { showFunctions } from './functions-step.js';
import { ALL_DEVICES, type DemoMachine, GPUS, withDemoMachine } from './machine.js';
import { runAllTopologies, runThisTopology, showMatrix, THIS_TOPOLOGY } from './matrix-step.js';
import { moveDmaBuf } from './peer-step.js';
import { inWords, Report } from './report.js';
import { HELP, readWishes, type Wishes } from './wishes.js';

/**
 * Both guests boot at once: loading amdgpu keeps one processor busy for most of that time, on hosts with two the other
 * is free. The second guest's part is shown when the first one's is over, and not at all when that failed.
 */
async function show(wishes: Wishes, report: Report, catalogue: MatrixCatalogue): Promise<MatrixRun | undefined> {
  const { verbose, cold } = wishes;
  let settleFirst: (succeeded: boolean) => void = () => undefined;
  const first = new Promise<boolean>((resolve) => {
    settleFirst = resolve;
  });
  const second = withDemoMachine({ kernel: 'lts', devices: GPUS, verbose, cold }, report, async (machine) => {
    if (await first) await showStaging(machine, wishes);
  });
  // Awaited below, after the first guest's part; a failure meanwhile waits there for its turn.
  second.catch(() => undefined);
  let succeeded = false;
  let matrix: MatrixRun | undefined;
  try {
    await withDemoMachine({ kernel: 'latest', devices: ALL_DEVICES, verbose, cold }, report, async (machine) => {
      matrix = await showPeerToPeer(machine, wishes, catalogue);
    });
    succeeded = true;
  } finally {
    settleFirst(succeeded);
    await second.catch((error: Error) => {
      if (succeeded) throw error;
    });
  }
  return matrix;
}

/** Returns the matrix of this machine, which is shown last. */
async function showPeerToPeer(
  machine: DemoMachine,
  { bytes, matrix }: Wishes,
  catalogue: MatrixCatalogue,
): Promise<MatrixRun | undefined> {
  const { report, description } = machine;
  report.chapter('On the latest kernel, which allows peer-to-peer DMA');
  report.evidence(description);
  await showFunctions(machine);
  report.step(
    `2. ${inWords(bytes)} in the first GPU’s VRAM, filled by its SDMA, ` +
      'become a dma-buf that the second GPU imports and copies.\n' +
      '3. The contents and the way they took, seen from the guest and from the host.',
  );
  await moveDmaBuf(machine, 'peer-to-peer', bytes);
  await ringDoorbell(machine);
  const matrixMachine = await MatrixMachine.of(machine, new WatchedLog(), { catalogue, plan: THIS_TOPOLOGY });
  await moveToAdapter(machine, matrixMachine, catalogue);
  return matrix ? undefined : runThisTopology(matrixMachine, catalogue);
}

async function showStaging(machine: DemoMachine, { bytes }: Wishes): Promise<void> {
  const { report, description } = machine;
  report.chapter('On the LTS kernel, which Debian builds without peer-to-peer DMA');
  report.evidence(description);
  report.step(
    '6. The program of step 2: the driver stages the buffer in system memory, and the data are right all the same.',
  );
  await moveDmaBuf(machine, 'staged', bytes);
}

async function main(argv: readonly string[]): Promise<number> {
  const started = performance.now();
  let wishes: Wishes | undefined;
  try {
    wishes = readWishes(argv);
  } catch (error) {
    process.stderr.write(`demo: ${(error as Error).message}\n${HELP}`);
    return USAGE_STATUS;
  }
  if (wishes === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const report = new Report(process.stdout, process.stdout.isTTY === true && process.env.NO_COLOR === undefined);
  try {
    const catalogue = await loadCatalogue();
    const here = await show(wishes, report, catalogue);
    const matrix = here ?? (report.broken === 0 ? await runAllTopologies(catalogue, wishes.cold) : undefined);
    if (matrix !== undefined) await showMatrix(matrix, report, wishes.html);
  } catch (error) {
    if (!(error instanceof InterruptedError)) process.stderr.write(`demo: ${(error as Error).message}\n`);
    return statusOfError(error);
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  report.chapter(`${report.held} claims held, ${report.broken} did not, in ${seconds} s.`);
  return report.broken === 0 ? 0 : 1;
}

process.exit(await main(process.argv.slice(2)));
