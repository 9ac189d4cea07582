import { writeFile } from 'node:fs/promises';
import type { MatrixCatalogue } from '../matrix/catalogue.js';
import { generateCells } from '../matrix/cells.js';
import { renderHtml } from '../matrix/html-report.js';
import type { MatrixMachine } from '../matrix/machine.js';
import { type MatrixRun, runIn, runMatrix, usualJobs } from '../matrix/run.js';
import { renderText } from '../matrix/text-report.js';
import { topologies } from '../matrix/topologies.js';
import { sessionTools } from '../session/tools.js';
import type { Report } from './report.js';

/** Two of the matrix's sizes show as much as all of them, to a spectator. */
const CELLS = { kernels: ['latest'], sizes: ['4K', '2M', 'doorbell'] } as const;

/** That of the demo's machine, which is QEMU's usual one. */
export const THIS_TOPOLOGY = topologies.find(({ name }) => name === 'host-bridge')!;

/** The demo's machine is one of the matrix's: its guest is up already. */
export function runThisTopology(machine: MatrixMachine, catalogue: MatrixCatalogue): Promise<MatrixRun> {
  return runIn(machine, generateCells(catalogue, { ...CELLS, topologies: [THIS_TOPOLOGY.name] }));
}

/** A guest for every topology. */
export function runAllTopologies(catalogue: MatrixCatalogue, cold: boolean): Promise<MatrixRun> {
  return runMatrix(generateCells(catalogue, CELLS), {
    catalogue,
    tools: sessionTools,
    progress: (text) => process.stderr.write(`demo: ${text}\n`),
    jobs: usualJobs(),
    cold,
  });
}

/** The end: every exporter to every importer, as a table and as a page. */
export async function showMatrix(run: MatrixRun, report: Report, htmlPath: string): Promise<void> {
  report.chapter('The matrix of the latest kernel: every exporter to every importer');
  report.text(renderText(run, report.colours));
  await writeFile(htmlPath, renderHtml(run));
  report.evidence(`the same as an HTML page: ${htmlPath}`);
  const failed = run.results.filter(({ problems }) => problems.length > 0).length;
  report.check(failed === 0, 'every cell is what the kernel’s source says');
}
