import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { resolveDevices } from '../emulator/device-spec.js';
import {
  GuestPanicError,
  GuestTimeoutError,
  HostSetupError,
  QemuExitError,
  type RunOptions,
  type RunResult,
} from '../qemu/index.js';
import { type RepeatRequest, repeatRuns, SEEDS, seedOfRun } from './repeat-runs.js';
import { repeatReport } from './run-report.js';
import type { SessionTools } from './session.js';
import { ORDINARY_GUEST } from './settings.js';
import { type FakeBehaviour, FakeProcess, FakeTools } from './test/fake-guest.js';
import { Text } from './test/text.js';

const devices = await resolveDevices(['gpu']);
const SEED = 1234;

type Ending = number | { readonly signal: number } | Error;

async function repeat(
  behaviour: FakeBehaviour,
  more: Partial<RepeatRequest & { timeoutMs: number }> = {},
  signals = new FakeProcess(),
) {
  const { timeoutMs, ...request } = more;
  const fake = new FakeTools(behaviour);
  const output = new Text();
  const told: string[] = [];
  const logged: object[] = [];
  const keep = (fields: object) => void logged.push(fields);
  const startEmulator: SessionTools['startEmulator'] = (options) => {
    options.log.warn({ of: 'emulator' }, 'started');
    return fake.tools.startEmulator(options);
  };
  const status = await repeatRuns(
    {
      times: 3,
      jobs: 1,
      stopOnFailure: false,
      seed: SEED,
      json: false,
      requestOf: () => ({
        emulator: { devices },
        guest: { ...ORDINARY_GUEST, kernel: 'lts' },
        argv: ['race-test'],
        timeoutMs,
      }),
      ...request,
    },
    {
      tools: { ...fake.tools, startEmulator },
      log: { debug: keep, info: keep, warn: keep, error: keep },
      progress: (text) => told.push(text.replace(/in \d+\.\d s/, 'in TIME')),
    },
    { stdout: output },
    signals,
  );
  const folders = fake.boots.map(({ functions }) => dirname(functions![0]!.socketPath));
  return { status, stdout: output.text, told, fake, folders, logged };
}

const runOf = ({ env }: RunOptions): number => Number(env?.GHOSTBUS_RUN);

/** Each run ends as listed; those that are not there pass. */
function ending(endings: Readonly<Record<number, Ending>>): FakeBehaviour {
  return {
    run: async (_argv, options) => {
      const how = endings[runOf(options)] ?? 0;
      options.onStdout?.(Buffer.from(`out of ${runOf(options)}\n`));
      options.onStderr?.(Buffer.from(`err of ${runOf(options)}\n`));
      if (how instanceof Error) throw how;
      return typeof how === 'number' ? { exitCode: how, signal: undefined } : { exitCode: undefined, ...how };
    },
  };
}

function failingBoots(...errors: (Error | undefined)[]): FakeBehaviour {
  return {
    boot: async () => {
      const error = errors.shift();
      if (error !== undefined) throw error;
    },
  };
}

describe('repeated runs', () => {
  it('have a machine each, one after another, and tell each its number and seed', async () => {
    const seen: (Readonly<Record<string, string>> | undefined)[] = [];
    const { status, folders, fake, stdout, told } = await repeat({
      run: async (argv, { env }) => {
        assert.deepEqual(argv, ['race-test']);
        seen.push(env);
        return { exitCode: 0, signal: undefined };
      },
    });
    assert.equal(status, 0);
    assert.deepEqual(seen, [
      { GHOSTBUS_RUN: '1', GHOSTBUS_SEED: '1234' },
      { GHOSTBUS_RUN: '2', GHOSTBUS_SEED: '1235' },
      { GHOSTBUS_RUN: '3', GHOSTBUS_SEED: '1236' },
    ]);
    assert.equal(new Set(folders).size, 3);
    assert.deepEqual(fake.events, Array(3).fill(['guest killed', 'emulator stopped']).flat());
    assert.equal(stdout, '');
    assert.deepEqual(told, [
      'run 1 of 3: passed in TIME (seed 1234)',
      'run 2 of 3: passed in TIME (seed 1235)',
      'run 3 of 3: passed in TIME (seed 1236)',
      '3 of 3 passed',
    ]);
  });

  it('show those that do not pass, whole, and none that passes', async () => {
    const { status, stdout, told } = await repeat(ending({ 2: 3, 3: new GuestPanicError('Panicked.', 'Oops') }));
    assert.equal(status, 3);
    assert.equal(
      stdout,
      '=== run 2 of 3: failed, status 3 (seed 1235) ===\nout of 2\nerr of 2\n' +
        '=== run 3 of 3: failed, the kernel panicked (seed 1236) ===\nout of 3\nerr of 3\n' +
        "ghostbus: Panicked.\n--- last lines of the guest's console ---\nOops\n",
    );
    assert.deepEqual(told.slice(1), [
      'run 2 of 3: failed, status 3, in TIME (seed 1235)',
      'run 3 of 3: failed, the kernel panicked, in TIME (seed 1236)',
      '1 of 3 passed; failed: 2 (status 3, seed 1235), 3 (the kernel panicked, seed 1236)',
      'run 2 again: --seed 1235 in place of --repeat 3',
    ]);
  });

  it('go on at the same time, as many as asked for and no more', async () => {
    let now = 0;
    let most = 0;
    const waiting: (() => void)[] = [];
    const { status, told } = await repeat(
      {
        run: async () => {
          now++;
          most = Math.max(most, now);
          // Nobody ends before three are there, or they are the last one.
          await new Promise<void>((resolve) => {
            waiting.push(resolve);
            if (waiting.length % 3 === 0) for (const go of waiting) go();
          });
          now--;
          return { exitCode: 0, signal: undefined };
        },
      },
      { times: 6, jobs: 3 },
    );
    assert.equal(status, 0);
    assert.equal(most, 3);
    assert.equal(told.at(-1), '6 of 6 passed');
  });

  it('give the log the number of the run', async () => {
    const { logged } = await repeat({}, { times: 2 });
    assert.deepEqual(logged, [
      { of: 'emulator', run: 1 },
      { of: 'emulator', run: 2 },
    ]);
  });

  it('tell once what is made for all of them', async () => {
    const { told } = await repeat({ boot: async ({ onProgress }) => onProgress?.('Booting') });
    assert.equal(told.filter((text) => text === 'Booting').length, 1);
  });

  it('have the files that they are given', async () => {
    const { fake } = await repeat(
      {},
      {
        times: 2,
        requestOf: (run) => ({
          emulator: { devices },
          guest: { ...ORDINARY_GUEST, kernel: 'lts', consoleLogPath: `/console-${run}.log` },
          argv: ['x'],
          timeoutMs: undefined,
        }),
      },
    );
    assert.deepEqual(
      fake.boots.map(({ consoleLogPath }) => consoleLogPath),
      ['/console-1.log', '/console-2.log'],
    );
  });
});

describe('the seeds of repeated runs', () => {
  it('are consecutive, so that one given as the first makes its run again, and stay an int of C', () => {
    assert.equal(seedOfRun(7, 1), 7);
    assert.equal(seedOfRun(seedOfRun(7, 5), 1), seedOfRun(7, 5));
    assert.equal(seedOfRun(SEEDS - 1, 2), 0);
    assert.equal(SEEDS, 2 ** 31);
  });
});

describe('the exit status of repeated runs', () => {
  const panic = new GuestPanicError('Panicked.', '');
  const rows: { title: string; behaviour: FakeBehaviour; status: number; last: RegExp }[] = [
    {
      title: "the first failing run's, not the first in time",
      behaviour: ending({ 2: 5, 3: 6 }),
      status: 5,
      last: /^1 of 3/,
    },
    { title: '1 for a signal', behaviour: ending({ 2: { signal: 11 } }), status: 1, last: /2 \(signal 11, / },
    { title: '1 for a status of 128 or more', behaviour: ending({ 2: 128 }), status: 1, last: /status 128/ },
    { title: 'that of a missing program', behaviour: ending({ 1: 127 }), status: 127, last: /failed: 1 / },
    {
      title: "125 for a command's own 125",
      behaviour: ending({ 2: 125 }),
      status: 125,
      last: /undecided: 2 \(status 125/,
    },
    { title: '1 for a panic under the command', behaviour: ending({ 2: panic }), status: 1, last: /failed: 2 / },
    {
      title: '1 for a guest that hangs under the command',
      behaviour: ending({ 2: new GuestTimeoutError('Waited.', '') }),
      status: 1,
      last: /failed: 2 \(the guest hung/,
    },
    {
      title: '125 for a panic while it boots',
      behaviour: failingBoots(panic),
      status: 125,
      last: /^2 of 3 passed; undecided: 1 \(the kernel panicked/,
    },
    {
      title: '125 for a guest that does not boot',
      behaviour: failingBoots(undefined, new GuestTimeoutError('Waited 120 s.', '')),
      status: 125,
      last: /undecided: 2 \(the guest did not boot/,
    },
    {
      title: '125 for a QEMU that ends',
      behaviour: ending({ 3: new QemuExitError('Gone.', '') }),
      status: 125,
      last: /undecided: 3 \(QEMU ended/,
    },
    {
      title: "a failure's, whatever could not be tried",
      behaviour: ending({ 1: new QemuExitError('Gone.', ''), 2: 4, 3: 125 }),
      status: 4,
      last: /^0 of 3 passed; failed: 2 .*; undecided: 1 .*, 3 /,
    },
  ];
  for (const { title, behaviour, status, last } of rows) {
    it(`is ${title}`, async () => {
      const result = await repeat(behaviour);
      assert.equal(result.status, status);
      assert.match(result.told.findLast((text) => / of 3 passed/.test(text))!, last);
    });
  }

  it('is 124 when the time of a run is over, which the others have too', async () => {
    const { status, told } = await repeat(
      {
        run: async (_argv, options) => {
          assert.equal(options.timeoutMs, 20);
          if (runOf(options) !== 2) return { exitCode: 0, signal: undefined };
          await new Promise((resolve) => setTimeout(resolve, options.timeoutMs! + 1));
          throw new GuestTimeoutError('did not end', '');
        },
      },
      { timeoutMs: 20 },
    );
    assert.equal(status, 124);
    assert.equal(told.at(-2), '2 of 3 passed; failed: 2 (longer than --timeout, seed 1235)');
  });

  it('is 125 at once when the host lacks something: the next run would, too', async () => {
    const { status, told, stdout } = await repeat(failingBoots(new HostSetupError('No mmdebstrap.', 'Install it.')));
    assert.equal(status, 125);
    assert.equal(
      told.at(-1),
      '0 of 1 passed; undecided: 1 (ghostbus could not do its part, seed 1234); 2 not run to the end',
    );
    assert.match(stdout, /ghostbus: No mmdebstrap\.\nInstall it\.\n/);
  });
});

describe('the end of repeated runs', () => {
  const stopped: { title: string; behaviour: FakeBehaviour; status: number }[] = [
    { title: 'a failure', behaviour: ending({ 2: 7 }), status: 7 },
    {
      title: 'a guest that does not boot',
      behaviour: failingBoots(undefined, new QemuExitError('Gone.', '')),
      status: 125,
    },
  ];
  for (const { title, behaviour, status } of stopped) {
    it(`comes at ${title}, if asked for`, async () => {
      const result = await repeat(behaviour, { times: 20, stopOnFailure: true });
      assert.equal(result.status, status);
      assert.equal(result.fake.boots.length, 2);
      assert.match(
        result.told.find((text) => text.includes('of 2 passed'))!,
        /^1 of 2 passed; .*; 18 not run to the end$/,
      );
    });
  }

  /** All but run 3 go on until their guest is gone. */
  function longRuns(atThird: () => Promise<RunResult>): FakeBehaviour {
    return {
      run: async (_argv, options) => (runOf(options) === 3 ? atThird() : new Promise<RunResult>(() => undefined)),
    };
  }

  it('takes those that are under way with it, and leaves nothing of them', async () => {
    const behaviour = longRuns(async () => ({ exitCode: 9, signal: undefined }));
    const { status, told, stdout, folders, fake } = await repeat(behaviour, {
      times: 20,
      jobs: 3,
      stopOnFailure: true,
    });
    assert.equal(status, 9);
    assert.equal(folders.length, 3);
    assert.deepEqual(folders.filter(existsSync), []);
    assert.equal(fake.events.filter((event) => event === 'guest killed').length, 3);
    assert.equal(fake.events.filter((event) => event === 'emulator stopped').length, 3);
    assert.equal(stdout.match(/^===/gm)?.length, 1);
    assert.equal(told.at(-2), '0 of 1 passed; failed: 3 (status 9, seed 1236); 19 not run to the end');
  });

  for (const [signal, expected] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    it(`comes with ${signal}, and leaves nothing`, async () => {
      const signals = new FakeProcess();
      let begun = 0;
      const behaviour: FakeBehaviour = {
        run: async () => {
          if (++begun === 3) signals.emit(signal, signal);
          return new Promise<RunResult>(() => undefined);
        },
      };
      const { status, told, stdout, fake, folders } = await repeat(behaviour, { times: 20, jobs: 3 }, signals);
      assert.equal(status, expected);
      assert.equal(stdout, '');
      assert.deepEqual(told, ['0 of 0 passed; 20 not run to the end, interrupted']);
      assert.equal(fake.events.filter((event) => event === 'emulator stopped').length, 3);
      assert.equal(folders.length, 3);
      assert.deepEqual(folders.filter(existsSync), []);
      assert.equal(signals.listenerCount(signal), 0);
    });
  }

  it('comes by force with a second signal: no folder stays', async () => {
    const signals = new FakeProcess();
    const exitsAtForce: number[][] = [];
    const foldersAtForce: string[] = [];
    const behaviour: FakeBehaviour = {
      // A boot that does not heed its end at once.
      boot: ({ abort, functions }) =>
        new Promise((_, reject) => {
          abort!.addEventListener('abort', () => {
            signals.emit('SIGINT', 'SIGINT');
            exitsAtForce.push([...signals.exits]);
            foldersAtForce.push(...[dirname(functions![0]!.socketPath)].filter(existsSync));
            reject(new QemuExitError('Gone.', ''));
          });
          signals.emit('SIGINT', 'SIGINT');
        }),
    };
    const { status } = await repeat(behaviour, {}, signals);
    assert.equal(status, 130);
    assert.deepEqual(exitsAtForce, [[130]]);
    assert.deepEqual(foldersAtForce, []);
  });
});

describe('the report of repeated runs', () => {
  it('lists all by their number, with the output of those that did not pass', async () => {
    const { status, stdout, told } = await repeat(ending({ 2: 3 }), { json: true });
    const report = repeatReport.parse(JSON.parse(stdout));
    assert.equal(status, 3);
    const { runs, ...counts } = report;
    assert.deepEqual(counts, { exitStatus: 3, asked: 3, passed: 2, failed: 1, undecided: 0 });
    assert.deepEqual(
      runs.map(({ run, seed, outcome, exitStatus, stdout: out, stderr: err, truncated }) => [
        ...[run, seed, outcome, exitStatus],
        ...[out, err, truncated],
      ]),
      [
        [1, 1234, 'passed', 0, undefined, undefined, undefined],
        [2, 1235, 'failed', 3, 'out of 2\n', 'err of 2\n', false],
        [3, 1236, 'passed', 0, undefined, undefined, undefined],
      ],
    );
    assert.equal(runs[0]!.functions[0]!.name, 'gpu0');
    assert.match(told.at(-2)!, /^2 of 3 passed/);
  });
});
