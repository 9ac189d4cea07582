import type { FunctionState } from '../emulator/emulator.js';
import { GuestTimeoutError } from '../qemu/index.js';
import { type SignalSource, withCleanup } from './cleanup.js';
import { CommandTimeoutError, InterruptedError, statusOfCommand, statusOfError } from './exit-status.js';
import { KeptOutput, type StreamName } from './kept-output.js';
import type { RunReport } from './run-report.js';
import { emulatorFailure, type Session, type SessionContext, startSession } from './session.js';
import type { EmulatorSettings, GuestSettings } from './settings.js';

export interface RunRequest {
  readonly emulator: EmulatorSettings;
  readonly guest: GuestSettings;
  readonly argv: readonly string[];
  readonly timeoutMs: number | undefined;
  readonly json: boolean;
  /** Which one of several runs this is, and its seed: told to the command by GHOSTBUS_RUN and GHOSTBUS_SEED. */
  readonly turn?: RunTurn | undefined;
}

export interface RunTurn {
  /** From 1. */
  readonly run: number;
  readonly seed: number;
}

export interface RunOutput {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
}

/** What is known of a run so far; a failure at any point is reported with what came before it. */
export class RunRecord {
  readonly startedMs = performance.now();
  session: Session | undefined;
  /** Undefined until the command has ended, or what it ran in. */
  commandMs: number | undefined;
  functions: readonly FunctionState[] = [];
  exitStatus = 0;
  signal: number | undefined;
  error: unknown;

  /** All but the command's output. */
  report(): Omit<RunReport, 'stdout' | 'stderr' | 'truncated'> {
    const { session } = this;
    const timings = { ...session?.timings, commandMs: this.commandMs, totalMs: performance.now() - this.startedMs };
    return {
      exitStatus: this.exitStatus,
      ...(this.signal === undefined ? {} : { signal: this.signal }),
      ...(this.error === undefined ? {} : { error: (this.error as Error).message }),
      ...(session === undefined
        ? {}
        : {
            guest: {
              kernelRelease: session.image.kernelRelease,
              accel: session.guest.accel,
              qemuVersion: session.qemu.version,
            },
          }),
      functions: this.functions,
      timings: Object.fromEntries(
        Object.entries(timings).flatMap(([name, ms]) => (ms === undefined ? [] : [[name, Math.round(ms)]])),
      ),
    };
  }
}

/** Gets what the command writes, as it comes. */
type OutputSink = (stream: StreamName, chunk: Buffer) => void;

/**
 * Serves the functions, boots a guest with them, runs the command and ends everything. Resolves with the exit status;
 * what went wrong is said on `output.stderr` (and in the report with `json`).
 */
export async function runInGuest(
  request: RunRequest,
  context: Omit<SessionContext, 'cleanup'>,
  output: RunOutput,
): Promise<number> {
  const kept = new KeptOutput();
  const sink: OutputSink = (stream, chunk) => (request.json ? kept.add(stream, chunk) : output[stream].write(chunk));
  const record = await recordRun(request, context, sink);
  const { error, exitStatus } = record;
  if (error !== undefined && !(error instanceof InterruptedError)) {
    output.stderr.write(`ghostbus: ${(error as Error).message}\n`);
  }
  if (request.json) {
    const { exitStatus: status, ...rest } = record.report();
    const report: RunReport = {
      exitStatus: status,
      ...(request.turn === undefined ? {} : { seed: request.turn.seed }),
      stdout: kept.text('stdout'),
      stderr: kept.text('stderr'),
      truncated: kept.truncated,
      ...rest,
    };
    output.stdout.write(`${JSON.stringify(report)}\n`);
  }
  return exitStatus;
}

/** One run from its emulator to its end. Never rejects: what went wrong is in the record. */
export async function recordRun(
  request: RunRequest,
  context: Omit<SessionContext, 'cleanup'>,
  sink: OutputSink,
  signals?: SignalSource,
): Promise<RunRecord> {
  const record = new RunRecord();
  try {
    await withCleanup(async (cleanup) => {
      const session = await startSession(request.emulator, request.guest, { ...context, cleanup });
      record.session = session;
      try {
        await runCommand(request, session, record, sink);
      } finally {
        record.functions = await session.emulator.state().catch(() => []);
      }
    }, signals);
  } catch (error) {
    record.error = error;
    record.exitStatus = statusOfError(error);
  }
  return record;
}

async function runCommand(request: RunRequest, session: Session, record: RunRecord, sink: OutputSink): Promise<void> {
  const { argv, timeoutMs, turn } = request;
  const start = performance.now();
  const running = session.guest.run(argv, {
    onStdout: (chunk) => sink('stdout', chunk),
    onStderr: (chunk) => sink('stderr', chunk),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(turn === undefined ? {} : { env: { GHOSTBUS_RUN: String(turn.run), GHOSTBUS_SEED: String(turn.seed) } }),
  });
  try {
    const result = await Promise.race([running, emulatorFailure(session.emulator)]);
    record.exitStatus = statusOfCommand(result);
    record.signal = result.signal;
  } catch (error) {
    const over = timeoutMs !== undefined && performance.now() - start >= timeoutMs;
    if (!(error instanceof GuestTimeoutError && over)) throw error;
    throw new CommandTimeoutError(
      `${JSON.stringify(argv.join(' '))} was still running after ${timeoutMs / 1000} s and was stopped (--timeout)`,
      { cause: error },
    );
  } finally {
    record.commandMs = performance.now() - start;
  }
}
