import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { resolveDevices } from './device-spec.js';
import { type Emulator, type EmulatorLog, startEmulator } from './emulator.js';
import { closeFd, connectUnix } from './host/index.js';

/** A plugin that misbehaves on request, as a user's own would: a file with no build step. */
const PLUGIN = `
import { existsSync } from 'node:fs';
import { z } from ${JSON.stringify(import.meta.resolve('zod'))};
import { command, definePlugin } from ${JSON.stringify(new URL('./plugin/index.js', import.meta.url).href)};
const memory = (context) => context.createMemory('memory', 2 * 1024 * 1024);
export default definePlugin({
  name: 'stub',
  description: 'for a spec',
  options: z.looseObject({}),
  create(options, context) {
    return {
      identity: { vendorId: 0x1234, deviceId: 1, subsystemVendorId: 0, subsystemId: 0, classCode: 0x050000, revisionId: 0 },
      bars: [{ index: 0, kind: 'memory64', prefetchable: true, sizeBytes: 2 * 1024 * 1024 }],
      capabilities: [],
      memory: memory(context),
      powerOn(port) {
        return { port, bars: { 0: [{ offset: 0, sizeBytes: 2 * 1024 * 1024, memory: this.memory }] } };
      },
    };
  },
  commands: {
    echo: command({
      description: 'answers with its argument',
      arguments: z.strictObject({ a: z.number() }),
      run: (_, args) => ({ args, big: 0x1_0000_0000n }),
    }),
    hang: command({
      description: 'holds the bus until there is a file',
      arguments: z.strictObject({ until: z.string() }),
      run: ({ port }, { until }) => port.post(() => { while (!existsSync(until)); }) ?? null,
    }),
    slow: command({
      description: 'holds the bus for longer than it should',
      run: ({ port }) => port.post(() => { const end = performance.now() + 60; while (performance.now() < end); }) ?? null,
    }),
    fail: command({
      description: 'throws in posted work',
      run: ({ port }) => port.post(() => { throw new Error('boom'); }) ?? null,
    }),
  },
});
`;

class Recorder implements EmulatorLog {
  readonly lines: string[] = [];
  readonly #waiting: { pattern: RegExp; resolve: () => void }[] = [];
  #add(message: string): void {
    this.lines.push(message);
    for (const { pattern, resolve } of this.#waiting) if (pattern.test(message)) resolve();
  }
  debug(): void {}
  info(_fields: object, message: string): void {
    this.#add(message);
  }
  warn(_fields: object, message: string): void {
    this.#add(message);
  }
  error(_fields: object, message: string): void {
    this.#add(message);
  }
  until(pattern: RegExp): Promise<void> {
    if (this.lines.some((line) => pattern.test(line))) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ pattern, resolve }));
  }
}

describe('startEmulator', () => {
  let folder: string;
  let plugin: string;
  let log: Recorder;
  let emulator: Emulator | undefined;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
    plugin = join(folder, 'plugin.mjs');
    writeFileSync(plugin, PLUGIN);
    log = new Recorder();
    emulator = undefined;
  });

  afterEach(async () => {
    await emulator?.stop();
    rmSync(folder, { recursive: true });
  });

  const start = async (count = 1): Promise<Emulator> => {
    const devices = await resolveDevices(Array.from({ length: count }, () => plugin));
    emulator = await startEmulator({ devices, log });
    return emulator;
  };

  it('serves every instance on a socket of its own, private to the user, and leaves none behind', async () => {
    const served = await start(2);
    assert.deepEqual(
      served.functions.map(({ name }) => name),
      ['stub0', 'stub1'],
    );
    assert.equal(statSync(served.socketDirectory).mode & 0o777, 0o700);
    for (const { socketPath } of served.functions) {
      assert.equal(statSync(socketPath).mode & 0o777, 0o600);
      closeFd(connectUnix(socketPath));
    }
    await served.stop();
    assert.equal(existsSync(served.socketDirectory), false);
  });

  it('carries commands to a function and its answers back, 64-bit values in hexadecimal', async () => {
    const served = await start();
    assert.deepEqual(await served.control('stub0', 'echo', { a: 1 }), { args: { a: 1 }, big: '0x100000000' });
    await assert.rejects(
      served.control('stub0', 'nonsense'),
      /unknown command "nonsense"; there are: echo, hang, slow, fail/,
    );
    await assert.rejects(served.control('stub9', 'echo'), /no function "stub9"; there are stub0/);
  });

  it('shows the memory behind a BAR', async () => {
    const served = await start();
    assert.deepEqual(await served.readBar('stub0', 0, 4096, 4), Uint8Array.of(0, 0, 0, 0));
    await assert.rejects(served.readBar('stub0', 0, 2 * 1024 * 1024, 4), /has no memory at 0x200000/);
    await assert.rejects(served.readBar('stub0', 3, 0, 4), /BAR3/);
  });

  it('reports a broken function and serves the others', async () => {
    const served = await start(2);
    await served.control('stub0', 'fail');
    await log.until(/stub0 is broken: posted work failed: boom/);
    assert.match((await served.stateOf('stub0')).broken ?? '', /boom/);
    assert.equal((await served.stateOf('stub1')).broken, undefined);
  });

  it('reports a handler that does not return, while it does not return', async function () {
    this.timeout(300_000);
    const served = await start();
    const until = join(folder, 'reported');
    await served.control('stub0', 'hang', { until });
    // However long the host takes to give it a processor for two seconds.
    try {
      await log.until(/one handler has held the bus thread for ([2-9]|\d{2,})/);
    } finally {
      writeFileSync(until, '');
    }
  });

  it('says once, at its end, how many handlers were late, and which was the longest', async () => {
    const served = await start(2);
    for (const name of ['stub0', 'stub1', 'stub1']) await served.control(name, 'slow');
    // Posted work is done when a later command has been answered and its own work has run.
    await served.control('stub0', 'fail');
    await log.until(/stub0 is broken/);
    const late = () => log.lines.filter((line) => /processors may have waited/.test(line));
    assert.deepEqual(late(), []);
    await served.stop();
    assert.equal(late().length, 1);
    assert.match(late()[0]!, /^\d+ handlers were late, the longest took \d+ ms \(.*\); the virtual machine's/);
  });

  // One second, for the bus thread to fall asleep; on a machine where that takes longer, this shows less.
  it('does not keep a process that crashes', async () => {
    const program = `
      import { resolveDevices } from ${JSON.stringify(new URL('./device-spec.js', import.meta.url).href)};
      import { startEmulator } from ${JSON.stringify(new URL('./emulator.js', import.meta.url).href)};
      const nothing = () => undefined;
      const log = { debug: nothing, info: nothing, warn: nothing, error: nothing };
      await startEmulator({ devices: await resolveDevices([${JSON.stringify(plugin)}]), log, socketDirectory: ${JSON.stringify(folder)} });
      setTimeout(() => { throw new Error('crash'); }, 1000);`;
    const path = join(folder, 'crash.mjs');
    writeFileSync(path, program);
    const child = spawn(process.execPath, [path], { stdio: ['ignore', 'ignore', 'pipe'] });
    const limit = setTimeout(() => child.kill('SIGKILL'), 60_000);
    const [words, [status]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    clearTimeout(limit);
    assert.match(words, /Error: crash/);
    assert.equal(status, 1);
  });

  it('refuses a plugin that is none, and an unknown one, with what to do', async () => {
    writeFileSync(plugin, 'export const something = 1;');
    await assert.rejects(start(), /its default export must be what definePlugin/);
    const missing = resolveDevices(['no-such-thing']);
    await assert.rejects(missing, /no plugin "no-such-thing": ours are example, gpu, habana, rdma/);
  });

  it('rejects with what is wrong with a device, and leaves it to the caller to tell', async () => {
    writeFileSync(plugin, PLUGIN.replaceAll('2 * 1024 * 1024', '12288'));
    await assert.rejects(start(), /^Error: stub0 cannot be put on the bus: BAR 0: size 12288 is not a power of two/);
    assert.deepEqual(log.lines, []);
  });

  it('answers commands after its end with a refusal, and can be stopped twice', async () => {
    const served = await start();
    await served.stop();
    await served.stop();
    await assert.rejects(served.state(), /has ended/);
  });
});
