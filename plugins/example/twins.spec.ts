/** The layout is written down three times: for the emulator, for the C driver, and for people. Here they are compared. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { RecordingLog } from '../../emulator/testing.js';
import { flags, status } from './descriptor.js';
import { identity } from './function.js';
import { bar0, cause, control, createRegisters, ID_VALUE, statusBits } from './registers.js';

const sourceFile = (name: string) => readFileSync(new URL(`../../../plugins/example/${name}`, import.meta.url), 'utf8');

const registers = createRegisters(new RecordingLog(), {
  control: (value) => value,
  status: () => 0,
  head: () => 0,
  tail: () => 0,
  doorbell: () => {},
});

describe("the example's C header", () => {
  const header = sourceFile('guest-driver/ghostbus_example.h');
  const defines = new Map(
    [...header.matchAll(/^#define GBX_(\w+) (?:\(1u << (\d+)\)|(0x[0-9a-f]+|\d+))$/gm)].map(
      ([, name = '', shift, value]) => [name, shift === undefined ? Number(value) : 2 ** Number(shift)],
    ),
  );

  it('has the registers where the emulator has them', () => {
    const offsets = [...defines].filter(([name]) => name.startsWith('REG_'));
    assert.ok(offsets.length >= 10, `only ${offsets.length} registers found in the header`);
    for (const [name, offset] of offsets) {
      assert.equal(offset, registers.offsetOf(name.slice('REG_'.length) as never), name);
    }
    assert.equal(defines.get('DOORBELL'), bar0.doorbellOffset);
  });

  for (const [name, value] of [
    ['VENDOR_ID', identity.vendorId],
    ['DEVICE_ID', identity.deviceId],
    ['ID_VALUE', ID_VALUE],
    ['CONTROL_ENABLE', control.enable],
    ['CONTROL_RESET', control.reset],
    ['STATUS_RUNNING', statusBits.running],
    ['CAUSE_COMPLETION', cause.completion],
    ['CAUSE_HALT', cause.halt],
    ['SOURCE_IS_LOCAL', flags.sourceIsLocal],
    ['DESTINATION_IS_LOCAL', flags.destinationIsLocal],
    ['IMMEDIATE', flags.immediate],
    ['INTERRUPT', flags.interrupt],
    ['PENDING', status.pending],
    ['DONE', status.done],
    ['INVALID_DESCRIPTOR', status.invalidDescriptor],
    ['UNSUPPORTED_REQUEST', status.unsupportedRequest],
    ['ACCESS_DENIED', status.accessDenied],
    ['BUS_ERROR', status.busError],
  ] as const) {
    it(`gives GBX_${name} the emulator's value`, () => {
      assert.equal(defines.get(name), value);
    });
  }
});

describe("the example's data book", () => {
  it('has the registers where the emulator has them', () => {
    const rows = [...sourceFile('README.md').matchAll(/^\| 0x0([0-9a-f]{3}) +\| ([A-Z_]+)/gm)];
    assert.ok(rows.length >= 10, `only ${rows.length} registers found in README.md`);
    for (const [, offset = '', name] of rows) {
      assert.equal(Number.parseInt(offset, 16), registers.offsetOf(name as never), name);
    }
  });
});
