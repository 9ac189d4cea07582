import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageFile } from 'ghostbus';
import { repeatReport, runReport } from '../../session/run-report.js';

const PROGRAM = packageFile(import.meta.url, 'bin/ghostbus');

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** One run of the program, with a runtime folder of its own, so that what it leaves behind can be seen. */
class Run {
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  #stdout = '';
  #stderr = '';
  #onOutput: () => void = () => undefined;

  constructor(runtimeFolder: string, args: readonly string[]) {
    this.#child = spawn(PROGRAM, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, XDG_RUNTIME_DIR: runtimeFolder },
    });
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
      this.#onOutput();
    });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      this.#onOutput();
    });
    this.ended = new Promise((resolve) => {
      this.#child.on('close', (status) => {
        this.#onOutput();
        resolve({ status, stdout: this.#stdout, stderr: this.#stderr });
      });
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Resolves once the program has printed it; rejects when the program ends without. */
  async printed(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.#stdout + this.#stderr)) {
      assert.equal(this.#child.exitCode, null, `ended before it printed ${pattern}:\n${this.#stdout}${this.#stderr}`);
      await new Promise<void>((resolve) => {
        this.#onOutput = resolve;
      });
    }
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }
}

/** Ids and command lines of processes that were started with this folder in their environment. */
function processesOf(runtimeFolder: string): { pid: number; command: string }[] {
  const variable = `XDG_RUNTIME_DIR=${runtimeFolder}`;
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        if (
          !readFileSync(join('/proc', name, 'environ'), 'utf8')
            .split('\0')
            .includes(variable)
        )
          return [];
        return [{ pid: Number(name), command: readFileSync(join('/proc', name, 'cmdline'), 'utf8') }];
      } catch {
        // It ended while we were looking.
        return [];
      }
    });
}

describe('ghostbus on the command line', () => {
  let runtimeFolder = '';
  beforeEach(() => {
    runtimeFolder = mkdtempSync(join(tmpdir(), 'cli-spec-'));
  });
  afterEach(() => {
    const left = { processes: processesOf(runtimeFolder), files: readdirSync(runtimeFolder) };
    rmSync(runtimeFolder, { recursive: true });
    assert.deepEqual(left, { processes: [], files: [] }, 'nothing is left behind');
  });

  const ghostbus = (...args: string[]) => new Run(runtimeFolder, args);
  const run = (...args: string[]) => ghostbus(...args).ended;

  it('shows three functions to lspci and exits with its status', async () => {
    const ended = await run('run', '--device', 'gpu', '--device', 'habana', '--device', 'rdma', '--', 'lspci', '-nn');
    assert.equal(ended.status, 0, ended.stderr);
    for (const id of ['1002:', '1da3:1000', '15b3:1021']) assert.ok(ended.stdout.includes(`[${id}`), ended.stdout);
  });

  it("exits with the command's own status, also on the LTS kernel", async () => {
    const ended = await run('run', '--kernel', 'lts', '--', 'false');
    assert.deepEqual([ended.status, ended.stdout], [1, '']);
  });

  it('restores what prepare made', async () => {
    const made = await run('prepare', 'latest');
    assert.equal(made.status, 0, made.stderr);
    const { status, stderr } = await run('run', '--device', 'gpu', '--', 'true');
    assert.equal(status, 0, stderr);
    assert.match(stderr, /Restoring a machine/);
    assert.doesNotMatch(stderr, /Booting/);
  });

  it('prints one JSON object with --json', async () => {
    const { status, stdout } = await run('run', '-d', 'example', '--json', '--', 'sh', '-c', 'echo out; kill -9 $$');
    const report = runReport.parse(JSON.parse(stdout));
    assert.equal(status, 128 + 9);
    assert.deepEqual([report.exitStatus, report.signal, report.stdout], [137, 9, 'out\n']);
    assert.equal(report.functions[0]?.connected, true);
    assert.match(report.guest?.kernelRelease ?? '', /^\d+\.\d+/);
  });

  it('ends a command whose time is over with status 124 and a clear message', async () => {
    const { status, stderr } = await run('run', '-d', 'example', '--timeout', '3', '--', 'sleep', '1000');
    assert.equal(status, 124);
    assert.match(stderr, /"sleep 1000" was still running after 3 s and was stopped \(--timeout\)/);
  });

  it('ends with status 125 and the end of the console when the guest panics', async () => {
    const { status, stderr } = await run('run', '-d', 'example', '--', 'sh', '-c', 'echo c > /proc/sysrq-trigger');
    assert.equal(status, 125);
    assert.match(stderr, /panicked/);
    assert.match(stderr, /sysrq triggered crash/i);
  });

  it('ends with status 125 when somebody kills QEMU', async () => {
    const running = ghostbus('run', '-d', 'example', '--', 'sh', '-c', 'echo started; sleep 1000');
    await running.printed(/started/);
    const qemus = processesOf(runtimeFolder).filter(({ command }) => command.includes('memory-backend-memfd'));
    assert.equal(qemus.length, 1);
    process.kill(qemus[0]!.pid, 'SIGKILL');
    const { status, stderr } = await running.ended;
    assert.equal(status, 125);
    assert.match(stderr, /QEMU ended/);
  });

  it('tells each of several runs its number and its seed, and goes on after one that fails', async () => {
    const command = 'cat /proc/sys/kernel/random/boot_id; echo "$GHOSTBUS_RUN $GHOSTBUS_SEED"; exit 3';
    const several = ['--repeat', '2', '--jobs', '2', '--seed', '41', '--json'];
    const { status, stdout, stderr } = await run('run', '-d', 'example', ...several, '--', 'sh', '-c', command);
    const { runs } = repeatReport.parse(JSON.parse(stdout));
    const lines = runs.map((one) => one.stdout!.split('\n'));
    assert.equal(status, 3, stderr);
    assert.deepEqual(
      lines.map(([, words]) => words),
      ['1 41', '2 42'],
    );
    assert.notEqual(lines[0]![0], lines[1]![0], 'a machine of its own');
    assert.match(stderr, /0 of 2 passed; failed: 1 \(status 3, seed 41\), 2 \(status 3, seed 42\)/);
  });

  it('takes all runs with it on a signal', async () => {
    const several = ['--repeat', '9', '--jobs', '2'];
    const running = ghostbus('run', '-d', 'example', ...several, '--', 'sleep', '1000');
    await running.printed(/Booting|Restoring/);
    running.kill('SIGINT');
    const { status, stderr } = await running.ended;
    assert.equal(status, 130);
    assert.match(stderr, /0 of 0 passed; 9 not run to the end, interrupted/);
  });

  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    it(`ends everything on ${signal} while the command runs`, async () => {
      const running = ghostbus('run', '-d', 'example', '--', 'sh', '-c', 'echo started; sleep 1000');
      await running.printed(/started/);
      running.kill(signal);
      assert.equal((await running.ended).status, status);
    });
  }

  for (const [what, options, printed] of [
    ['boots', ['--cold'], /Booting/],
    ['is restored', [], /Restoring/],
  ] as const) {
    it(`ends everything on a signal while the guest ${what}`, async () => {
      const running = ghostbus('run', '-d', 'example', ...options, '--', 'true');
      await running.printed(printed);
      running.kill('SIGTERM');
      assert.equal((await running.ended).status, 143);
    });
  }

  it('serves a function to ctl until a signal comes', async () => {
    const serving = ghostbus('serve', '-d', 'example', '--format', 'json');
    await serving.printed(/serving example0/);
    const state = await run('ctl', 'example0', 'state');
    assert.equal(state.status, 0, state.stderr);
    assert.equal(JSON.parse(state.stdout).name, 'example0');
    assert.deepEqual(JSON.parse((await run('ctl', 'example0', 'fail-next', 'status=3')).stdout), { status: 3 });
    const refused = await run('ctl', 'example0', 'explode');
    assert.notEqual(refused.status, 0);
    assert.match(refused.stderr, /unknown command "explode"/);
    serving.kill('SIGINT');
    const { status, stdout } = await serving.ended;
    assert.equal(status, 130);
    assert.equal(JSON.parse(stdout).functions.length, 1);
  });
});
