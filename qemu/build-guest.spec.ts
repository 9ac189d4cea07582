import assert from 'node:assert/strict';
import { parseDirective } from './build-guest.js';

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
