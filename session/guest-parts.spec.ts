import assert from 'node:assert/strict';
import { z } from 'zod';
import { definePlugin, type Plugin, type PluginGuest } from '../emulator/plugin/index.js';
import { guestDrivers, guestFiles, guestModules, guestPackages, guestPrograms } from './guest-parts.js';

const options = z.object({ debug: z.string().optional() });
type Options = z.output<typeof options>;

function device(name: string, guest: PluginGuest<Options>, given: Options = {}) {
  const plugin: Plugin<Options> = definePlugin({ name, description: '', options, guest, create: () => [] });
  return { plugin: plugin as Plugin, options: given };
}

const stub = (contents: string) => () => [{ path: '/lib/firmware/stub.bin', contents: Buffer.from(contents) }];
const textOf = (files: readonly { path: string; contents: Uint8Array }[], path: string) =>
  Buffer.from(files.find((file) => file.path === path)?.contents ?? []).toString();

describe('what devices bring into a guest', () => {
  it('is each file once, and refuses two versions of one', () => {
    const files = guestFiles([device('one', { files: stub('a') }), device('two', { files: stub('a') })]);
    assert.deepEqual(
      files.map(({ path }) => path),
      ['/lib/firmware/stub.bin'],
    );
    assert.throws(
      () => guestFiles([device('one', { files: stub('a') }), device('two', { files: stub('b') })]),
      /one and two bring different contents of \/lib\/firmware\/stub\.bin/,
    );
  });

  it('is no file without an absolute path, or with text for contents', () => {
    const file = (path: string, contents: unknown) => () => [{ path, contents: contents as Uint8Array }];
    const rows: [ReturnType<typeof file>, RegExp][] = [
      [file('stub.bin', Buffer.of(1)), /^Error: one brings a file "stub\.bin" .*: its path must be absolute$/],
      [file('/stub.bin', 'text'), /^Error: one brings \/stub\.bin .* are a string: give bytes, for text Buffer\.from/],
    ];
    for (const [files, message] of rows) assert.throws(() => guestFiles([device('one', { files })]), message);
  });

  it('is the options of modules, for modprobe', () => {
    const guest: PluginGuest<Options> = {
      moduleOptions: ({ debug }): Record<string, string> => ({
        toy: debug === undefined ? 'mask=0x1f' : `mask=0x1f debug=${debug}`,
      }),
    };
    const files = guestFiles([device('one', guest, { debug: '1' }), device('one', guest)]);
    assert.match(textOf(files, '/etc/modprobe.d/ghostbus-toy.conf'), /^options toy mask=0x1f debug=1$/m);
    assert.throws(
      () => guestFiles([device('one', guest, { debug: '1' }), device('two', guest, { debug: '2' })]),
      /two wants module toy with debug=2, another device with debug=1/,
    );
  });

  it('is programs and modules, each once, by the kernel', () => {
    const module = { folder: '/driver', purpose: 'driver', why: 'there is none' } as const;
    const guest: PluginGuest<Options> = {
      programs: ['/programs'],
      modules: ({ release }) => (release.startsWith('7') ? [module] : []),
    };
    const devices = [device('one', guest), device('one', guest)];
    assert.deepEqual(guestPrograms(devices), ['/programs']);
    assert.deepEqual(guestModules(devices, { release: '7.0' }), [module]);
    assert.deepEqual(guestModules(devices, { release: '6.12' }), []);
  });

  it('is drivers that are loaded before it is there, those of our own plugins always, with the options that it wants', async () => {
    const drivers = new Map((await guestDrivers([])).map(([name, ...words]) => [name, words]));
    assert.deepEqual(drivers.get('amdgpu'), []);
    const fancy = device('one', { drivers: ['fancy', 'amdgpu'], moduleOptions: () => ({ amdgpu: 'debug=1  mode=2' }) });
    const more = await guestDrivers([fancy]);
    assert.deepEqual(more.filter(([name]) => name === 'fancy' || name === 'amdgpu').sort(), [
      ['amdgpu', 'debug=1', 'mode=2'],
      ['fancy'],
    ]);
    assert.equal(more.length, drivers.size + 1);
  });

  it('is its packages beside those of our own plugins, so that ordinary guests share one image', async () => {
    const ordinary = await guestPackages([]);
    for (const name of ['rdma-core', 'libdrm-amdgpu1']) assert.ok(ordinary.packages.includes(name), name);
    const { packages } = await guestPackages([device('one', { packages: ['fio'] })], ['rdma-core/forky']);
    const expected = ordinary.packages.map((name) => (name === 'rdma-core' ? 'rdma-core/forky' : name));
    assert.deepEqual(packages, [...expected, 'fio'].sort());
  });
});
