import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { packageFile } from './package-file.js';

describe('files of a package', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
    mkdirSync(join(folder, 'dist/deep'), { recursive: true });
    mkdirSync(join(folder, 'guest'));
    writeFileSync(join(folder, 'package.json'), '{}');
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const module = () => pathToFileURL(join(folder, 'dist/deep/index.js')).href;

  it('are found from a module, however deep it lies', () => {
    assert.equal(packageFile(module(), 'guest'), join(folder, 'guest'));
  });

  it('are missed by name, with what may be the reason', () => {
    assert.throws(() => packageFile(module(), 'guest/driver'), /has no guest\/driver; .*"files"/);
  });
});
