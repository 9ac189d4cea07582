import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { z } from 'zod';
import { FakeBus } from '../../emulator/testing.js';
import { controlCommandNames } from './control.js';
import plugin from './index.js';
import { TestDriver } from './test-driver.js';

// Specs run from dist/; the README stands beside the sources.
const readme = readFileSync(new URL('../../../plugins/rdma/README.md', import.meta.url), 'utf8');

/** Words in code style of one section. */
function codeWords(section: string): string[] {
  const start = readme.indexOf(`### ${section}`);
  assert.ok(start >= 0, `the README has a section ${section}`);
  const end = readme.indexOf('\n##', start + 4);
  return [...readme.slice(start, end < 0 ? undefined : end).matchAll(/`([\w-]+)`/g)].map(([, word]) => word!);
}

describe('README of rdma', () => {
  it('lists the options there are', () => {
    const rows = [...readme.matchAll(/^\| `(\w+)` +\|/gm)].map(([, name]) => name);
    assert.deepEqual(rows.sort(), Object.keys((plugin.options as unknown as z.ZodObject).shape).sort());
  });

  it('lists the commands that are carried out', () => {
    const driver = new TestDriver(new FakeBus(1024 * 1024), 'rdma0', 0, 0x10000);
    assert.deepEqual(codeWords('Commands').sort(), driver.adapter.commandInterface.names.sort());
  });

  it('lists the faults that can be asked for', () => {
    assert.deepEqual(codeWords('Faults on demand').sort(), [...controlCommandNames].sort());
  });
});
