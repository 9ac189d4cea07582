import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { TestBus } from 'ghostbus/testing';
import type { z } from 'zod';
import { commands } from './commands.js';
import plugin from './index.js';
import {
  atomicCaps,
  cmdHcaCap,
  deviceMemCap,
  odpCap,
  odpSchemeCap,
  perProtocolNetworkingOffloadCaps,
  roceCap,
} from './layouts/capabilities.js';
import { type Layout, subview } from './layouts/layout.js';
import { TestDriver } from './test/driver.js';

// Specs run from dist/; the README stands beside the sources.
const readme = readFileSync(new URL('../../../plugins/rdma/README.md', import.meta.url), 'utf8');

/** Words in code style of one section. */
function codeWords(section: string): string[] {
  const start = readme.indexOf(`### ${section}`);
  assert.ok(start >= 0, `the README has a section ${section}`);
  const end = readme.indexOf('\n##', start + 4);
  return [...readme.slice(start, end < 0 ? undefined : end).matchAll(/`([\w-]+)`/g)].map(([, word]) => word!);
}

/**
 * Capability pages by type (include/linux/mlx5/device.h `enum mlx5_cap_type`), and the structures that begin at a byte
 * of each.
 */
const PAGES: readonly (readonly [type: number, structure: Layout<string>, start: number])[] = [
  [0, cmdHcaCap, 0],
  [1, perProtocolNetworkingOffloadCaps, 0],
  [2, odpCap, 0],
  [2, odpSchemeCap, odpCap.byteOf('memory_page_fault_scheme_cap')],
  [3, atomicCaps, 0],
  [4, roceCap, 0],
  [0xf, deviceMemCap, 0],
];

/**
 * Rows of the support table that say "not advertised" or "no", and the fields by which a driver would believe
 * otherwise.
 */
const ABSENT: readonly (readonly [row: RegExp, fields: readonly string[]])[] = [
  [/^masked atomics, signatures, DC +\| missing, not advertised/m, ['sho', 'dct']],
  [/^completion queues +\| .*; no compression/m, ['cqe_compression']],
  [/^doorbells +\| .*not advertised/m, ['bf']],
  [/^Ethernet +\| .*no striding queues, no LRO/m, ['striding_rq', 'lro_cap']],
  [/^InfiniBand management +\| .*no IPoIB/m, ['ipoib_basic_offloads', 'ipoib_enhanced_offloads']],
  [
    /^SR-IOV, e-switch, DEVX, PTP pins +\| missing, not advertised/m,
    ['eswitch_manager', 'vport_group_manager', 'log_max_uctx', 'pps'],
  ],
];

/** Every field of the capability pages of up to 32 bits, as the driver asks for them. */
function announced(options: Record<string, unknown> = {}): Map<string, { value: number; bits: number }> {
  const driver = new TestDriver(new TestBus(1024 * 1024), 'rdma0', 0, 0x10000, options);
  const found = new Map<string, { value: number; bits: number }>();
  for (const [type, structure, start] of PAGES) {
    const { status, output } = driver.command('QUERY_HCA_CAP', new DataView(new ArrayBuffer(16)), (type << 1) | 1);
    // InfiniBand has no page of what belongs to Ethernet.
    if (status !== 0) continue;
    for (const [name, [, bits]] of Object.entries(structure.fields)) {
      if (bits <= 32) found.set(name, { value: structure.get(subview(output, 0x10 + start), name), bits });
    }
  }
  return found;
}

describe('README of rdma', () => {
  it('lists the options there are', () => {
    const rows = [...readme.matchAll(/^\| `(\w+)` +\|/gm)].map(([, name]) => name);
    assert.deepEqual(rows.sort(), Object.keys((plugin.options as unknown as z.ZodObject).shape).sort());
  });

  it('lists the commands that are carried out', () => {
    const driver = new TestDriver(new TestBus(1024 * 1024), 'rdma0', 0, 0x10000);
    assert.deepEqual(codeWords('Commands').sort(), driver.adapter.commandInterface.names.sort());
  });

  it('lists the features that the capability pages announce', () => {
    const features = [...announced()].filter(([, { bits, value }]) => bits === 1 && value === 1);
    assert.deepEqual(codeWords('Capabilities').sort(), features.map(([name]) => name).sort());
  });

  it('calls nothing missing that is announced', () => {
    const table = readme.replace(/^\| /gm, '');
    for (const link of ['roce', 'ib']) {
      const fields = announced({ link });
      for (const [row, names] of ABSENT) {
        assert.match(table, row);
        for (const name of names) assert.equal(fields.get(name)?.value ?? 0, 0, name);
      }
    }
  });

  it('lists the faults that can be asked for', () => {
    assert.deepEqual(codeWords('Faults on demand').sort(), Object.keys(commands).sort());
  });
});
