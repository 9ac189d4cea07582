import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeTools } from '../session/test/fake-guest.js';
import { GPUS, withDemoMachine } from './machine.js';
import { Report } from './report.js';
import { HELP, readWishes } from './wishes.js';

describe('what is asked of the demo', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ghostbus-demo-'));
  const html = ['--html', join(folder, 'matrix.html')];
  after(() => rmSync(folder, { recursive: true }));

  it('is a short show of restored machines unless more is wanted', () => {
    const { bytes, matrix, cold, verbose } = readWishes(html)!;
    assert.deepEqual([bytes, matrix, cold, verbose], [16 * 2 ** 20, false, false, false]);
  });

  it('has an option for each wish, and the help names them', () => {
    const all = ['--bytes', '8M', '--matrix', '--cold', '--verbose'];
    const { bytes, matrix, cold, verbose } = readWishes([...html, ...all])!;
    assert.deepEqual([bytes, matrix, cold, verbose], [8 * 2 ** 20, true, true, true]);
    for (const option of [...all, ...html].filter((word) => word.startsWith('--'))) {
      assert.ok(HELP.includes(`\n  ${option} `), option);
    }
    assert.equal(readWishes(['--help']), undefined);
  });

  it('is refused where it makes no sense', () => {
    assert.throws(() => readWishes([...html, '--bytes', '65M']), /at most 64 MiB/);
    assert.throws(() => readWishes([...html, '--warm']), /--warm/);
  });

  for (const cold of [false, true]) {
    it(`${cold ? 'boots' : 'restores'} its guests ${cold ? 'with' : 'without'} --cold`, async () => {
      const fake = new FakeTools();
      const wishes = { kernel: 'lts', devices: GPUS, verbose: false, cold };
      await withDemoMachine(wishes, new Report(process.stdout, false), async () => undefined, fake.tools);
      assert.deepEqual(
        fake.boots.map(({ warm }) => warm === undefined),
        [cold],
      );
    });
  }
});
