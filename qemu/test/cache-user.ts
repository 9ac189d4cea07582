/**
 * A process that uses an entry of a cache, for specs that need another one than their own: `cache-user ROOT INPUTS`. It
 * says `building` when it builds, `using FOLDER` when it has the entry, and then waits for its standard input to end; a
 * build waits for its first line.
 */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedFolder } from '../cache.js';

const [root, inputs] = process.argv.slice(2);
const ended = once(process.stdin, 'end');
const build = async (folder: string) => {
  await writeFile(join(folder, 'half'), 'half');
  console.log('building');
  await once(process.stdin, 'data');
  await writeFile(join(folder, 'file'), String(process.pid));
};
console.log('using', await cachedFolder('thing', inputs, build, { root, description: 'of another process' }));
process.stdin.resume();
await ended;
