/** `ghostbus/session` as others use it: the test that README.md shows, as it stands there. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageFile } from 'ghostbus';

const run = promisify(execFile);

describe('the test that README.md shows', () => {
  let folder = '';
  before(() => {
    // Inside of the package, which then finds itself by its name, as others find it in node_modules.
    folder = mkdtempSync(`${packageFile(import.meta.url, 'dist/test/guest/')}readme-`);
  });
  after(() => rmSync(folder, { recursive: true }));

  it('runs and passes', async () => {
    const readme = readFileSync(packageFile(import.meta.url, 'README.md'), 'utf8');
    const example = /```js\n(import assert.*?from 'ghostbus\/session'.*?)```/s.exec(readme)?.[1];
    assert.ok(example, 'README.md has no such test');
    const path = join(folder, 'example.mjs');
    writeFileSync(path, example);
    const mocha = packageFile(import.meta.url, 'node_modules/mocha/bin/mocha.js');
    const { stdout } = await run(process.execPath, [mocha, '--no-config', '--no-color', path]);
    assert.match(stdout, /1 passing/);
  });
});
