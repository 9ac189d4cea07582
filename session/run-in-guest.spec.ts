import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { resolveDevices } from '../emulator/device-spec.js';
import { GuestPanicError, GuestTimeoutError, HostSetupError, QemuExitError, type RunOptions } from '../qemu/index.js';
import { type RunRequest, runInGuest } from './run-in-guest.js';
import { runReport } from './run-report.js';
import { COUNTER_KHZ, type FakeBehaviour, FakeTools } from './test/fake-guest.js';
import { Text } from './test/text.js';

const silentLog = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

const devices = await resolveDevices(['gpu']);

function requestFor(argv: readonly string[], more: Partial<RunRequest> = {}): RunRequest {
  return {
    emulator: { devices },
    guest: {
      topology: 'switch',
      viommu: false,
      memMiB: 1024,
      kernel: 'lts',
      cpu: undefined,
      smp: 1,
      accel: 'auto',
      packages: [],
      moduleFolders: [],
      workarounds: true,
      shareDir: undefined,
      consoleLogPath: undefined,
    },
    argv,
    timeoutMs: undefined,
    json: false,
    ...more,
  };
}

async function run(behaviour: FakeBehaviour, more: Partial<RunRequest> = {}) {
  const fake = new FakeTools(behaviour);
  const stdout = new Text();
  const stderr = new Text();
  const context = { tools: fake.tools, log: silentLog, progress: () => {} };
  const status = await runInGuest(requestFor(['program', 'argument'], more), context, { stdout, stderr });
  return { status, stdout: stdout.text, stderr: stderr.text, fake };
}

const ended = (exitCode: number | undefined, signal?: number) => async () => ({ exitCode, signal });
const failing = (error: Error) => async () => {
  throw error;
};

describe('exit status of run', () => {
  const rows: { title: string; behaviour: FakeBehaviour; status: number; message?: RegExp }[] = [
    { title: 'success', behaviour: { run: ended(0) }, status: 0 },
    { title: "the command's own failure", behaviour: { run: ended(1) }, status: 1 },
    {
      title: "a status that is also one of ours, when it is the command's",
      behaviour: { run: ended(125) },
      status: 125,
    },
    { title: 'a command that does not exist', behaviour: { run: ended(127) }, status: 127 },
    { title: 'a command that signal 11 ended', behaviour: { run: ended(undefined, 11) }, status: 139 },
    {
      title: 'a guest that panics while the command runs',
      behaviour: { run: failing(new GuestPanicError('The kernel panicked.', 'Kernel panic - not syncing')) },
      status: 125,
      message: /panicked\.\n.*console.*\nKernel panic - not syncing/,
    },
    {
      title: 'QEMU that ends',
      behaviour: { run: failing(new QemuExitError('QEMU ended.', '')) },
      status: 125,
      message: /QEMU ended/,
    },
    {
      title: 'a guest that does not boot',
      behaviour: { boot: failing(new GuestTimeoutError('Waited 120 s for the agent.', 'last line')) },
      status: 125,
      message: /last line/,
    },
    {
      title: 'a guest whose agent is lost, without --timeout',
      behaviour: { run: failing(new GuestTimeoutError('Waited 60 s for the hung guest.', '')) },
      status: 125,
      message: /hung guest/,
    },
    {
      title: 'a driver that has not taken its function',
      behaviour: { unbound: ['gpu0'] },
      status: 125,
      message: /driver did not take gpu0 .*\n.*probe failed\n.*--allow-unbound/,
    },
    {
      title: 'a host that lacks something',
      behaviour: {
        boot: failing(new HostSetupError('mmdebstrap is not installed.', 'Run: apt-get install mmdebstrap')),
      },
      status: 123,
      message: /not installed\.\nRun: apt-get/,
    },
  ];
  for (const { title, behaviour, status, message } of rows) {
    it(`is ${status} for ${title}`, async () => {
      const result = await run(behaviour);
      assert.equal(result.status, status);
      assert.match(result.stderr, message ?? /^$/);
    });
  }

  it('is 124 when the time of the command is over, and says so', async () => {
    const run124 = async (_argv: readonly string[], { timeoutMs }: { timeoutMs?: number }) => {
      await new Promise((resolve) => setTimeout(resolve, timeoutMs! + 1));
      throw new GuestTimeoutError('did not end', '');
    };
    const { status, stderr } = await run({ run: run124 }, { timeoutMs: 20 });
    assert.equal(status, 124);
    assert.match(stderr, /"program argument" was still running after 0\.02 s and was stopped \(--timeout\)/);
  });

  it('is 125 when the guest hangs before the time of the command is over', async () => {
    const hung = failing(new GuestTimeoutError('Waited 60 s for the hung guest.', ''));
    assert.equal((await run({ run: hung }, { timeoutMs: 3_600_000 })).status, 125);
  });

  it('is 123 when the bus thread dies under the guest', async () => {
    const fake = new FakeTools({
      run: () => {
        fake.failEmulator(new Error('bus thread: out of memory'));
        return new Promise(() => undefined);
      },
    });
    const stderr = new Text();
    const context = { tools: fake.tools, log: silentLog, progress: () => {} };
    assert.equal(await runInGuest(requestFor(['x']), context, { stdout: new Text(), stderr }), 123);
    assert.match(stderr.text, /out of memory/);
  });
});

describe('a run', () => {
  it('streams both outputs apart', async () => {
    const result = await run({
      run: async (_argv, { onStdout, onStderr }) => {
        onStdout?.(Buffer.from('out'));
        onStderr?.(Buffer.from('err'));
        return { exitCode: 0, signal: undefined };
      },
    });
    assert.equal(result.stdout, 'out');
    assert.equal(result.stderr, 'err');
  });

  it('tells the command its seed when there is one, and leaves its environment alone otherwise', async () => {
    const seen: RunOptions['env'][] = [];
    const behaviour: FakeBehaviour = {
      run: async (_argv, { env }) => {
        seen.push(env);
        return { exitCode: 0, signal: undefined };
      },
    };
    const { stdout } = await run(behaviour, { turn: { run: 1, seed: 77 }, json: true });
    await run(behaviour);
    assert.deepEqual(seen, [{ GHOSTBUS_RUN: '1', GHOSTBUS_SEED: '77' }, undefined]);
    assert.equal(runReport.parse(JSON.parse(stdout)).seed, 77);
  });

  it('boots with every function, the files of the plugins and the programs', async () => {
    const { fake } = await run({});
    const [boot] = fake.boots;
    assert.deepEqual(
      boot?.functions?.map(({ id }) => id),
      ['gpu0'],
    );
    const paths = boot?.extraFiles?.map(({ path }) => path) ?? [];
    assert.ok(paths.includes('/usr/lib/firmware/amdgpu/aldebaran_rlc.bin'), `${paths}`);
    assert.equal(paths.at(-1), '/usr/local/bin/program');
    assert.equal(boot?.topology, 'switch');
    assert.equal('cpu' in boot!, false);
    assert.equal(boot?.counterKHz, COUNTER_KHZ);
  });

  it('asks the kernel for huge pages before the arguments that were given', async () => {
    const { guest } = requestFor([]);
    const { fake } = await run({}, { guest: { ...guest, hugePages: 8, kernelArgs: ['quiet'] } });
    const { fake: without } = await run({});
    assert.deepEqual(fake.boots[0]!.kernelArgs, ['hugepages=8', 'quiet']);
    assert.deepEqual(without.boots[0]!.kernelArgs, []);
  });

  it('goes on without a driver when it may', async () => {
    const { guest } = requestFor([]);
    const { status } = await run({ unbound: ['gpu0'], run: ended(3) }, { guest: { ...guest, expectBound: false } });
    assert.equal(status, 3);
  });

  for (const [title, behaviour] of Object.entries({
    'a success': {},
    'a driver that has not taken its function': { unbound: ['gpu0'] },
    'a failed boot': { boot: failing(new Error('no')) },
    'a guest that died': { run: failing(new QemuExitError('gone', '')) },
  } satisfies Record<string, FakeBehaviour>)) {
    it(`leaves no folder and no guest behind after ${title}`, async () => {
      const { fake } = await run(behaviour);
      const folder = fake.boots[0]!.functions![0]!.socketPath.replace(/\/[^/]*$/, '');
      assert.equal(existsSync(folder), false);
      assert.deepEqual(fake.events, [...('boot' in behaviour ? [] : ['guest killed']), 'emulator stopped']);
    });
  }

  it('aborts a boot that is under way when a signal comes', async () => {
    const result = await run({
      boot: ({ abort }) =>
        new Promise((_, reject) => {
          abort!.addEventListener('abort', () => reject(new QemuExitError('QEMU ended.', '')));
          process.emit('SIGTERM', 'SIGTERM');
        }),
    });
    assert.equal(result.status, 143);
    assert.deepEqual(result.fake.events, ['emulator stopped']);
  });
});

describe('the report of run --json', () => {
  const speaking: FakeBehaviour['run'] = async (_argv, { onStdout, onStderr }) => {
    onStdout?.(Buffer.from('out\n'));
    onStderr?.(Buffer.from('err\n'));
    return { exitCode: 3, signal: undefined };
  };

  it('holds status, output, guest, functions and timings, and nothing else is on stdout', async () => {
    const { status, stdout } = await run({ run: speaking }, { json: true });
    const report = runReport.parse(JSON.parse(stdout));
    assert.equal(status, 3);
    assert.equal(report.exitStatus, 3);
    assert.equal(report.stdout, 'out\n');
    assert.equal(report.stderr, 'err\n');
    assert.equal(report.truncated, false);
    assert.deepEqual(report.guest, { kernelRelease: '7.0-fake', accel: 'tcg', qemuVersion: '10.1.0' });
    assert.deepEqual(
      report.functions.map(({ name }) => name),
      ['gpu0'],
    );
    assert.deepEqual(Object.keys(report.timings), ['serveMs', 'imageMs', 'bootMs', 'commandMs', 'totalMs']);
  });

  it('keeps 16 MiB of an output without end, and says that there was more', async () => {
    const { stdout } = await run(
      {
        run: async (_argv, { onStdout }) => {
          const chunk = Buffer.alloc(2 ** 20, 'x');
          for (let count = 0; count < 17; count++) onStdout?.(chunk);
          return { exitCode: 0, signal: undefined };
        },
      },
      { json: true },
    );
    const report = runReport.parse(JSON.parse(stdout));
    assert.equal(report.stdout.length, 16 * 2 ** 20);
    assert.equal(report.truncated, true);
  });

  it('is printed for a guest that died, too, with the reason', async () => {
    const { stdout } = await run({ run: failing(new QemuExitError('QEMU ended (signal 9).', '')) }, { json: true });
    const report = runReport.parse(JSON.parse(stdout));
    assert.equal(report.exitStatus, 125);
    assert.match(report.error!, /signal 9/);
    assert.deepEqual(
      report.functions.map(({ name }) => name),
      ['gpu0'],
    );
  });
});
