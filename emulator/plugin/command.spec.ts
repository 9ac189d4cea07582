import assert from 'node:assert/strict';
import { z } from 'zod';
import { command, runCommand } from './command.js';

interface Toy {
  readonly name: string;
}

const commands = {
  paint: command({
    description: 'gives it a colour',
    arguments: z.strictObject({
      colour: z.string().describe('of the toy'),
      coats: z.int().min(1).default(1),
      dry: z.boolean().optional(),
    }),
    run: (toy: Toy, { colour, coats, dry }) => ({ toy: toy.name, colour, coats, dry }),
  }),
  name: command({ description: 'its name', run: (toy: Toy) => toy.name }),
};
const toy: Toy = { name: 'car' };
const paint = (args: Record<string, unknown>) => runCommand(commands, toy, 'paint', args);

describe('commands of a device', () => {
  it('get checked arguments with defaults, and the model', () => {
    assert.deepEqual(paint({ colour: 'red' }), { toy: 'car', colour: 'red', coats: 1, dry: undefined });
    assert.equal(runCommand(commands, toy, 'name'), 'car');
  });

  it('take text for what it means, and what looks like a number for text', () => {
    assert.deepEqual(paint({ colour: 7, coats: '0x10', dry: 'true' }), {
      toy: 'car',
      colour: '7',
      coats: 16,
      dry: true,
    });
    assert.deepEqual(paint({ colour: 'true', coats: '2' }), { toy: 'car', colour: 'true', coats: 2, dry: undefined });
  });

  it('refuse wrong arguments by name, and say which there are', () => {
    const rows: [Record<string, unknown>, RegExp][] = [
      [{}, /paint: colour: .*\(arguments of paint: colour, coats, dry\)$/],
      [{ colour: 'red', coats: 'many' }, /coats: /],
      [{ colour: 'red', coats: 0 }, /coats: /],
      [{ colour: 'red', shape: 'round' }, /"shape"/],
    ];
    for (const [args, message] of rows) assert.throws(() => paint(args), message, JSON.stringify(args));
    assert.throws(() => runCommand(commands, toy, 'name', { x: 1 }), /"x".*\(arguments of name: none\)/);
  });

  it('are those that were declared, and no others', () => {
    for (const name of ['explode', 'constructor', 'toString', '__proto__']) {
      assert.throws(() => runCommand(commands, toy, name), {
        message:
          `unknown command "${name}"; there are: paint, name; ` +
          'ghostbus ctl has for every function: state, inspect, reset-counters',
      });
    }
    assert.throws(() => runCommand({}, toy, 'x'), /there are: none/);
  });
});
