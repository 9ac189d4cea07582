import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { BUILT_IN_PLUGINS, loadPlugin } from './find-plugin.js';

const API = new URL('./plugin/index.js', import.meta.url).href;

const source = (name: string, more = '') => `
  import { definePlugin } from ${JSON.stringify(API)};
  import { z } from ${JSON.stringify(import.meta.resolve('zod'))};
  export default definePlugin({ name: '${name}', description: '', options: z.object({}), create: () => []${more} });`;

describe('plugin loading', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ghostbus-spec-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  /** A package in node_modules with one module, which has the name of the package. */
  const install = (name: string, manifest: object) => {
    write(`node_modules/${name}/package.json`, JSON.stringify({ name, type: 'module', ...manifest }));
    write(`node_modules/${name}/lib/start.js`, source(name.replace(/^@.*\//, '')));
  };
  const nameOf = async (plugin: string) => (await loadPlugin(plugin, folder)).plugin.name;

  it('finds a plugin by file, by folder with an index, and by folder with a package', async () => {
    write('one.mjs', source('one'));
    write('two/index.mjs', source('two'));
    write('three/package.json', JSON.stringify({ main: 'start.mjs' }));
    write('three/start.mjs', source('three'));
    write('four/package.json', JSON.stringify({ name: 'four', exports: { import: './start.mjs' } }));
    write('four/start.mjs', source('four'));
    assert.equal(await nameOf(join(folder, 'one.mjs')), 'one');
    assert.equal(await nameOf('./one.mjs'), 'one');
    for (const name of ['two', 'three', 'four']) assert.equal(await nameOf(`./${name}`), name);
  });

  it('finds a package of the folder, with and without our prefix, in a scope, and a part of one', async () => {
    for (const name of ['ghostbus-plugin-prefixed', 'plain', '@scope/scoped']) install(name, { main: 'lib/start.js' });
    assert.equal(await nameOf('prefixed'), 'ghostbus-plugin-prefixed');
    assert.equal(await nameOf('plain'), 'plain');
    assert.equal(await nameOf('@scope/scoped'), 'scoped');
    assert.equal(await nameOf('plain/lib/start.js'), 'plain');
  });

  it('finds packages that can only be imported', async () => {
    install('esm-only', { exports: { import: './lib/start.js' } });
    install('conditions', { exports: { '.': { types: './none.d.ts', node: { import: './lib/start.js' } } } });
    install('parts', { exports: { './devices/*': { import: './lib/*.js' } } });
    assert.equal(await nameOf('esm-only'), 'esm-only');
    assert.equal(await nameOf('conditions'), 'conditions');
    assert.equal(await nameOf('parts/devices/start'), 'parts');
  });

  it('says where it looked', async () => {
    await assert.rejects(nameOf('nobody-has-this'), /ours are example, gpu, .*ghostbus-plugin-nobody-has-this.* in \//);
    await assert.rejects(nameOf('./absent.js'), /absent\.js does not exist/);
    for (const name of ['constructor', '__proto__', 'fs']) await assert.rejects(nameOf(name), /no plugin/);
  });

  it('says what is wrong with a package that is installed, and does not call it missing', async () => {
    install('hidden', { exports: { require: './lib/start.js' } });
    install('headless', { main: 'gone.js' });
    write('node_modules/torn/package.json', '{');
    await assert.rejects(nameOf('hidden'), /hidden is installed in .*node_modules\/hidden, but: No "exports" main/);
    await assert.rejects(nameOf('headless'), /headless is installed in .*, but: Cannot find/);
    await assert.rejects(nameOf('torn'), /torn is installed in .*, but: Invalid package config/);
    install('unbuilt', { exports: './dist/index.js' });
    const message =
      /unbuilt is installed in .*, but: its package\.json names dist\/index\.js, which does not exist; build/;
    await assert.rejects(nameOf('unbuilt'), message);
  });

  it('tells who forgot to build a folder which file is missing', async () => {
    write('exporting/package.json', JSON.stringify({ name: 'exporting', exports: './dist/index.js' }));
    write('main/package.json', JSON.stringify({ main: './dist/index.js' }));
    for (const name of ['exporting', 'main']) {
      const problem = 'its package\\.json names (\\./)?dist/index\\.js, which does not exist; build it first';
      await assert.rejects(nameOf(`./${name}`), new RegExp(`^Error: plugin folder /.*/${name}: ${problem}$`));
    }
  });

  it('says what is wrong with what it found', async () => {
    write('empty.mjs', 'export default 1;\n');
    write('broken.mjs', 'throw new Error("its own fault");\n');
    write('needy.mjs', 'import "nobody-has-this";\n');
    write('string.mjs', 'throw "no Error at all";\n');
    write('nothing.mjs', 'throw undefined;\n');
    mkdirSync(join(folder, 'bare'));
    await assert.rejects(nameOf('./empty.mjs'), /has no plugin: .*definePlugin/);
    await assert.rejects(nameOf('./broken.mjs'), /could not be loaded: its own fault/);
    await assert.rejects(nameOf('./string.mjs'), /could not be loaded: no Error at all$/);
    await assert.rejects(nameOf('./nothing.mjs'), /could not be loaded: undefined$/);
    await assert.rejects(
      nameOf('./needy.mjs'),
      /needy\.mjs could not be loaded: Cannot find package 'nobody-has-this'/,
    );
    await assert.rejects(nameOf('./bare'), /neither a package\.json with "exports" or "main" nor an index/);
  });

  it('tells who wants TypeScript loaded, where Node.js cannot, to build it', async function () {
    if ((process.features as { typescript?: unknown }).typescript) this.skip();
    write('raw.ts', source('raw'));
    await assert.rejects(nameOf('./raw.ts'), /Unknown file extension "\.ts".*; build it first, and name the \.js file/);
  });

  it('refuses a plain object, and a plugin of another version of the API with both numbers', async () => {
    write('plain.mjs', "export default { name: 'plain', description: '', options: {}, create: () => [] };\n");
    await assert.rejects(nameOf('./plain.mjs'), /definePlugin of ghostbus did not make/);
    write('odd.mjs', "export default { name: 'x', apiVersion: 'one', [Symbol.for('ghostbus.plugin')]: true };\n");
    await assert.rejects(nameOf('./odd.mjs'), /definePlugin of ghostbus did not make/);
    for (const [version, remedy] of [
      [2, 'update this ghostbus'],
      [0, 'update the plugin'],
    ] as const) {
      write(
        `version${version}.mjs`,
        `export default { name: 'x', apiVersion: ${version}, [Symbol.for('ghostbus.plugin')]: true };\n`,
      );
      const message = new RegExp(`was made for version ${version} of the plugin API, .* has version 1: ${remedy}`);
      await assert.rejects(nameOf(`./version${version}.mjs`), message);
    }
  });

  it('refuses a plugin that lacks a part, and names both', async () => {
    const rows: [string, RegExp][] = [
      [', description: undefined', /\(toy\) has no description: /],
      [', options: undefined', /\(toy\) has no options: give a schema of zod 4/],
      [', options: {}', /\(toy\) has options of the wrong kind \(an object\): give a schema of zod 4/],
      [', create: undefined', /\(toy\) has no create: /],
      [', commands: 1', /\(toy\) has commands that are a number: /],
      [', commands: { foo: 1 }', /\(toy\) has a command foo that is a number: make it by command\(/],
      [", commands: { foo: { description: '' } }", /\(toy\) has a command foo whose arguments are no object schema/],
    ];
    for (const [index, [more, message]] of rows.entries()) {
      write(`toy${index}.mjs`, source('toy', more));
      await assert.rejects(nameOf(`./toy${index}.mjs`), message);
    }
    write('nameless.mjs', `import { definePlugin } from ${JSON.stringify(API)};\nexport default definePlugin({});\n`);
    await assert.rejects(nameOf('./nameless.mjs'), /nameless\.mjs could not be loaded: plugin name undefined must be/);
  });

  it('loads every plugin of ours under its own name', async () => {
    assert.ok(BUILT_IN_PLUGINS.length >= 4);
    for (const name of BUILT_IN_PLUGINS) assert.equal((await loadPlugin(name)).plugin.name, name);
  });
});
