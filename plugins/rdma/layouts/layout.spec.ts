import assert from 'node:assert/strict';
import * as accessRegisters from './access-registers.js';
import * as capabilities from './capabilities.js';
import * as commands from './commands.js';
import * as contexts from './contexts.js';
import * as entries from './entries.js';
import { type Layout, layout } from './layout.js';

const all = [
  ...new Set(Object.values({ ...accessRegisters, ...capabilities, ...commands, ...contexts, ...entries })),
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
});
