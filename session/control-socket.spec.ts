import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  askControl,
  type Controllable,
  type ControlServer,
  findControlSockets,
  serveControl,
} from './control-socket.js';
import { fakeState } from './test/fake-guest.js';

describe('control socket', () => {
  let root = '';
  let server: ControlServer;
  const calls: unknown[][] = [];

  beforeEach(async () => {
    root = mkdtempSync(join(tmpdir(), 'spec-'));
    const folder = join(root, 'ghostbus-a');
    mkdirSync(folder, { mode: 0o700 });
    calls.length = 0;
    const emulator: Controllable = {
      socketDirectory: folder,
      state: async () => [fakeState('gpu0'), fakeState('gpu1')],
      stateOf: async (name) => {
        if (name !== 'gpu0') throw new Error(`no function ${name}; there is gpu0`);
        return fakeState(name);
      },
      resetCounters: async () => void calls.push(['reset-counters']),
      control: async (...args) => {
        calls.push(args);
        return { done: true };
      },
    };
    server = await serveControl(emulator);
  });

  afterEach(async () => {
    await server.close();
    rmSync(root, { recursive: true, force: true });
  });

  it('belongs to this user alone', () => {
    assert.equal(statSync(server.path).mode & 0o777, 0o600);
  });

  it('answers state, inspect, control and reset-counters', async () => {
    const all = (await askControl(server.path, { command: 'state' })) as { name: string }[];
    assert.deepEqual(
      all.map(({ name }) => name),
      ['gpu0', 'gpu1'],
    );
    const one = (await askControl(server.path, { command: 'state', function: 'gpu0' })) as { name: string };
    assert.equal(one.name, 'gpu0');
    assert.deepEqual(await askControl(server.path, { command: 'inspect', function: 'gpu0' }), { of: 'gpu0' });
    assert.equal(await askControl(server.path, { command: 'reset-counters' }), null);
    const asked = { command: 'control', function: 'gpu0', name: 'lose-fence', args: { count: 2 } } as const;
    assert.deepEqual(await askControl(server.path, asked), { done: true });
    assert.deepEqual(calls, [['reset-counters'], ['gpu0', 'lose-fence', { count: 2 }]]);
  });

  it("passes the emulator's refusal on", async () => {
    await assert.rejects(askControl(server.path, { command: 'inspect', function: 'gpu7' }), /no function gpu7/);
  });

  it('answers requests of one connection in order, whatever they are', async () => {
    const socket = connect(server.path);
    socket.setEncoding('utf8');
    socket.write('nonsense\n{"command":"explode"}\n{"command":"reset-counters"}\n');
    let text = '';
    while (text.split('\n').length < 4) text += (await once(socket, 'data'))[0];
    const replies = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { error?: string; result?: unknown });
    socket.destroy();
    assert.match(replies[0]!.error!, /JSON/);
    assert.match(replies[1]!.error!, /not a request/);
    assert.deepEqual(replies[2], { result: null });
  });

  it('drops a client that never ends its line', async () => {
    const socket = connect(server.path);
    socket.on('error', () => undefined);
    // Not by once(): it would take the reset of the connection for a failure.
    const closed = new Promise((resolve) => socket.on('close', resolve));
    const chunk = 'x'.repeat(2 ** 18);
    for (let count = 0; count < 6 && !socket.destroyed; count++) socket.write(chunk);
    await closed;
  });

  it('closes with a client connected, and leaves no socket', async () => {
    const socket = connect(server.path);
    await once(socket, 'connect');
    socket.resume();
    const closed = once(socket, 'close');
    await server.close();
    await closed;
    assert.equal(existsSync(server.path), false);
  });

  it('is found when it answers, and told from the folder of a dead process', async () => {
    const dead = join(root, 'ghostbus-dead');
    mkdirSync(dead);
    // Node removes the socket of a server that it closes; only the descriptor of a killed process leaves one.
    const { spawnSync } = await import('node:child_process');
    const script = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script, join(dead, 'control.sock')]);
    mkdirSync(join(root, 'ghostbus-starting'));
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(join(root, 'other.sock'), resolve));
    const found = await findControlSockets(root);
    other.close();
    assert.deepEqual(found, { live: [server.path], abandonedFolders: [dead] });
  });
});
