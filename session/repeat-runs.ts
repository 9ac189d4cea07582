/** The same command in many fresh machines, to meet what does not happen every time. */
import { EventEmitter } from 'node:events';
import type { EmulatorLog } from '../emulator/emulator.js';
import { GuestError, GuestPanicError, GuestTimeoutError, QemuExitError } from '../qemu/index.js';
import type { SignalSource } from './cleanup.js';
import { CommandTimeoutError, statusOfSignal, UNDECIDED_STATUS } from './exit-status.js';
import { KeptOutput } from './kept-output.js';
import { type RunOutput, type RunRecord, type RunRequest, type RunTurn, recordRun } from './run-in-guest.js';
import type { RepeatedRun, RepeatReport, RunOutcome } from './run-report.js';
import type { SessionContext } from './session.js';

/** Seeds are below this, so that a C program may keep one in an int. */
export const SEEDS = 2 ** 31;
/** What `git bisect run` takes for "bad" at most; above it gives up. */
const LARGEST_BAD_STATUS = 127;

export interface RepeatRequest {
  readonly times: number;
  /** How many at the same time, at most. */
  readonly jobs: number;
  /** Ends all at the first run that does not pass. */
  readonly stopOnFailure: boolean;
  /** That of the first run. */
  readonly seed: number;
  readonly json: boolean;
  /** What one run is; its `turn` is added. */
  requestOf(run: number): Omit<RunRequest, 'turn' | 'json'>;
}

/** Consecutive, so that a run's seed given as the first one's makes that run again. */
export function seedOfRun(firstSeed: number, run: number): number {
  return (firstSeed + run - 1) % SEEDS;
}

/**
 * Runs all of them and resolves with the exit status, which suits `git bisect run`. Runs that do not pass are shown
 * whole on `output.stdout`, or there is one report at the end with `json`.
 */
export async function repeatRuns(
  request: RepeatRequest,
  context: Omit<SessionContext, 'cleanup'>,
  output: Pick<RunOutput, 'stdout'>,
  signals: SignalSource = process,
): Promise<number> {
  return new Repetition(request, context, output).run(signals);
}

/** Hands signals on to all runs: the process's own, and the end at a failure. The process's exit is not theirs. */
class SignalRelay extends EventEmitter implements SignalSource {
  constructor() {
    super();
    this.setMaxListeners(0);
  }

  exit(): void {}
}

const RELAYED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

interface Finished {
  readonly report: RepeatedRun;
  /** Why it did not pass, in a few words. */
  readonly why: string;
}

class Repetition {
  readonly #request: RepeatRequest;
  readonly #context: Omit<SessionContext, 'cleanup'>;
  readonly #output: Pick<RunOutput, 'stdout'>;
  readonly #relay = new SignalRelay();
  readonly #finished: Finished[] = [];
  readonly #told = new Set<string>();
  #next = 1;
  #isEnding = false;
  #signal: NodeJS.Signals | undefined;

  constructor(request: RepeatRequest, context: Omit<SessionContext, 'cleanup'>, output: Pick<RunOutput, 'stdout'>) {
    this.#request = request;
    this.#context = context;
    this.#output = output;
  }

  async run(signals: SignalSource): Promise<number> {
    const { times, jobs, json } = this.#request;
    const onSignal = (signal: NodeJS.Signals) => {
      if (this.#signal !== undefined) {
        this.#relay.emit(signal, signal);
        signals.exit(statusOfSignal(signal));
      }
      this.#signal = signal;
      this.#end(signal);
    };
    for (const signal of RELAYED) signals.on(signal, onSignal);
    try {
      await Promise.all(Array.from({ length: Math.min(jobs, times) }, () => this.#workOff()));
    } finally {
      for (const signal of RELAYED) signals.off(signal, onSignal);
    }
    this.#finished.sort((one, other) => one.report.run - other.report.run);
    const report = this.#report();
    for (const line of this.#summary(report)) this.#context.progress(line);
    if (json) this.#output.stdout.write(`${JSON.stringify(report)}\n`);
    return report.exitStatus;
  }

  /** Begins no other run and ends those that are under way, which then do not count. */
  #end(signal: NodeJS.Signals): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#relay.emit(signal, signal);
  }

  async #workOff(): Promise<void> {
    while (!this.#isEnding && this.#next <= this.#request.times) {
      const run = this.#next++;
      await this.#runOnce({ run, seed: seedOfRun(this.#request.seed, run) });
    }
  }

  async #runOnce(turn: RunTurn): Promise<void> {
    const { requestOf, json, stopOnFailure } = this.#request;
    const kept = new KeptOutput();
    const record = await recordRun(
      { ...requestOf(turn.run), turn, json },
      { ...this.#context, log: logOfRun(this.#context.log, turn.run), progress: (text) => this.#tellOnce(text) },
      (stream, chunk) => kept.add(stream, chunk),
      this.#relay,
    );
    // Ended in mid-run, with a failure that is none of its own.
    if (this.#isEnding) return;
    const finished = this.#finish(turn, record, kept);
    this.#finished.push(finished);
    this.#tell(finished, record, kept);
    const { outcome } = finished.report;
    if (outcome === 'passed') return;
    if (stopOnFailure || isOursToMend(record.error)) this.#end('SIGTERM');
  }

  #finish(turn: RunTurn, record: RunRecord, kept: KeptOutput): Finished {
    const outcome = outcomeOf(record);
    const output = { stdout: kept.text('stdout'), stderr: kept.text('stderr'), truncated: kept.truncated };
    const shown = this.#request.json && outcome !== 'passed' ? output : {};
    return { report: { ...turn, outcome, ...shown, ...record.report() }, why: whyOf(record) };
  }

  /** What the runs' images take is told once, and not by each of them. */
  #tellOnce(text: string): void {
    if (this.#told.has(text)) return;
    this.#told.add(text);
    this.#context.progress(text);
  }

  #tell({ report, why }: Finished, record: RunRecord, kept: KeptOutput): void {
    const { times, json } = this.#request;
    const { run, seed, outcome } = report;
    const seconds = (report.timings.totalMs! / 1000).toFixed(1);
    const name = `run ${run} of ${times}`;
    const said = outcome === 'passed' ? 'passed' : `${outcome}, ${why},`;
    this.#context.progress(`${name}: ${said} in ${seconds} s (seed ${seed})`);
    if (json || outcome === 'passed') return;
    const { stdout } = this.#output;
    stdout.write(`=== ${name}: ${outcome}, ${why} (seed ${seed}) ===\n`);
    stdout.write(kept.lines());
    if (kept.truncated) stdout.write('ghostbus: it wrote more than is kept\n');
    if (record.error !== undefined) stdout.write(`ghostbus: ${(record.error as Error).message}\n`);
  }

  #report(): RepeatReport {
    const runs = this.#finished.map(({ report }) => report);
    const count = (outcome: RunOutcome) => runs.filter((run) => run.outcome === outcome).length;
    return {
      exitStatus: this.#signal === undefined ? statusOfRuns(runs) : statusOfSignal(this.#signal),
      asked: this.#request.times,
      passed: count('passed'),
      failed: count('failed'),
      undecided: count('undecided'),
      runs,
    };
  }

  #summary({ asked, passed, runs }: RepeatReport): string[] {
    const listed = (outcome: RunOutcome) => {
      const found = this.#finished.filter(({ report }) => report.outcome === outcome);
      const texts = found.map(({ report, why }) => `${report.run} (${why}, seed ${report.seed})`);
      return texts.length === 0 ? [] : [`${outcome}: ${texts.join(', ')}`];
    };
    const left = asked - runs.length;
    const parts = [
      `${passed} of ${runs.length} passed`,
      ...listed('failed'),
      ...listed('undecided'),
      ...(left === 0 ? [] : [`${left} not run to the end${this.#signal === undefined ? '' : ', interrupted'}`]),
    ];
    const failed = runs.find(({ outcome }) => outcome === 'failed');
    return failed === undefined
      ? [parts.join('; ')]
      : [parts.join('; '), `run ${failed.run} again: --seed ${failed.seed} in place of --repeat ${asked}`];
  }
}

function logOfRun(log: EmulatorLog, run: number): EmulatorLog {
  return {
    debug: (fields, message) => log.debug({ ...fields, run }, message),
    info: (fields, message) => log.info({ ...fields, run }, message),
    warn: (fields, message) => log.warn({ ...fields, run }, message),
    error: (fields, message) => log.error({ ...fields, run }, message),
  };
}

/** A guest that panics or hangs under the command is what such hunts are for; one that does not boot says nothing. */
function outcomeOf({ exitStatus, error, commandMs }: RunRecord): RunOutcome {
  if (error === undefined) {
    return exitStatus === 0 ? 'passed' : exitStatus === UNDECIDED_STATUS ? 'undecided' : 'failed';
  }
  if (error instanceof CommandTimeoutError) return 'failed';
  const isGuests = error instanceof GuestPanicError || error instanceof GuestTimeoutError;
  return isGuests && commandMs !== undefined ? 'failed' : 'undecided';
}

function whyOf({ exitStatus, signal, error, commandMs }: RunRecord): string {
  if (error === undefined) return signal === undefined ? `status ${exitStatus}` : `signal ${signal}`;
  if (error instanceof CommandTimeoutError) return 'longer than --timeout';
  if (error instanceof QemuExitError) return 'QEMU ended';
  if (!(error instanceof GuestError)) return 'ghostbus could not do its part';
  if (error instanceof GuestPanicError) return 'the kernel panicked';
  if (commandMs === undefined) return 'the guest did not boot';
  return error instanceof GuestTimeoutError ? 'the guest hung' : 'the guest failed';
}

/** The next run would end in the same way. */
const isOursToMend = (error: unknown): boolean =>
  error !== undefined && !(error instanceof GuestError) && !(error instanceof CommandTimeoutError);

/** That of the first run that failed, where `git bisect run` takes it for "bad", else 1. */
function statusOfRuns(runs: readonly RepeatedRun[]): number {
  const failed = runs.find(({ outcome }) => outcome === 'failed');
  if (failed !== undefined) {
    const { exitStatus } = failed;
    return exitStatus <= LARGEST_BAD_STATUS && exitStatus !== UNDECIDED_STATUS ? exitStatus : 1;
  }
  return runs.every(({ outcome }) => outcome === 'passed') ? 0 : UNDECIDED_STATUS;
}
