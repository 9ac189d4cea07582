import type { FunctionState } from '../emulator/emulator.js';
import { GuestTimeoutError } from '../qemu/index.js';
import { withCleanup } from './cleanup.js';
import { CommandTimeoutError, InterruptedError, statusOfCommand, statusOfError } from './exit-status.js';
import type { RunReport } from './run-report.js';
import { emulatorFailure, type Session, type SessionContext, startSession } from './session.js';
import type { EmulatorSettings, GuestSettings } from './settings.js';

/** With `--json` this much of each output stream is kept; the rest is dropped, and the result says so. */
const CAPTURE_LIMIT_BYTES = 16 * 1024 * 1024;

export interface RunRequest {
  readonly emulator: EmulatorSettings;
  readonly guest: GuestSettings;
  readonly argv: readonly string[];
  readonly timeoutMs: number | undefined;
  readonly json: boolean;
}

export interface RunOutput {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
}

/** Keeps the beginning of a stream. */
class Capture {
  truncated = false;
  readonly #chunks: Buffer[] = [];
  #sizeBytes = 0;

  add(chunk: Buffer): void {
    const room = CAPTURE_LIMIT_BYTES - this.#sizeBytes;
    const kept = chunk.subarray(0, room);
    this.#chunks.push(kept);
    this.#sizeBytes += kept.length;
    this.truncated ||= kept.length < chunk.length;
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString();
  }
}

/** What is known of a run so far; a failure at any point is reported with what came before it. */
class RunRecord {
  readonly stdout = new Capture();
  readonly stderr = new Capture();
  readonly startedMs = performance.now();
  session: Session | undefined;
  commandMs: number | undefined;
  functions: readonly FunctionState[] = [];
  exitStatus = 0;
  signal: number | undefined;
  error: unknown;

  report(): RunReport {
    const { session } = this;
    const timings = { ...session?.timings, commandMs: this.commandMs, totalMs: performance.now() - this.startedMs };
    return {
      exitStatus: this.exitStatus,
      ...(this.signal === undefined ? {} : { signal: this.signal }),
      ...(this.error === undefined ? {} : { error: (this.error as Error).message }),
      stdout: this.stdout.text,
      stderr: this.stderr.text,
      truncated: this.stdout.truncated || this.stderr.truncated,
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

/**
 * Serves the functions, boots a guest with them, runs the command and ends everything. Resolves with the exit status;
 * what went wrong is said on `output.stderr` (and in the report with `json`).
 */
export async function runInGuest(
  request: RunRequest,
  context: Omit<SessionContext, 'cleanup'>,
  output: RunOutput,
): Promise<number> {
  const record = new RunRecord();
  try {
    await withCleanup(async (cleanup) => {
      const session = await startSession(request.emulator, request.guest, { ...context, cleanup });
      record.session = session;
      try {
        await runCommand(request, session, record, output);
      } finally {
        record.functions = await session.emulator.state().catch(() => []);
      }
    });
  } catch (error) {
    record.error = error;
    record.exitStatus = statusOfError(error);
    if (!(error instanceof InterruptedError)) output.stderr.write(`ghostbus: ${(error as Error).message}\n`);
  }
  if (request.json) output.stdout.write(`${JSON.stringify(record.report())}\n`);
  return record.exitStatus;
}

async function runCommand(request: RunRequest, session: Session, record: RunRecord, output: RunOutput): Promise<void> {
  const { argv, timeoutMs, json } = request;
  const start = performance.now();
  const running = session.guest.run(argv, {
    onStdout: (chunk) => (json ? record.stdout.add(chunk) : output.stdout.write(chunk)),
    onStderr: (chunk) => (json ? record.stderr.add(chunk) : output.stderr.write(chunk)),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
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
