import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import * as accessRegisters from './access-registers.js';
import * as capabilities from './capabilities.js';
import * as commands from './commands.js';
import * as contexts from './contexts.js';
import { type Layout, layout } from './layout.js';

const all = [
  ...new Set(Object.values({ ...accessRegisters, ...capabilities, ...commands, ...contexts })),
] as Layout<string>[];

describe('layouts', () => {
  const sample = layout('sample', 16, {
    flag: [0, 1],
    nibble: [0x1c, 4],
    word: [0x30, 16],
    all: [0x20, 32],
    wide: [0x40, 64],
  });

  it('numbers bits from the most significant one', () => {
    const view = sample.create();
    sample.fill(view, { flag: 1, nibble: 0xa });
    assert.equal(view.getUint32(0), 0x8000000a);
    sample.set(view, 'word', 0x1234);
    assert.equal(view.getUint32(4), 0x1234);
    sample.set(view, 'all', 0xffffffff);
    assert.equal(sample.get(view, 'all'), 0xffffffff);
    sample.set64(view, 'wide', 0x0102030405060708n);
    assert.equal(view.getUint8(8), 1);
    assert.equal(sample.get64(view, 'wide'), 0x0102030405060708n);
  });

  it('drops bits beyond the field and keeps its neighbours', () => {
    const view = sample.create();
    view.setUint32(0, 0xffffffff);
    sample.set(view, 'nibble', 0x100);
    assert.equal(view.getUint32(0), 0xfffffff0);
  });

  it('refuses to read a wide field as a number, and a view that is too short', () => {
    assert.throws(() => sample.get(sample.create(), 'wide'), RangeError);
    assert.throws(() => sample.get(new DataView(new ArrayBuffer(4)), 'all'), RangeError);
  });

  it('keeps every narrow field inside one dword, and inside its structure', () => {
    for (const { name, fields, sizeBytes } of all) {
      for (const [field, [bit, width]] of Object.entries(fields)) {
        assert.ok(width > 32 || (bit & 31) + width <= 32, `${name}.${field} straddles a dword`);
        assert.ok(bit + width <= sizeBytes * 8, `${name}.${field} leaves its structure`);
      }
    }
  });

  const header = kernelHeader();
  (header === undefined ? it.skip : it)('agrees with mlx5_ifc.h (set GHOSTBUS_LINUX_SOURCE to a kernel tree)', () => {
    const structures = parseHeader(readFileSync(header!, 'utf8'));
    let compared = 0;
    for (const { name, fields } of all) {
      for (const [field, place] of Object.entries(fields)) {
        const known = structures.get(name)?.get(field);
        if (known === undefined) continue;
        // A kernel that knows fewer bits of a number has its lower ones.
        assert.equal(place[0] + place[1], known[0]! + known[1]!, `end of ${name}.${field}`);
        assert.ok(place[0] <= known[0]!, `start of ${name}.${field}`);
        compared++;
      }
    }
    assert.ok(compared > 700, `only ${compared} fields were found in ${header}`);
  });
});

function kernelHeader(): string | undefined {
  const tree = process.env.GHOSTBUS_LINUX_SOURCE;
  if (tree === undefined) return undefined;
  const path = `${tree}/include/linux/mlx5/mlx5_ifc.h`;
  return existsSync(path) ? path : undefined;
}

type Places = Map<string, number[]>;

/** Bit offsets of every structure whose members are arrays of u8 and structures that came before it. */
function parseHeader(text: string): Map<string, Places> {
  const structures = new Map<string, Places>();
  const sizes = new Map<string, number>();
  const bodies = new Map<string, { isUnion: boolean; body: string }>();
  const pattern = /(struct|union) mlx5_ifc_(\w+?)_bits \{([^{}]*)\};/g;
  for (const [, kind, name, body] of text.matchAll(pattern))
    bodies.set(name!, { isUnion: kind === 'union', body: body! });

  function place(name: string): number | undefined {
    if (sizes.has(name)) return sizes.get(name);
    const definition = bodies.get(name);
    if (definition === undefined) return undefined;
    const places: Places = new Map();
    let offset = 0;
    let largest = 0;
    const members = [
      ...definition.body.matchAll(/(?:u8|(?:struct|union) mlx5_ifc_(\w+?)_bits)\s+(\w+)((?:\[\w*\])*);/g),
    ];
    // A member that the pattern does not know would shift all that follow.
    if (members.length !== definition.body.split(';').length - 1) return undefined;
    for (const [, nested, member, dimensions] of members) {
      const factor = [...dimensions!.matchAll(/\[(\w*)\]/g)].reduce(
        (product, [, size]) => product * Number(size || 0),
        1,
      );
      const unit = nested === undefined ? 1 : place(nested);
      if (unit === undefined || Number.isNaN(factor)) return undefined;
      places.set(member!, [definition.isUnion ? 0 : offset, unit * factor]);
      if (!definition.isUnion) offset += unit * factor;
      largest = Math.max(largest, unit * factor);
    }
    structures.set(name, places);
    sizes.set(name, definition.isUnion ? largest : offset);
    return sizes.get(name);
  }

  for (const name of bodies.keys()) place(name);
  return structures;
}
