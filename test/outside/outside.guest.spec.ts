/** A device in a package of its own, outside of this repository, with nothing but the packed npm package beside it. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const CHECKOUT = fileURLToPath(new URL('../../../', import.meta.url));
const TSC = join(CHECKOUT, 'node_modules/.bin/tsc');
/** The registry is asked only for what npm's cache does not have. */
const NPM_FLAGS = ['--no-audit', '--no-fund', '--ignore-scripts', '--prefer-offline', '--loglevel=error'];

describe('a device in a package of its own', () => {
  let folder: string;
  let shelf: string;
  let ghostbus: string;
  let sockets: string;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-outside-'));
    shelf = join(folder, 'shelf');
    ghostbus = join(folder, 'node_modules/.bin/ghostbus');
    sockets = join(folder, 'sockets');
    mkdirSync(sockets, { mode: 0o700 });
    const packed = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
      cwd: CHECKOUT,
    });
    const [{ filename }] = JSON.parse(packed.stdout) as [{ filename: string }];
    cpSync(join(CHECKOUT, 'test/outside/shelf'), shelf, { recursive: true });
    writeFileSync(join(folder, 'package.json'), '{ "name": "someone-elses", "version": "1.0.0", "private": true }\n');
    await run('npm', ['install', ...NPM_FLAGS, join(folder, filename), 'zod@4'], { cwd: folder });
  });

  after(() => rmSync(folder, { recursive: true, force: true }));

  const ask = (...args: string[]) => run(ghostbus, args, { cwd: folder, maxBuffer: 2 ** 26 });

  it('is type-checked and compiled against the packed types', async () => {
    await run(TSC, ['-p', shelf], { cwd: folder });
  });

  it('passes its own tests, which use every public face of the package', async () => {
    const { stdout } = await run(process.execPath, ['--test', join(shelf, 'dist/shelf.spec.js')], { cwd: folder });
    assert.match(stdout, /^# pass 2$/m);
  });

  it('is described with its options and commands', async () => {
    const { stdout } = await ask('devices', './shelf');
    assert.match(stdout, /1234:6763/);
    assert.match(stdout, /memory.*16M/);
    assert.match(stdout, /label\b.*writes a label on it/);
  });

  it('comes with its driver and its program, and takes its command while the guest runs', async () => {
    const script =
      'shelf-label /dev/shelf-*; until [ "$(shelf-label /dev/shelf-*)" = 42 ]; do sleep 0.2; done; dmesg | grep shelf';
    const env = { ...process.env, XDG_RUNTIME_DIR: sockets };
    const child = spawn(ghostbus, ['run', '-d', './shelf,memory=32M', '--timeout', '600', '--', 'sh', '-c', script], {
      cwd: folder,
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = once(child, 'exit');
    const lines = createInterface(child.stdout);
    const seen: string[] = [];
    for await (const line of lines) {
      seen.push(line);
      // The guest has its first answer: from now on nothing resets the device.
      if (seen.length > 1) continue;
      assert.equal(line, '0');
      const { stdout } = await run(ghostbus, ['ctl', 'shelf0', 'label', 'value=42'], { cwd: folder, env });
      assert.deepEqual(JSON.parse(stdout), { value: 42 });
    }
    assert.match(seen.join('\n'), /\/dev\/shelf-0000:\S+ has 33554432 bytes/);
    assert.deepEqual(await ended, [0, null]);
  });

  it('is a row of the matrix, with every importer there is', async () => {
    const part = ['--kernel', 'latest', '--topology', 'host-bridge,refused', '--exporter', 'shelf', '--size', '4K,2M'];
    const { stdout } = await ask('matrix', '--device', './shelf', ...part, '--json');
    const { cells } = JSON.parse(stdout) as { cells: { id: string; outcome: string; problems: string[] }[] };
    const outcome = Object.fromEntries(cells.map(({ id, outcome }) => [id, outcome]));
    assert.deepEqual(
      cells.flatMap(({ problems }) => problems),
      [],
    );
    assert.equal(outcome['latest/host-bridge/shelf/amdgpu/2M'], 'P2P');
    assert.equal(outcome['latest/host-bridge/shelf/mlx5/2M'], 'P2P');
    assert.equal(outcome['latest/refused/shelf/amdgpu/2M'], 'EPERM');
    assert.equal(outcome['latest/refused/shelf/mlx5/4K'], 'EPERM');
  });

  it('leaves the devices of the package whole: Gaudi starts, with its workaround', async () => {
    const script = 'until [ -e /dev/accel/accel0 ]; do sleep 0.2; done; hl-test 0 4';
    const { stdout } = await ask('run', '-d', 'habana', '--timeout', '900', '--', 'sh', '-c', script);
    assert.match(stdout, /^ok 1 /m);
    assert.doesNotMatch(stdout, /^not ok/m);
  });
});
