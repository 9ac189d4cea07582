/** What `ghostbus run --json` prints. */
import { z } from 'zod';
import { functionState } from '../emulator/function-state.js';

export const runReport = z
  .strictObject({
    exitStatus: z.int().describe("the command's own, 128 + n after signal n; see README.md for the others"),
    signal: z.int().exactOptional().describe('number of the signal that ended the command'),
    error: z.string().exactOptional().describe('why the command did not end by itself'),
    stdout: z.string(),
    stderr: z.string(),
    truncated: z.boolean().describe('the command wrote more than is kept'),
    guest: z
      .strictObject({ kernelRelease: z.string(), accel: z.string(), qemuVersion: z.string() })
      .readonly()
      .exactOptional()
      .describe('absent when no guest was there'),
    functions: z.array(functionState).readonly().describe('state and counters of every function after the command'),
    timings: z.record(z.string(), z.int()).readonly().describe('milliseconds, by what took them'),
  })
  .readonly()
  .meta({ title: 'ghostbus run --json' });

export type RunReport = z.infer<typeof runReport>;
