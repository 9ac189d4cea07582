import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { BUILT_IN_PLUGINS, loadPlugin, parseDeviceSpec, parseOptions } from './device-spec.js';
import { definePlugin } from './plugin/index.js';
import { byteSize } from './plugin/options.js';

describe('device specs', () => {
  it('read a name and its options', () => {
    const rows: [string, string, Record<string, string>][] = [
      ['gpu', 'gpu', {}],
      ['gpu,vram=16G', 'gpu', { vram: '16G' }],
      ['gpu,vram=16G,serial=a=b', 'gpu', { vram: '16G', serial: 'a=b' }],
      ['./my-plugin,empty=', './my-plugin', { empty: '' }],
    ];
    for (const [text, plugin, options] of rows) assert.deepEqual(parseDeviceSpec(text), { plugin, options }, text);
  });

  it('name the part that cannot be read', () => {
    const rows: [string, RegExp][] = [
      ['', /"" has no plugin name/],
      [',vram=1G', /has no plugin name/],
      ['gpu,vram', /"vram" is not key=value/],
      ['gpu,=1', /"=1" is not key=value/],
      ['gpu,', /"" is not key=value/],
      ['gpu,vram=1G,vram=2G', /gives vram twice/],
    ];
    for (const [text, message] of rows) assert.throws(() => parseDeviceSpec(text), message, text);
  });
});

describe('plugin options', () => {
  const plugin = definePlugin({
    name: 'toy',
    description: 'a toy',
    options: z.object({
      memory: byteSize({ powerOfTwo: true }).prefault('1M'),
      ports: z.coerce.number().int().default(1),
    }),
    create: () => [],
  });

  it('take text and give typed values with defaults', () => {
    assert.deepEqual(parseOptions(plugin, { memory: '16M' }), { memory: 2 ** 24, ports: 1 });
    assert.deepEqual(parseOptions(plugin, { ports: '2' }), { memory: 2 ** 20, ports: 2 });
  });

  it('refuse unknown keys and bad values by name, and say where the list is', () => {
    assert.throws(() => parseOptions(plugin, { color: 'red' }), /toy: .*"color".*ghostbus devices toy/);
    assert.throws(() => parseOptions(plugin, { memory: '3M' }), /memory: 3M is not a power of two/);
    assert.throws(() => parseOptions(plugin, { ports: 'two' }), /ports: /);
  });
});

describe('plugin loading', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const source = (name: string) =>
    `export default { name: '${name}', description: '', options: {}, create: () => [] };\n`;

  it('finds a plugin by file, by folder with an index, and by folder with a package', async () => {
    writeFileSync(join(folder, 'one.mjs'), source('one'));
    mkdirSync(join(folder, 'two'));
    writeFileSync(join(folder, 'two', 'index.mjs'), source('two'));
    mkdirSync(join(folder, 'three'));
    writeFileSync(join(folder, 'three', 'package.json'), JSON.stringify({ main: 'start.mjs' }));
    writeFileSync(join(folder, 'three', 'start.mjs'), source('three'));
    assert.equal((await loadPlugin(join(folder, 'one.mjs'))).name, 'one');
    assert.equal((await loadPlugin(join(folder, 'two'))).name, 'two');
    assert.equal((await loadPlugin(join(folder, 'three'))).name, 'three');
  });

  it('finds a package of the current folder, with and without our prefix', async () => {
    const before = process.cwd();
    for (const name of ['ghostbus-plugin-prefixed', 'plain']) {
      mkdirSync(join(folder, 'node_modules', name), { recursive: true });
      writeFileSync(join(folder, 'node_modules', name, 'package.json'), JSON.stringify({ name, main: 'index.mjs' }));
      writeFileSync(join(folder, 'node_modules', name, 'index.mjs'), source(name));
    }
    process.chdir(folder);
    try {
      assert.equal((await loadPlugin('prefixed')).name, 'ghostbus-plugin-prefixed');
      assert.equal((await loadPlugin('plain')).name, 'plain');
    } finally {
      process.chdir(before);
    }
  });

  it('says where it looked, and what is wrong with what it found', async () => {
    writeFileSync(join(folder, 'empty.mjs'), 'export default {};\n');
    writeFileSync(join(folder, 'broken.mjs'), 'throw new Error("its own fault");\n');
    mkdirSync(join(folder, 'bare'));
    await assert.rejects(loadPlugin('nobody-has-this'), /ours are gpu, .*ghostbus-plugin-nobody-has-this/);
    await assert.rejects(loadPlugin(join(folder, 'absent.js')), /absent\.js does not exist/);
    await assert.rejects(loadPlugin(join(folder, 'empty.mjs')), /has no plugin: .*definePlugin/);
    await assert.rejects(loadPlugin(join(folder, 'broken.mjs')), /could not be loaded: its own fault/);
    await assert.rejects(loadPlugin(join(folder, 'bare')), /neither a package\.json with "main" nor an index/);
  });

  it('loads every plugin of ours under its own name', async () => {
    for (const name of BUILT_IN_PLUGINS) assert.equal((await loadPlugin(name)).name, name);
  });
});
