import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UsageError } from '../../../session/exit-status.js';
import { runCli } from '../cli.js';
import { controlRequest, findTheSocket } from './ctl.js';

async function complaint(...argv: string[]): Promise<string> {
  let message = '';
  await runCli(argv, { write: (text: string) => (message += text) } as never);
  return message;
}

describe('ghostbus ctl', () => {
  let root = '';
  const servers: Server[] = [];
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
  });
  afterEach(() => {
    for (const server of servers.splice(0)) server.close();
    rmSync(root, { recursive: true });
  });

  /** A folder as that of an emulator with these functions, whose control socket answers. */
  const serve = async (name: string, ...functions: string[]) => {
    const folder = join(root, name);
    mkdirSync(folder);
    for (const served of functions) writeFileSync(join(folder, `${served}.sock`), '');
    const server = createServer();
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(join(folder, 'control.sock'), resolve));
    return folder;
  };

  it('says which argument is missing', async () => {
    assert.match(
      await complaint('ctl', 'summer0'),
      /^ghostbus: COMMAND is missing; write: ghostbus ctl FUNCTION COMMAND/,
    );
    assert.match(await complaint('ctl'), /^ghostbus: FUNCTION is missing; write: /);
  });

  it('says that nothing serves in a folder, and what to do', async () => {
    await assert.rejects(
      findTheSocket('/nope', root),
      (error) =>
        error instanceof UsageError &&
        /^--socket-dir \/nope: nothing serves there \(.*ENOENT\); start ghostbus serve --socket-dir \/nope first/.test(
          error.message,
        ),
    );
  });

  it('tells several that are running apart by their functions', async () => {
    const one = await serve('ghostbus-one', 'gpu0', 'gpu1');
    assert.equal(await findTheSocket(undefined, root), join(one, 'control.sock'));
    const two = await serve('ghostbus-two', 'rdma0');
    assert.equal(await findTheSocket(two, root), join(two, 'control.sock'));
    await assert.rejects(findTheSocket(undefined, root), {
      message: `several are running; choose one with --socket-dir:\n  ${one} (gpu0, gpu1)\n  ${two} (rdma0)`,
    });
  });

  it('refuses arguments that would be lost', () => {
    const rows: [string, string[], RegExp][] = [
      ['link', ['state=up', 'state=down'], /^link: state is given twice$/],
      ['link', ['__proto__=1'], /^link: __proto__ cannot be the name of an argument$/],
      ['state', ['x=1'], /^state takes no arguments, and was given x=1$/],
      ['inspect', ['x=1'], /^inspect takes no arguments/],
      ['reset-counters', ['x=1'], /^reset-counters takes no arguments/],
    ];
    for (const [command, args, message] of rows) {
      assert.throws(
        () => controlRequest('gpu0', command, args),
        (error) => error instanceof UsageError && message.test(error.message),
        command,
      );
    }
  });
});
