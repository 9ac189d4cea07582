/**
 * The command as people start it: `bin/ghostbus`, from anywhere, through links, and in a checkout that is not ready.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageFile } from 'ghostbus';

const COMMAND = packageFile(import.meta.url, 'bin/ghostbus');

describe('bin/ghostbus', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const run = (command: string, ...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, encoding: 'utf8' });
    return { status, stdout, stderr };
  };

  it('starts this checkout, from another folder and through a link', () => {
    const { version } = JSON.parse(readFileSync(packageFile(import.meta.url, 'package.json'), 'utf8'));
    const link = join(folder, 'ghostbus');
    symlinkSync(COMMAND, link);
    for (const command of [COMMAND, link]) {
      assert.deepEqual(run(command, '--version'), { status: 0, stdout: `${version}\n`, stderr: '' });
    }
  });

  it('is what package.json gives to npm', () => {
    const { bin } = JSON.parse(readFileSync(packageFile(import.meta.url, 'package.json'), 'utf8'));
    assert.deepEqual(bin, { ghostbus: 'bin/ghostbus' });
  });

  it('says what to do in a checkout without npm packages, without a build, and in a torn package', () => {
    const copy = join(folder, 'bin/ghostbus');
    cpSync(COMMAND, copy);
    const refusal = (message: RegExp) => {
      const { status, stderr } = run(copy);
      assert.equal(status, 123);
      assert.match(stderr, message);
    };
    refusal(/^ghostbus: .*main\.js is missing; install the package ghostbus again\n$/);
    writeFileSync(join(folder, 'tsconfig.json'), '{}');
    refusal(/has no npm packages yet; run .*\/scripts\/setup once, or npm ci there/);
    mkdirSync(join(folder, 'node_modules'));
    refusal(/is not built; run .*\/scripts\/setup once, or npm run build there/);
  });
});
