import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { relative } from 'node:path';
import yargs from 'yargs';
import { USAGE_STATUS, UsageError } from '../../session/exit-status.js';
import { writableFile } from '../../session/writable-file.js';
import { Poller } from '../host/index.js';
import { runCli, splitGuestCommand } from './cli.js';
import { controlRequest } from './commands/ctl.js';
import { repetitionOf, timeoutMsOf } from './commands/run.js';
import {
  devicesOfRun,
  type EmulatorArguments,
  emulatorOptions,
  emulatorSettings,
  fileOfRun,
  type GuestArguments,
  guestOptions,
  guestSettings,
  parseGuestMemory,
} from './options.js';

async function parse(...argv: string[]): Promise<EmulatorArguments & GuestArguments> {
  const parser = guestOptions(emulatorOptions(yargs(argv) as never)) as ReturnType<typeof yargs>;
  return (await parser.parserConfiguration({ 'greedy-arrays': false }).parseAsync()) as unknown as EmulatorArguments &
    GuestArguments;
}

/** Names of the chosen devices' plugins, and their parsed options. */
async function chosen(args: EmulatorArguments) {
  const { devices } = await emulatorSettings(args);
  return devices.map(({ plugin, options }) => [plugin.name, options as Record<string, unknown>] as const);
}

describe('options of run, shell and serve', () => {
  it('have defaults that need no thought', async () => {
    const args = await parse();
    assert.deepEqual(await emulatorSettings(args), { devices: [], spinUs: undefined });
    assert.deepEqual([args.logLevel, args.logJson, args.verbose], ['warn', false, false]);
    assert.deepEqual(guestSettings(args), {
      topology: 'root-ports',
      viommu: false,
      memMiB: 2048,
      hugePages: 0,
      kernel: 'latest',
      cold: false,
      cpu: undefined,
      smp: 2,
      accel: 'auto',
      packages: [],
      moduleFolders: [],
      workarounds: true,
      expectBound: true,
      shareDir: undefined,
      consoleLogPath: undefined,
    });
  });

  it('boot instead of restoring when that is asked for', async () => {
    assert.equal(guestSettings(await parse('--cold')).cold, true);
  });

  it('take devices and packages several times, one value each', async () => {
    const args = await parse(
      '-d',
      'example',
      '--device',
      'example,memory=4M',
      '-p',
      'fio',
      '--package=perftest',
      '--',
      'ls',
    );
    assert.deepEqual(await chosen(args), [
      ['example', { memory: 16 * 2 ** 20 }],
      ['example', { memory: 4 * 2 ** 20 }],
    ]);
    assert.deepEqual(guestSettings(args).packages, ['fio', 'perftest']);
  });

  it('record the frames of rdma functions', async () => {
    const devices = ['-d', 'rdma', '-d', 'example', '-d', 'rdma,pcap=own.pcap'];
    const options = (await chosen(await parse(...devices, '--pcap', '/tmp/wire.pcap'))).map(([, given]) => given);
    assert.deepEqual(
      options.map(({ pcap }) => pcap),
      ['/tmp/wire.pcap', undefined, 'own.pcap'],
    );
    await assert.rejects(emulatorSettings(await parse('-d', 'example', '--pcap', 'x')), /--device rdma/);
  });

  it('set huge pages aside', async () => {
    assert.equal(guestSettings(await parse('--hugepages', '64', '--mem', '512M')).hugePages, 64);
  });

  it('turn spinning on, off, or leave it to the machine', async () => {
    assert.equal((await emulatorSettings(await parse('--spin'))).spinUs, 50);
    assert.equal((await emulatorSettings(await parse('--no-spin'))).spinUs, 0);
  });

  it('read memory in units', () => {
    assert.equal(parseGuestMemory('4G'), 4096);
    assert.equal(parseGuestMemory('512MiB'), 512);
    for (const text of ['2048', '4T5', 'much', '383M', '1000000001']) {
      assert.throws(() => parseGuestMemory(text), UsageError, text);
    }
  });

  it('refuse what cannot be before anything starts', async () => {
    const rows: [string[], RegExp][] = [
      [['--smp', '0'], /--smp/],
      [['--smp', '1.5'], /--smp/],
      [['--hugepages', '1.5'], /--hugepages/],
      [['--hugepages', '-1'], /--hugepages/],
      [['--hugepages', '65', '--mem', '512M'], /--hugepages 65: a guest of 512 MiB can spare 64/],
      [['--kernel', '/no/such/kernel'], /neither lts nor latest/],
      [['--share', '/no/such/folder'], /--share \/no\/such\/folder is not a folder/],
      [['--module', '/no/such/folder'], /--module/],
      [['--console-log', '/no/such/folder/log'], /--console-log \/no\/such\/folder\/log cannot be written: ENOENT/],
    ];
    for (const [argv, message] of rows) {
      const args = await parse(...argv);
      assert.throws(
        () => guestSettings(args),
        (error) => error instanceof UsageError && message.test(error.message),
      );
    }
    await assert.rejects(emulatorSettings(await parse('-d', 'toaster')), UsageError);
    await assert.rejects(emulatorSettings(await parse('-d', 'example,color=red')), /color/);
  });

  it('make paths absolute, since QEMU may run elsewhere', async () => {
    const folder = mkdtempSync(`${tmpdir()}/spec-`);
    try {
      const console = `${relative('.', folder)}/console.txt`;
      writeFileSync(console, 'of an earlier guest');
      const args = await parse('--share', `${folder}/../${folder.split('/').pop()}`, '--console-log', console);
      const settings = guestSettings(args);
      assert.equal(settings.shareDir, folder);
      assert.equal(settings.consoleLogPath, `${folder}/console.txt`);
      assert.equal(readFileSync(console, 'utf8'), 'of an earlier guest');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('a file to be written', () => {
  it('may be a FIFO, whose reader sees no end before there is anything', () => {
    const folder = mkdtempSync(`${tmpdir()}/spec-`);
    const path = `${folder}/fifo`;
    execFileSync('mkfifo', [path]);
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const poller = new Poller();
    try {
      poller.add(reader, 0);
      assert.equal(writableFile('--console-log', path), path);
      assert.equal(poller.wait(0), 0);
    } finally {
      poller.close();
      closeSync(reader);
      rmSync(folder, { recursive: true });
    }
  });
});

describe('the command after the dashes', () => {
  it('is taken word by word, numbers and options included', () => {
    const { own, guestCommand } = splitGuestCommand([
      'run',
      '-d',
      'gpu',
      '--',
      'prog',
      '--json',
      '-d',
      '07',
      '0x10',
      '--',
    ]);
    assert.deepEqual(own, ['run', '-d', 'gpu']);
    assert.deepEqual(guestCommand, ['prog', '--json', '-d', '07', '0x10', '--']);
  });

  it('is told from none', () => {
    assert.deepEqual(splitGuestCommand(['run', '-d', 'gpu']), { own: ['run', '-d', 'gpu'] });
    assert.deepEqual(splitGuestCommand(['run', '--']), { own: ['run'], guestCommand: [] });
  });
});

describe('--timeout', () => {
  it('is in seconds, greater than zero', () => {
    assert.equal(timeoutMsOf(undefined), undefined);
    assert.equal(timeoutMsOf(1.5), 1500);
    for (const seconds of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, 1e9]) {
      assert.throws(() => timeoutMsOf(seconds), UsageError, String(seconds));
    }
  });
});

describe('--repeat', () => {
  const given = { repeat: undefined, jobs: undefined, stopOnFailure: false, seed: undefined };

  it('is one run after another, with a seed of its own each time', () => {
    const { seed, ...rest } = repetitionOf({ ...given, repeat: 20 })!;
    assert.deepEqual(rest, { times: 20, jobs: 1, stopOnFailure: false });
    const seeds = Array.from({ length: 8 }, () => repetitionOf({ ...given, repeat: 1 })!.seed);
    assert.ok(new Set([seed, ...seeds]).size > 1);
    assert.ok(seeds.every((number) => Number.isInteger(number) && number >= 0 && number < 2 ** 31));
    assert.equal(repetitionOf(given), undefined);
  });

  it('takes what it is given', () => {
    assert.deepEqual(repetitionOf({ repeat: 3, jobs: 2, stopOnFailure: true, seed: 0 }), {
      times: 3,
      jobs: 2,
      stopOnFailure: true,
      seed: 0,
    });
  });

  it("puts the run's number before the ending of its files", async () => {
    assert.equal(fileOfRun('console.log', 7), 'console-7.log');
    assert.equal(fileOfRun('/tmp/a.b/console', 12), '/tmp/a.b/console-12');
    const { devices } = await emulatorSettings(await parse('-d', 'rdma,pcap=one.pcap', '-d', 'gpu', '--pcap', 'all'));
    const files = devicesOfRun(devices, 3).map(({ options }) => (options as { pcap?: string }).pcap);
    assert.deepEqual(files, ['one-3.pcap', undefined]);
    const [gpu, shared] = [devices[1], devicesOfRun(devices, 3)[1]];
    assert.equal(gpu, shared);
  });
});

describe('ctl', () => {
  it('turns words into a request', () => {
    assert.deepEqual(controlRequest('all', 'state', []), { command: 'state' });
    assert.deepEqual(controlRequest('gpu0', 'state', []), { command: 'state', function: 'gpu0' });
    assert.deepEqual(controlRequest('gpu0', 'inspect', []), { command: 'inspect', function: 'gpu0' });
    assert.deepEqual(controlRequest('gpu0', 'reset-counters', []), { command: 'reset-counters' });
    assert.deepEqual(controlRequest('rdma0', 'link', ['state=down', 'count=3', 'now=true', 'text="3"', 'empty=']), {
      command: 'control',
      function: 'rdma0',
      name: 'link',
      args: { state: 'down', count: 3, now: true, text: '3', empty: '' },
    });
  });

  it('refuses what has no meaning', () => {
    assert.throws(() => controlRequest('all', 'inspect', []), UsageError);
    assert.throws(() => controlRequest('gpu0', 'link', ['down']), UsageError);
  });
});

describe('a wrong command line', () => {
  const rows: string[][] = [
    [],
    ['frobnicate'],
    ['run'],
    ['run', '--'],
    ['devices', '--', 'true'],
    ['run', '--device'],
    ['run', '--frobnicate', '--', 'true'],
    ['run', '--topology', 'ring', '--', 'true'],
    ['run', '--mem', '1G', '--mem', '2G', '--', 'true'],
    ['run', '--timeout', 'soon', '--', 'true'],
    ['run', 'lspci'],
    ...[['0'], ['-1'], ['1.5'], ['many'], ['3', '--jobs', '0'], ['3', '--jobs', '1.5'], ['3', '--seed', '-1']].map(
      (values) => ['run', '--repeat', ...values, '--', 'true'],
    ),
    ['run', '--repeat', '2', '--console-log', '/nowhere/console', '--', 'true'],
    ['run', '--repeat', '2', '--console-log', '/dev/null', '--', 'true'],
    ['run', '--repeat', '2', '-d', 'rdma', '--pcap', '/dev/null', '--', 'true'],
    ['run', '--jobs', '2', '--', 'true'],
    ['run', '--stop-on-failure', '--', 'true'],
    ['run', '--seed', 'lucky', '--', 'true'],
    ['run', '--seed', '2147483648', '--', 'true'],
    ['serve'],
    ['devices', 'toaster'],
    ['ctl', 'gpu0'],
  ];
  for (const argv of rows) {
    it(`ends with status ${USAGE_STATUS} and a message: ghostbus ${argv.join(' ')}`, async () => {
      let message = '';
      const status = await runCli(argv, { write: (text: string) => (message += text) } as never);
      assert.equal(status, USAGE_STATUS);
      assert.match(message, /^ghostbus: \S/);
      assert.doesNotMatch(message, /\n\s+at /);
    });
  }
});
