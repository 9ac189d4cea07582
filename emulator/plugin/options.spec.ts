import assert from 'node:assert/strict';
import { z } from 'zod';
import { byteSize, formatByteSize, parseByteSize } from './options.js';

describe('byte sizes', () => {
  const sizes: readonly [string, number][] = [
    ['0', 0],
    ['4096', 4096],
    ['0x1000', 4096],
    ['64k', 65536],
    ['512M', 2 ** 29],
    ['16G', 2 ** 34],
    [' 16GiB ', 2 ** 34],
    ['1T', 2 ** 40],
  ];
  for (const [text, expected] of sizes) {
    it(`reads ${JSON.stringify(text)} as ${expected} and writes it back`, () => {
      assert.equal(parseByteSize(text), expected);
      assert.equal(parseByteSize(formatByteSize(expected)), expected);
    });
  }

  for (const text of ['', 'G', '-1', '1.5G', '16 apples', '9999999T', '1e3', 'NaN']) {
    it(`refuses ${JSON.stringify(text)} and names it`, () => {
      assert.throws(
        () => parseByteSize(text),
        (error: Error) => error.message.includes(JSON.stringify(text)),
      );
    });
  }

  it('writes the largest unit that divides', () => {
    assert.equal(formatByteSize(2 ** 34), '16G');
    assert.equal(formatByteSize(1536), '1536');
    assert.equal(formatByteSize(3 * 2 ** 20), '3M');
  });
});

describe('byteSize', () => {
  const schema = z.object({
    memory: byteSize({ minBytes: 2 ** 21, maxBytes: 2 ** 30, powerOfTwo: true }).prefault('16M'),
  });
  const problem = (memory: unknown): string => schema.safeParse({ memory }).error?.issues[0]?.message ?? '';

  it('parses text, numbers and the default', () => {
    assert.deepEqual(schema.parse({ memory: '64M' }), { memory: 2 ** 26 });
    assert.deepEqual(schema.parse({ memory: 2 ** 22 }), { memory: 2 ** 22 });
    assert.deepEqual(schema.parse({}), { memory: 2 ** 24 });
  });

  it('names the limit that a value breaks', () => {
    assert.match(problem('1M'), /1M is less than the smallest size 2M/);
    assert.match(problem('2G'), /2G is more than the largest size 1G/);
    assert.match(problem('3M'), /3M is not a power of two/);
    assert.match(problem('0'), /0 is not a power of two/);
    assert.match(problem('lots'), /"lots" is not a size/);
    assert.notEqual(problem(true), '');
  });
});
