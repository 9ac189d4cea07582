import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { BUILT_IN_PLUGINS } from '../emulator/find-plugin.js';
import { callersFolder, measuredDevices } from './measured.js';

/** A device in a file of its own, as somebody else has it. */
const KETTLE = `
import { definePlugin } from '${new URL('../emulator/plugin/index.js', import.meta.url).href}';
import { z } from '${import.meta.resolve('zod')}';

export default definePlugin({
  name: 'kettle',
  description: 'a kettle',
  options: z.strictObject({ litres: z.coerce.number().default(1) }),
  create: () => [],
  bench: [{ name: 'boiling', measure: async () => undefined }],
});
`;

describe('the devices of npm run bench', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ghostbus-kettle-'));
  const path = join(folder, 'kettle.mjs');
  writeFileSync(path, KETTLE);
  after(() => rmSync(folder, { recursive: true }));

  it('are looked for where npm was called, not where it went', () => {
    assert.equal(callersFolder({ INIT_CWD: folder }), folder);
    assert.equal(callersFolder({}), process.cwd());
  });

  it('are ours, then those of --device from the caller’s folder', async () => {
    const measured = await measuredDevices(['./kettle.mjs,litres=2'], folder);
    const { loaded, asked, benchmark } = measured.at(-1)!;
    assert.deepEqual(
      [loaded.moduleUrl, asked.options, benchmark.name],
      [pathToFileURL(path).href, { litres: '2' }, 'boiling'],
    );
    const ours = measured.slice(0, -1).map((each) => each.loaded.plugin.name);
    assert.ok(ours.length > 0 && ours.every((name) => BUILT_IN_PLUGINS.includes(name)), ours.join());
  });
});
