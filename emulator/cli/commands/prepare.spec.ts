import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import yargs from 'yargs';
import { type BootOptions, GuestError } from '../../../qemu/index.js';
import { Cleanup } from '../../../session/cleanup.js';
import { InterruptedError, UsageError } from '../../../session/exit-status.js';
import { guestPackages, guestPrograms } from '../../../session/guest-parts.js';
import { startSession } from '../../../session/session.js';
import { FakeTools } from '../../../session/test/fake-guest.js';
import { resolveDevices } from '../../device-spec.js';
import { BUILT_IN_PLUGINS } from '../../find-plugin.js';
import { type GuestArguments, guestOptions, guestSettings } from '../options.js';
import { devicesToPrepare, prepare } from './prepare.js';

/** A device in a file of its own, as somebody else has it. */
const KETTLE = `
import { definePlugin } from '${new URL('../../plugin/index.js', import.meta.url).href}';
import { z } from '${import.meta.resolve('zod')}';

export default definePlugin({
  name: 'kettle',
  description: 'a kettle',
  options: z.strictObject({ litres: z.coerce.number().default(1) }),
  create: () => [],
  guest: { programs: ['/somewhere/kettle/guest'], packages: ['kettle-tools'] },
});
`;

describe('the devices of ghostbus prepare', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ghostbus-kettle-'));
  const path = join(folder, 'index.mjs');
  writeFileSync(path, KETTLE);
  after(() => rmSync(folder, { recursive: true }));

  const namesOf = async (...texts: string[]) => (await devicesToPrepare(texts)).map(({ plugin }) => plugin.name);

  it('are all of ours', async () => {
    assert.deepEqual(await namesOf(), BUILT_IN_PLUGINS);
  });

  it('are those of --device after ours, with what they bring into a guest', async () => {
    assert.deepEqual(await namesOf(path), [...BUILT_IN_PLUGINS, 'kettle']);
    const devices = await devicesToPrepare([`${path},litres=2`]);
    assert.deepEqual(devices.at(-1)?.options, { litres: 2 });
    assert.ok(guestPrograms(devices).includes('/somewhere/kettle/guest'));
    assert.ok((await guestPackages(devices)).packages.includes('kettle-tools'));
  });

  it('have one of ours once, as it was asked for', async () => {
    const others = BUILT_IN_PLUGINS.filter((name) => name !== 'gpu');
    assert.deepEqual(await namesOf('gpu,vram=1G'), [...others, 'gpu']);
  });

  it('are the command line’s fault when they cannot be loaded, or refuse their options', async () => {
    await assert.rejects(devicesToPrepare(['./no/such/device']), UsageError);
    await assert.rejects(devicesToPrepare([`${path},litres=many`]), /litres: /);
  });
});

const ignore = () => undefined;
const NOTHING_MORE = { device: [], package: [] };

/** What `ghostbus run` with these options boots with, or restores. */
async function bootOfRun(devices: readonly string[], ...words: string[]): Promise<BootOptions> {
  const fake = new FakeTools();
  const cleanup = new Cleanup();
  const args = (await guestOptions(yargs(words)).parseAsync()) as GuestArguments;
  const log = { debug: ignore, info: ignore, warn: ignore, error: ignore };
  const context = { tools: fake.tools, log, progress: ignore, cleanup };
  try {
    await startSession({ devices: await resolveDevices(devices) }, guestSettings(args), context);
  } finally {
    await cleanup.end();
  }
  return fake.boots[0]!;
}

/** That part of it which decides from which machine it is restored; topology.spec.ts looks at the functions. */
function machineOf({ functions, extraFiles, onProgress, abort, warm, ...machine }: BootOptions): object {
  return { ...machine, drivers: warm?.drivers };
}

describe('the machines of ghostbus prepare', () => {
  it('are those that ordinary runs are restored from', async () => {
    const fake = new FakeTools();
    await prepare({ ...NOTHING_MORE, kernels: ['latest', 'lts'] }, { tools: fake.tools, progress: ignore });
    const made = fake.kept.map(machineOf);
    assert.ok(fake.kept.every(({ warm }) => warm !== undefined));
    for (const devices of [['gpu'], ['gpu', 'gpu', 'habana', 'rdma'], ['example']]) {
      const runs = [await bootOfRun(devices), await bootOfRun(devices, '--kernel', 'lts')];
      assert.deepEqual(runs.map(machineOf), made, devices.join(', '));
    }
    assert.deepEqual(fake.boots, []);
  });

  it('are told of as they are made, and fail as a run does', async () => {
    const told: string[] = [];
    const failure = new GuestError('It did not boot.', '');
    const fake = new FakeTools({
      boot: async ({ onProgress }) => {
        onProgress?.('Booting');
        throw failure;
      },
    });
    const context = { tools: fake.tools, progress: (text: string) => told.push(text) };
    await assert.rejects(prepare({ ...NOTHING_MORE, kernels: ['latest', 'lts'] }, context), failure);
    assert.equal(told.at(-1), 'Booting');
    assert.equal(fake.kept.length, 1);
  });

  it('are no longer made after a signal', async () => {
    const fake = new FakeTools({
      boot: ({ abort }) =>
        new Promise((_, reject) => {
          abort!.addEventListener('abort', () => {
            fake.events.push('boot ended');
            reject(new GuestError('Gone.', ''));
          });
          process.emit('SIGTERM', 'SIGTERM');
        }),
    });
    const made = prepare({ ...NOTHING_MORE, kernels: ['latest', 'lts'] }, { tools: fake.tools, progress: ignore });
    await assert.rejects(made, InterruptedError);
    assert.deepEqual(fake.events, ['boot ended']);
    assert.equal(fake.kept.length, 1);
  });
});
