import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseDirective, programPaths } from './build-guest.js';

describe('directives in a guest program', () => {
  const source = '// SPDX-License-Identifier: MIT\n// link: -ldrm  -lm\n// headers: ../x\n\n// link: -lwrong\nint x;\n';

  it('are taken from the leading comment lines', () => {
    assert.deepEqual(parseDirective(source, 'link'), ['-ldrm', '-lm']);
    assert.deepEqual(parseDirective(source, 'headers'), ['../x']);
  });

  it('are looked for nowhere else', () => {
    assert.deepEqual(parseDirective('int x;\n// link: -ldrm\n', 'link'), []);
    assert.deepEqual(parseDirective('', 'link'), []);
  });
});

describe('programs for a guest', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
    for (const [place, ...names] of [
      ['one', 'b.c', 'a.c', 'kit.h'],
      ['two', 'a.c'],
    ] as const) {
      mkdirSync(join(folder, place));
      for (const name of names) writeFileSync(join(folder, place, name), '');
    }
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const paths = (...names: string[]) => programPaths(names.map((name) => join(folder, name)));

  it('are the C files of folders, each once', async () => {
    const found = await paths('one', 'one', 'one/b.c');
    assert.deepEqual(found, [join(folder, 'one/a.c'), join(folder, 'one/b.c')]);
  });

  it('have a name of their own', async () => {
    await assert.rejects(paths('one', 'two'), /two programs for the guest are called a: .*one\/a\.c and .*two\/a\.c/);
  });
});
