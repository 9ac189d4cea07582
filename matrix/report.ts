/** What `ghostbus matrix --json` prints. */
import { z } from 'zod';

const cell = z
  .strictObject({
    id: z.string().describe('kernel/topology/exporter/importer/size'),
    kernel: z.string(),
    topology: z.string(),
    exporter: z.string(),
    importer: z.string(),
    size: z.string(),
    expected: z.enum(['p2p', 'staged', 'refused', 'not-applicable']),
    because: z.string().describe('the rule that says so'),
    outcome: z.string().describe('P2P, staged, an errno, or n/a'),
    problems: z.array(z.string()).readonly().describe('what was not as expected; empty is good'),
    guestMemoryBytes: z.number().describe('what went through guest memory meanwhile'),
    ms: z.int(),
  })
  .readonly();

export const matrixReport = z
  .strictObject({
    kernelReleases: z.record(z.string(), z.string()).readonly().describe('the release that each name stands for'),
    boots: z.int(),
    wallMs: z.int(),
    cells: z.array(cell).readonly(),
  })
  .readonly()
  .meta({ title: 'ghostbus matrix --json' });

export type MatrixReport = z.infer<typeof matrixReport>;
