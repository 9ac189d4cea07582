/** What `ghostbus run --json` prints: of one run, and of several. */
import { z } from 'zod';
import { functionState } from '../emulator/function-state.js';

const run = z.strictObject({
  exitStatus: z.int().describe("the command's own, 128 + n after signal n; see README.md for the others"),
  signal: z.int().exactOptional().describe('number of the signal that ended the command'),
  error: z.string().exactOptional().describe('why the command did not end by itself'),
  seed: z.int().exactOptional().describe('what the command found in GHOSTBUS_SEED, if it was asked for'),
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
});

export const runReport = run.readonly().meta({ title: 'ghostbus run --json' });

export type RunReport = z.infer<typeof runReport>;

const outcome = z
  .enum(['passed', 'failed', 'undecided'])
  .describe('undecided: the command could not be tried, or ended with 125');

const repeatedRun = run
  .extend({
    run: z.int().describe('its number, from 1: GHOSTBUS_RUN'),
    seed: z.int().describe('GHOSTBUS_SEED'),
    outcome,
    stdout: z.string().exactOptional().describe('absent when the run passed, as are stderr and truncated'),
    stderr: z.string().exactOptional(),
    truncated: z.boolean().exactOptional().describe('the command wrote more than is kept'),
  })
  .readonly();

export const repeatReport = z
  .strictObject({
    exitStatus: z.int().describe('0: all that ran have passed; see README.md for the others'),
    asked: z.int().describe('how many runs were asked for'),
    passed: z.int(),
    failed: z.int(),
    undecided: z.int(),
    runs: z.array(repeatedRun).readonly().describe('those that came to their end, by their number'),
  })
  .readonly()
  .meta({ title: 'ghostbus run --repeat --json' });

export type RunOutcome = z.infer<typeof outcome>;
export type RepeatedRun = z.infer<typeof repeatedRun>;
export type RepeatReport = z.infer<typeof repeatReport>;
