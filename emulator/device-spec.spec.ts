import assert from 'node:assert/strict';
import { z } from 'zod';
import { parseDeviceSpec, parseOptions, resolveOptions } from './device-spec.js';
import { definePlugin } from './plugin/index.js';
import { byteSize } from './plugin/options.js';

describe('device specs', () => {
  it('read a name and its options', () => {
    const rows: [string, string, Record<string, string>][] = [
      ['gpu', 'gpu', {}],
      ['gpu,vram=16G', 'gpu', { vram: '16G' }],
      ['gpu,vram=16G,serial=a=b', 'gpu', { vram: '16G', serial: 'a=b' }],
      ['./my-plugin,empty=', './my-plugin', { empty: '' }],
      ['gpu,constructor=1', 'gpu', { constructor: '1' }],
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
    assert.throws(() => parseOptions(plugin, { color: 'red' }, './toys/one'), {
      message:
        'device ./toys/one: Unrecognized key: "color" (options: memory, ports; ghostbus devices ./toys/one tells more)',
    });
  });
});

describe('options on their way to the bus thread', () => {
  const resolveWith = (made: unknown) =>
    resolveOptions(
      {
        plugin: definePlugin({
          name: 'toy',
          description: '',
          options: z.object({}).transform(() => made),
          create: () => [],
        }),
        moduleUrl: 'file:///toy.js',
      },
      {},
    );

  it('are copied, lists, maps, dates and bytes too', () => {
    const made = { list: [1, 2n], map: new Map([['a', new Date(0)]]), bytes: new Uint8Array(2) };
    assert.deepEqual(resolveWith(made).options, made);
    assert.notEqual(resolveWith(made).options, made);
  });

  it('are refused when they are no plain data', () => {
    class Colour {}
    const message = /^Error: device toy: its options cannot be passed to the bus thread: .*create\(\)$/;
    for (const made of [{ paint: () => 1 }, { colour: new Colour() }]) assert.throws(() => resolveWith(made), message);
  });
});
