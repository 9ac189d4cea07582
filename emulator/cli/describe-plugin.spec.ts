import assert from 'node:assert/strict';
import { z } from 'zod';
import { loadPlugin } from '../find-plugin.js';
import { byteSize } from '../plugin/options.js';
import { formatPlugin, formatSummary } from './commands/devices.js';
import { describeOptions, describePlugin } from './describe-plugin.js';

describe('description of a plugin', () => {
  it('tells type, default and meaning of each option from the schema', () => {
    const options = z.object({
      vram: byteSize().prefault('16G').describe('memory of the card'),
      link: z.enum(['roce', 'infiniband']).default('roce').describe('link layer'),
      ports: z.coerce.number().int().default(1).describe('number of ports'),
      quiet: z.boolean().optional().describe('say less'),
      serial: z.string().optional(),
    });
    assert.deepEqual(describeOptions(options), [
      { key: 'vram', type: 'size', default: '16G', description: 'memory of the card' },
      { key: 'link', type: 'roce|infiniband', default: 'roce', description: 'link layer' },
      { key: 'ports', type: 'integer', default: '1', description: 'number of ports' },
      { key: 'quiet', type: 'true|false', description: 'say less' },
      { key: 'serial', type: 'string', description: '' },
    ]);
    assert.deepEqual(describeOptions(z.object({ status: z.int().min(2) })), [
      { key: 'status', type: 'integer', required: true, description: '' },
    ]);
  });

  it('creates the functions to look at their ids and BARs', async () => {
    const plugin = describePlugin((await loadPlugin('example')).plugin);
    assert.deepEqual(
      plugin.functions.map(({ id, bars }) => [id, bars]),
      [['1234:6762', ['BAR0 16K 32-bit', 'BAR2 16M 64-bit prefetchable']]],
    );
    assert.deepEqual(plugin.drivers, ['ghostbus_example']);
    assert.deepEqual(
      plugin.commands.map(({ name, arguments: args }) => [name, args.map(({ key }) => key)]),
      [['fail-next', ['status']]],
    );
  });

  it('is printed with all of that', async () => {
    const plugin = describePlugin((await loadPlugin('example')).plugin);
    assert.match(formatSummary(plugin), /^example +1234:6762 {2}\S/);
    const text = formatPlugin(plugin);
    for (const part of [
      ...['drivers: ghostbus_example', 'class 088000', 'BAR2 16M', 'memory=size', '[default: 16M]'],
      ...['ghostbus ctl example0 COMMAND', '  fail-next: makes', '    status=integer  ', '[required]'],
    ]) {
      assert.ok(text.includes(part), part);
    }
  });

  it('is printed with the plugin as it was asked for', async () => {
    const plugin = describePlugin((await loadPlugin('example')).plugin);
    assert.match(formatPlugin(plugin, './mine'), /^options, for --device \.\/mine,key=value…:$/m);
  });

  it('names the module parameters that an id needs', async () => {
    const text = formatPlugin(describePlugin((await loadPlugin('gpu')).plugin));
    assert.match(text, /id=7af0\|740f .*fw_load_type=0 ip_block_mask=0x1f/);
  });
});
