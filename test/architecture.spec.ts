/** Who may use whom: the tables of docs/architecture.md against the imports of every file. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { circles } from './architecture/circles.js';
import { parseFloors, violations } from './architecture/floors.js';
import { type ImportGraph, readImports } from './architecture/imports.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const document = readFileSync(join(root, 'docs/architecture.md'), 'utf8');

describe('architecture', () => {
  let graph: ImportGraph;

  before(() => {
    graph = readImports(root);
  });

  it('has every import on a floor that the tables of docs/architecture.md allow', () => {
    const found = violations(parseFloors(document), graph);
    assert.deepEqual(
      found.map(({ reason }) => reason),
      [],
    );
  });

  it('has no files that import each other in a circle', () => {
    const found = circles(graph);
    assert.deepEqual(
      found.map((circle) => circle.join(' ↔ ')),
      [],
    );
  });
});

/** A small project in a folder of its own. */
function withProject<T>(files: Readonly<Record<string, string>>, use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'ghostbus-architecture-'));
  try {
    const all = {
      'package.json': JSON.stringify({ name: 'ghostbus', exports: { '.': { types: './dist/low/index.d.ts' } } }),
      'tsconfig.json': JSON.stringify({ compilerOptions: { module: 'nodenext', noLib: true, types: [] } }),
      ...files,
    };
    for (const [path, text] of Object.entries(all)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text);
    }
    return use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const TABLES = `
| folder | concern | may use |
| --- | --- | --- |
| \`low/\` | | \`koffi\` |
| \`high/\` | | \`low/\` |
| \`plugins/*/\` | | \`ghostbus\` |

| specs and kits of | may also use |
| --- | --- |
| \`**\` | \`**\` |
`;

const offences = (files: Readonly<Record<string, string>>) =>
  withProject(files, (folder) =>
    violations(parseFloors(TABLES), readImports(folder)).map(({ from, to }) => [from, to]),
  );

const circlesOf = (files: Readonly<Record<string, string>>) =>
  withProject(files, (folder) => circles(readImports(folder)));

const LOW = {
  'low/index.ts': 'export type A = 1; export const a: A = 1;',
  'low/other.ts': "export * from './index.js';",
};

describe('architecture spec', () => {
  it('lets a floor use itself, what its row grants, and the public face of the package', () => {
    const files = {
      ...LOW,
      'low/ffi.ts': "import koffi from 'koffi'; import 'node:fs';",
      'high/index.ts': "import type { A } from '../low/index.js'; export type B = A;",
      'plugins/one/index.ts': "import { a } from 'ghostbus'; export { b } from './b.js'; export const c = a;",
      'plugins/one/b.ts': 'export const b = 1;',
    };
    assert.deepEqual(offences(files), []);
  });

  for (const [what, text] of Object.entries({
    'an import of a value': "import { b } from '../high/index.js'; export const c = b;",
    'an import of a type': "import type { B } from '../high/index.js'; export type C = B;",
    're-exporting': "export * from '../high/index.js';",
    'a dynamic import': "export const later = () => import('../high/index.js');",
    'an import inside a type': "export type C = import('../high/index.js').B;",
  })) {
    it(`fails on ${what} from a higher floor`, () => {
      const files = { 'high/index.ts': 'export type B = 1; export const b = 1;', 'low/index.ts': text };
      assert.deepEqual(offences(files), [['low/index.ts', 'high/index.ts']]);
    });
  }

  it('fails on a way out of a plugin, into another one, and on a package that the floor may not know', () => {
    const files = {
      ...LOW,
      'plugins/one/index.ts': "export * from '../../low/index.js'; export * from '../two/index.js';",
      'plugins/two/index.ts': "import 'koffi'; export const two = 2;",
    };
    assert.deepEqual(offences(files), [
      ['plugins/one/index.ts', 'low/index.ts'],
      ['plugins/one/index.ts', 'plugins/two/index.ts'],
      ['plugins/two/index.ts', 'koffi'],
    ]);
  });

  it('fails on a source that uses a kit of specs, not on a spec that does', () => {
    const files = {
      'low/index.ts': "export * from './test/kit.js';",
      'low/index.spec.ts': "import './test/kit.js'; import '../high/index.js';",
      'low/test/kit.ts': "export * from '../../high/index.js';",
      'high/index.ts': 'export const b = 1;',
    };
    assert.deepEqual(offences(files), [['low/index.ts', 'low/test/kit.ts']]);
  });

  it('fails on a file that no row names', () => {
    assert.deepEqual(offences({ ...LOW, 'attic/index.ts': 'export const a = 1;' }), [['attic/index.ts', '']]);
  });

  it('finds circles, of types and of three files too, and nothing where there is none', () => {
    const line = { 'a.ts': "export * from './b.js';", 'b.ts': "export * from './c.js';", 'c.ts': 'export type C = 1;' };
    assert.deepEqual(circlesOf(line), []);
    assert.deepEqual(circlesOf({ ...line, 'c.ts': "import type { D } from './a.js'; export type C = D;" }), [
      ['a.ts', 'b.ts', 'c.ts'],
    ]);
  });

  it('needs both tables in the document', () => {
    assert.throws(() => parseFloors('# nothing'), /needs one table/);
  });
});
