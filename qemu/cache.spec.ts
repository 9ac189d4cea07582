import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cachedFolder, cacheFolder, contentHash } from './cache.js';

describe('cache', () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'ghostbus-cache-'));
  });
  afterEach(() => rm(root, { recursive: true }));

  it('follows XDG_CACHE_HOME, unless it is relative', () => {
    assert.equal(cacheFolder({ XDG_CACHE_HOME: '/x' }), '/x/ghostbus');
    assert.match(cacheFolder({ XDG_CACHE_HOME: 'x' }), /\/\.cache\/ghostbus$/);
    assert.match(cacheFolder({}), /\/\.cache\/ghostbus$/);
  });

  it('builds an entry once, also when asked twice at the same time', async () => {
    let builds = 0;
    const build = async (folder: string) => {
      builds += 1;
      await writeFile(join(folder, 'file'), 'contents');
    };
    const [first, second] = await Promise.all([
      cachedFolder('thing', { a: 1 }, build, root),
      cachedFolder('thing', { a: 1 }, build, root),
    ]);
    assert.equal(first, second);
    assert.equal(builds, 1);
    assert.equal(readFileSync(join(first, 'file'), 'utf8'), 'contents');
  });

  it('gives other inputs another entry', async () => {
    const build = async () => {};
    assert.notEqual(
      await cachedFolder('thing', { a: 1 }, build, root),
      await cachedFolder('thing', { a: 2 }, build, root),
    );
  });

  it('leaves nothing behind when the build fails, and tries again next time', async () => {
    const failing = async (folder: string) => {
      await writeFile(join(folder, 'half'), '');
      throw new Error('no network');
    };
    await assert.rejects(cachedFolder('thing', 1, failing, root), /no network/);
    assert.deepEqual(readdirSync(root), ['locks']);
    assert.ok(existsSync(await cachedFolder('thing', 1, async () => {}, root)));
  });

  it('removes what a killed process left half-built', async () => {
    const unfinished = join(root, `thing-${contentHash(1)}.unfinished`);
    await mkdir(unfinished);
    await writeFile(join(unfinished, 'half'), '');
    const folder = await cachedFolder('thing', 1, async () => {}, root);
    assert.deepEqual(readdirSync(folder), []);
    assert.equal(existsSync(unfinished), false);
  });
});
