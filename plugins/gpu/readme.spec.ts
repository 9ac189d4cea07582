import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'mocha';
import { PM4_PACKETS } from './packets/pm4.js';
import { MISSING_SDMA_PACKETS, SDMA_PACKETS } from './packets/sdma.js';
import { PRODUCTS } from './product/product.js';

const readme = readFileSync(new URL('../../../plugins/gpu/README.md', import.meta.url), 'utf8');

/** Rows of the table under a heading, without head and rule. */
function table(heading: string): string[][] {
  const section = readme.split(`${heading}\n`)[1]?.split('\n#')[0] ?? '';
  const rows = section.split('\n').filter((line) => line.startsWith('|'));
  return rows.slice(2).map((row) =>
    row
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** Folders beside its own that the sources of a wing import from. */
function usedBy(wing: string): string[] {
  const folder = new URL(`../../../plugins/gpu/${wing}/`, import.meta.url);
  const sources = readdirSync(folder).filter((name) => name.endsWith('.ts') && !name.endsWith('.spec.ts'));
  return sources.flatMap((name) => {
    const imports = readFileSync(new URL(name, folder), 'utf8').matchAll(/from '\.\.\/([a-z]+)\//g);
    return [...imports].map(([, used]) => used!);
  });
}

describe('gpu README', () => {
  it('lists exactly the SDMA packets, and which of them are missing', () => {
    assert.deepEqual(
      table('### SDMA packets').map(([name, state]) => [name, state === 'missing']),
      [...SDMA_PACKETS.map(({ name }) => [name, false]), ...MISSING_SDMA_PACKETS.map(({ name }) => [name, true])],
    );
  });

  it('lists exactly the PM4 packets, each with what becomes of it', () => {
    assert.deepEqual(
      table('### PM4 packets').map(([name, state]) => [name, state?.split(/[ ,:]/)[0]]),
      PM4_PACKETS.map(({ name, support }) => [name, support]),
    );
  });

  it('names the wings in an order in which each uses only those before it', () => {
    const wings = table('## Blocks').flatMap(([wing]) => (wing === '' ? [] : [wing!.replaceAll(/[`/]/g, '')]));
    assert.ok(wings.length > 5, wings.join());
    for (const [place, wing] of wings.entries()) {
      const later = usedBy(wing).filter((used) => wings.indexOf(used) > place);
      assert.deepEqual(later, [], `${wing} uses a wing that the table names after it`);
    }
  });

  it('names the versions of the discovery table', () => {
    const versions = new Set(
      table('## The synthetic ASIC').flatMap(([, version]) => (version === '' ? [] : [version])),
    );
    assert.deepEqual(versions, new Set(PRODUCTS['7af0'].blocks.map(({ version }) => version.join('.'))));
  });
});
