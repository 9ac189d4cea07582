import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { KERNELS, kernelHeaders } from 'ghostbus/session';
import * as accessRegisters from '../layouts/access-registers.js';
import * as capabilities from '../layouts/capabilities.js';
import * as commands from '../layouts/commands.js';
import * as contexts from '../layouts/contexts.js';
import type { Layout } from '../layouts/layout.js';
import { parseStructures, type Structure } from './kernel-structures.js';

const LAYOUTS = [
  ...new Set(Object.values({ ...accessRegisters, ...capabilities, ...commands, ...contexts })),
] as Layout<string>[];

/** mlx5_ifc.h uses structures of the other one. */
const HEADERS = ['mlx5_ifc_fpga.h', 'mlx5_ifc.h'] as const;

async function structuresOf(kernel: (typeof KERNELS)[number]): Promise<ReadonlyMap<string, Structure>> {
  const folder = join(await kernelHeaders(kernel), 'include/linux/mlx5');
  const texts = await Promise.all(HEADERS.map((name) => readFile(join(folder, name), 'utf8')));
  return parseStructures(texts.join('\n'));
}

/** `layout.field` of every field that the kernel's header has, and of those that it lacks. */
function compare(structures: ReadonlyMap<string, Structure>): { known: string[]; unknown: string[] } {
  const known: string[] = [];
  const unknown: string[] = [];
  for (const { name, fields } of LAYOUTS) {
    for (const [field, [bit, width]] of Object.entries(fields)) {
      const place = structures.get(name)?.places.get(field);
      if (place === undefined) {
        unknown.push(`${name}.${field}`);
        continue;
      }
      // A kernel that knows fewer bits of a number has its lower ones.
      assert.equal(bit + width, place[0] + place[1], `end of ${name}.${field}`);
      assert.ok(bit <= place[0], `start of ${name}.${field}`);
      known.push(`${name}.${field}`);
    }
  }
  return { known, unknown };
}

describe('layouts and mlx5_ifc.h of the guests’ kernels', () => {
  const known = new Set<string>();
  const unknown = new Set<string>();

  for (const kernel of KERNELS) {
    it(`${kernel}: every field is where the kernel's header has it`, async () => {
      const result = compare(await structuresOf(kernel));
      for (const field of result.known) known.add(field);
      for (const field of result.unknown) unknown.add(field);
      assert.ok(result.known.length > 800, `only ${result.known.length} fields were found in the headers of ${kernel}`);
    });
  }

  it('no field is an invention: a kernel that lacks one is only older than another that has it', () => {
    assert.ok(known.size > 0, 'no header was read');
    assert.deepEqual(
      [...unknown].filter((field) => !known.has(field)),
      [],
    );
  });
});
