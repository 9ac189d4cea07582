import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import type { MatrixDriver } from '../emulator/plugin/index.js';
import { setUp, setUpScript } from './set-up.js';

/** A guest whose shell is the host's, without the guest's commands. */
const shell = {
  capture: async ([program, ...args]: readonly string[]) => {
    const stubs = 'udevadm() { :; }\n';
    try {
      const script = stubs + args[1]!;
      const stdout = execFileSync(program!, [args[0]!, script], { stdio: ['ignore', 'pipe', 'pipe'] });
      return { exitCode: 0, signal: undefined, stdout, stderr: Buffer.of() };
    } catch (error) {
      const { status, stdout, stderr } = error as { status: number; stdout: Buffer; stderr: Buffer };
      return { exitCode: status, signal: undefined, stdout, stderr };
    }
  },
};
const addresses = new Map([['foo0', '0000:01:00.0']]);

function driver(more: Partial<MatrixDriver>): MatrixDriver {
  return { name: 'foo', needs: [], ...more };
}

describe('setting up the matrix’s guest', () => {
  it('loads all drivers before it waits for one', () => {
    const places = { address: () => 'here', noted: () => '' };
    const script = setUpScript(
      [
        driver({ load: 'load-foo', prepare: () => 'wait-foo' }),
        driver({ load: 'load-bar', prepare: () => 'wait-bar' }),
      ],
      places,
    );
    const order = ['load-foo', 'load-bar', 'wait-foo', 'wait-bar', 'udevadm settle'].map((line) =>
      script.indexOf(line),
    );
    assert.deepEqual(
      order,
      order.toSorted((one, other) => one - other),
    );
    assert.ok(order[0]! >= 0);
  });

  it('tells a driver where its functions are, and commands what the driver noted', async () => {
    const places = await setUp(
      shell,
      [driver({ prepare: ({ address }) => `note ${address('foo0')} foodev_3; note other 'two words'` })],
      addresses,
    );
    assert.equal(places.noted('0000:01:00.0'), 'foodev_3');
    assert.equal(places.noted('other'), 'two words');
    assert.throws(() => places.noted('nothing'), /noted nothing about nothing/);
    assert.throws(() => places.address('foo1'), /no function foo1/);
  });

  it('goes on as soon as what is waited for is true, and fails as a command does', async () => {
    await setUp(shell, [driver({ prepare: () => `until_true '[ -e / ]'` })], addresses);
    await assert.rejects(
      setUp(shell, [driver({ load: 'echo it broke >&2; false' })], addresses),
      /could not be set up: it broke/,
    );
  });
});
