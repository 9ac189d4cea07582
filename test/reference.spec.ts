/** Every citation of docs/reference, in code and documents, leads to a section that exists. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { filesOf, root } from './files.js';

const REFERENCE = 'docs/reference';
const CITATION = /([a-z0-9-]+\.md) §(\d+(?:\.\d+)*)/g;
/** A section of "the reference" that says not which one. */
const NAMELESS = /reference §|[a-z0-9] reference §/;

interface Citation {
  readonly where: string;
  readonly document: string;
  readonly section: string;
}

function citationsIn(path: string): Citation[] {
  const lines = readFileSync(join(root, path), 'utf8').split('\n');
  return lines.flatMap((line, index) =>
    [...line.matchAll(CITATION)].map(([, document, section]) => ({
      where: `${path}:${index + 1}`,
      document: document!,
      section: section!,
    })),
  );
}

const sectionsOf = (document: string): Set<string> =>
  new Set(
    [...readFileSync(join(root, REFERENCE, document), 'utf8').matchAll(/^#+ (\d+(?:\.\d+)*)\b/gm)].map(([, n]) => n!),
  );

describe('reference documents', () => {
  const documents = new Map(
    readdirSync(join(root, REFERENCE)).map((document) => [document, sectionsOf(document)] as const),
  );
  const cited = filesOf(/\.(ts|c|h|py|md)$/).flatMap(citationsIn);

  it('have every section that is cited', () => {
    const missing = cited.filter(({ document, section }) => documents.get(document)?.has(section) !== true);
    assert.deepEqual(
      missing.map(({ where, document, section }) => `${where}: no ${document} §${section}`),
      [],
    );
  });

  it('are cited by name', () => {
    const nameless = filesOf(/\.(ts|c|h|py)$/).filter(
      (path) => !path.endsWith('reference.spec.ts') && NAMELESS.test(readFileSync(join(root, path), 'utf8')),
    );
    assert.deepEqual(nameless, []);
  });

  it('have no document that nobody cites', () => {
    const unused = [...documents.keys()].filter(
      (name) => name !== 'README.md' && !cited.some(({ document }) => document === name),
    );
    assert.deepEqual(unused, []);
  });
});
