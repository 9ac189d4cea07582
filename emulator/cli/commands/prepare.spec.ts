import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UsageError } from '../../../session/exit-status.js';
import { guestPackages, guestPrograms } from '../../../session/guest-parts.js';
import { BUILT_IN_PLUGINS } from '../../find-plugin.js';
import { devicesToPrepare } from './prepare.js';

/** A device in a file of its own, as somebody else has it. */
const KETTLE = `
import { definePlugin } from '${new URL('../../plugin/index.js', import.meta.url).href}';
import { z } from '${import.meta.resolve('zod')}';

export default definePlugin({
  name: 'kettle',
  description: 'a kettle',
  options: z.strictObject({ litres: z.coerce.number().default(1) }),
  create: () => [],
  guest: { programs: ['/somewhere/kettle/guest'], packages: ['kettle-tools'] },
});
`;

describe('the devices of ghostbus prepare', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ghostbus-kettle-'));
  const path = join(folder, 'index.mjs');
  writeFileSync(path, KETTLE);
  after(() => rmSync(folder, { recursive: true }));

  const namesOf = async (...texts: string[]) => (await devicesToPrepare(texts)).map(({ plugin }) => plugin.name);

  it('are all of ours', async () => {
    assert.deepEqual(await namesOf(), BUILT_IN_PLUGINS);
  });

  it('are those of --device after ours, with what they bring into a guest', async () => {
    assert.deepEqual(await namesOf(path), [...BUILT_IN_PLUGINS, 'kettle']);
    const devices = await devicesToPrepare([`${path},litres=2`]);
    assert.deepEqual(devices.at(-1)?.options, { litres: 2 });
    assert.ok(guestPrograms(devices).includes('/somewhere/kettle/guest'));
    assert.ok((await guestPackages(devices)).packages.includes('kettle-tools'));
  });

  it('have one of ours once, as it was asked for', async () => {
    const others = BUILT_IN_PLUGINS.filter((name) => name !== 'gpu');
    assert.deepEqual(await namesOf('gpu,vram=1G'), [...others, 'gpu']);
  });

  it('are the command line’s fault when they cannot be loaded, or refuse their options', async () => {
    await assert.rejects(devicesToPrepare(['./no/such/device']), UsageError);
    await assert.rejects(devicesToPrepare([`${path},litres=many`]), /litres: /);
  });
});
