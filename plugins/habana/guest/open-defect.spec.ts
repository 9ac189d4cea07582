import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { workaroundModules } from './open-defect.js';

describe('workaround for the open() defect of habanalabs', () => {
  it('is for kernels from 6.12 on, and can be built', () => {
    const rows: [string, number][] = [
      ['5.10.0-30-amd64', 0],
      ['6.11.10+bpo-amd64', 0],
      ['6.12.95+deb13-amd64', 1],
      ['7.3.4+deb13-amd64', 1],
    ];
    for (const [release, count] of rows) assert.equal(workaroundModules({ release }).length, count, release);
    const [module] = workaroundModules({ release: '6.12.0' });
    assert.equal(module!.purpose, 'workaround');
    assert.ok(existsSync(join(module!.folder, 'Kbuild')));
  });
});
