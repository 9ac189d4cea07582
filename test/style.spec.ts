/** What formatter and linter leave alone. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { filesOf, root } from './files.js';
import { bareNumbers } from './style/bare-numbers.js';

const COLUMNS = 120;
const COMMENT = /^\s*(\/\/|\/\*|\*)/;

/** `FILE:LINE` of every line of the files that is not as it should be. */
function linesThat(files: RegExp, wrong: (line: string) => boolean): string[] {
  return filesOf(files).flatMap((path) =>
    readFileSync(join(root, path), 'utf8')
      .split('\n')
      .flatMap((line, index) => (wrong(line) ? [`${path}:${index + 1}`] : [])),
  );
}

describe('style', () => {
  it(`has comments of at most ${COLUMNS} columns`, () => {
    assert.deepEqual(
      linesThat(/\.([ch]|ts)$/, (line) => COMMENT.test(line) && line.length > COLUMNS),
      [],
    );
  });

  it('has private members by #; only a constructor can be private by the word alone', () => {
    assert.deepEqual(
      linesThat(/\.ts$/, (line) => /^\s*(private|public) (?!constructor)/.test(line)),
      [],
    );
  });

  it('has a name for each number that says nothing by itself', () => {
    assert.deepEqual(bareNumbers(root), []);
  });
});
