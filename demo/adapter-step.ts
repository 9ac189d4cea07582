import type { MatrixCatalogue } from '../matrix/catalogue.js';
import { generateCells, stepsOf } from '../matrix/cells.js';
import { expectationOf } from '../matrix/expectation.js';
import { judge } from '../matrix/judge.js';
import type { MatrixMachine } from '../matrix/machine.js';
import type { DemoMachine } from './machine.js';
import { inWords } from './report.js';

/** What each driver says when it has taken its device. */
const PROBE_LINES = [
  /habanalabs .*Successfully added device/,
  /mlx5_core .*firmware version/,
  /\[drm\] Initialized amdgpu/,
] as const;

/** Cells of the matrix, as `ghostbus matrix` runs them, shown one by one. */
const CELLS = { kernels: ['latest'], topologies: ['host-bridge'], importers: ['mlx5'], sizes: ['2M'] } as const;

/** 5: dma-bufs of the Gaudi and of a GPU become memory regions of an adapter, and RDMA goes right into the device. */
export async function moveToAdapter(
  { report, guest }: DemoMachine,
  matrix: MatrixMachine,
  catalogue: MatrixCatalogue,
): Promise<void> {
  report.step(
    '5. Memory of the Gaudi, then of a GPU, becomes a memory region of an adapter (ibv_reg_dmabuf_mr): ' +
      'RDMA reaches it without a copy.',
  );
  const log = (await guest.dmesg()).split('\n');
  for (const pattern of PROBE_LINES) {
    const line = log.find((candidate) => pattern.test(candidate));
    report.evidence(line ?? `no line like ${pattern}`);
    report.check(line !== undefined, 'the stock driver took its device');
  }
  for (const cell of generateCells(catalogue, { ...CELLS, exporters: ['habanalabs-hbm', 'amdgpu-vram'] })) {
    const observation = await matrix.run(cell);
    const { exporter, importer, size } = cell;
    const { problems } = judge(cell, expectationOf(cell), observation);
    const steps = stepsOf(cell).map(({ name }) => name);
    const transfer = observation.counters[importer.functionName]!.peers[exporter.functionName!];
    report.evidence([
      `${exporter.title}, ${inWords(size.bytes)}: ${steps.join(', ')}`,
      `${importer.functionName} from ${exporter.functionName}: ` +
        `${transfer?.bytesRead} bytes read, ${transfer?.bytesWritten} bytes written`,
      ...problems,
    ]);
    report.check(
      problems.length === 0,
      `${exporter.title} to the adapter: every byte is right at both ends, ` +
        'and exactly the moved bytes went from function to function',
    );
  }
}
