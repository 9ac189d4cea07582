/**
 * A part of the dma-buf matrix that fits in continuous integration: one topology of each outcome, all pairs, the
 * small sizes. `ghostbus matrix` runs all of it.
 */
import assert from 'node:assert/strict';
import { sessionTools } from 'ghostbus/session';
import { loadCatalogue } from '../../matrix/catalogue.js';
import { generateCells } from '../../matrix/cells.js';
import { runMatrix } from '../../matrix/run.js';
import { progress } from './support.js';

/** Refusals and staging are the same for all sizes. */
const ONE_SIZE = ['4K', 'doorbell'];
const SIZES = [...ONE_SIZE, '2M+4K', 'unaligned'];

describe('the dma-buf matrix', () => {
  for (const [kernel, topology, sizes] of [
    ['lts', 'host-bridge', ONE_SIZE],
    ['latest', 'iommu-pt', SIZES],
    ['latest', 'refused', ONE_SIZE],
  ] as const) {
    it(`${kernel}, ${topology}: every pair does what the kernel's source says`, async () => {
      const catalogue = await loadCatalogue();
      const cells = generateCells(catalogue, { kernels: [kernel], topologies: [topology], sizes });
      const { results } = await runMatrix(cells, { catalogue, tools: sessionTools, progress, jobs: 1 });
      const problems = results.flatMap(({ cell, problems: found }) => found.map((problem) => `${cell.id}: ${problem}`));
      assert.deepEqual(problems, []);
      assert.equal(results.length, cells.length);
    });
  }
});
