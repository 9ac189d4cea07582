import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  utimesSync,
} from 'node:fs';
import { appendFile, mkdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { cachedFolder, contentHash, discardEntry } from './cache.js';
import { cacheFolder, entryPlaces, fileSizes, readStamp } from './cache-entry.js';
import {
  type CacheEntry,
  chooseEntries,
  defaultRules,
  listCache,
  pruneCache,
  removeRemains,
  removeUnused,
  requireRoomFor,
  snapshotLimit,
} from './cache-prune.js';
import { noteUse } from './cache-users.js';
import { HostSetupError } from './errors.js';
import { lockFile, tryLockFile } from './file-lock.js';

const CACHE_USER = fileURLToPath(new URL('./test/cache-user.js', import.meta.url));
const DAY_MS = 86_400_000;
const GIB = 2 ** 30;

describe('cache', () => {
  let root: string;
  let said: string[];
  const others: ChildProcess[] = [];

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'ghostbus-cache-'));
    said = [];
  });
  afterEach(async () => {
    for (const other of others.splice(0)) await end(other, 'SIGKILL');
    await rm(root, { recursive: true });
  });

  const onProgress = (text: string) => said.push(text);
  const placesOf = (inputs: unknown, kind = 'thing') => entryPlaces(root, `${kind}-${contentHash(inputs)}`);

  /** Takes an entry with one file. */
  const take = (inputs: unknown, contents = 'contents', kind = 'thing') =>
    cachedFolder(kind, inputs, (folder) => writeFile(join(folder, 'file'), contents), { root, onProgress });

  /** Forgets that this process uses anything, as if it had ended. */
  const forgetUses = () => rm(join(root, 'users'), { recursive: true });

  const lastUsed = ({ stamp }: { stamp: string }, daysAgo: number) => {
    const time = new Date(Date.now() - daysAgo * DAY_MS);
    utimesSync(stamp, time, time);
  };

  /** A process that takes the entry, and what it says. */
  async function other(inputs: string) {
    const process_ = spawn(process.execPath, [CACHE_USER, root, inputs], { stdio: ['pipe', 'pipe', 'inherit'] });
    others.push(process_);
    const lines = createInterface(process_.stdout)[Symbol.asyncIterator]();
    return { process: process_, says: async () => String((await lines.next()).value) };
  }

  async function end(process_: ChildProcess, signal: NodeJS.Signals) {
    if (process_.exitCode !== null || process_.signalCode !== null) return;
    process_.kill(signal);
    await once(process_, 'exit');
  }

  it('follows XDG_CACHE_HOME, unless it is relative', () => {
    assert.equal(cacheFolder({ XDG_CACHE_HOME: '/x' }), '/x/ghostbus');
    assert.match(cacheFolder({ XDG_CACHE_HOME: 'x' }), /\/\.cache\/ghostbus$/);
    assert.match(cacheFolder({}), /\/\.cache\/ghostbus$/);
  });

  describe('an entry', () => {
    it('is built once, also when asked for twice at the same time', async () => {
      let builds = 0;
      const build = async (folder: string) => {
        builds += 1;
        await writeFile(join(folder, 'file'), 'contents');
      };
      const [first, second] = await Promise.all([
        cachedFolder('thing', { a: 1 }, build, { root }),
        cachedFolder('thing', { a: 1 }, build, { root }),
      ]);
      assert.equal(first, second);
      assert.equal(builds, 1);
      assert.equal(readFileSync(join(first, 'file'), 'utf8'), 'contents');
    });

    it('is built by one of two processes; the other one waits and takes it', async () => {
      const first = await other('1');
      assert.equal(await first.says(), 'building');
      const second = take('1', 'of the second process');
      first.process.stdin!.write('go on\n');
      assert.equal(readFileSync(join(await second, 'file'), 'utf8'), String(first.process.pid));
    });

    it('is built by the process that waited when the first one is killed', async () => {
      const first = await other('1');
      assert.equal(await first.says(), 'building');
      const second = take('1');
      await end(first.process, 'SIGKILL');
      assert.deepEqual(readdirSync(await second), ['file']);
      assert.equal(existsSync(placesOf('1').unfinished), false);
    });

    it('is another one for other inputs', async () => {
      assert.notEqual(await take({ a: 1 }), await take({ a: 2 }));
    });

    it('is not there when the build fails, and is tried again next time', async () => {
      const failing = async (folder: string) => {
        await writeFile(join(folder, 'half'), '');
        throw new Error('no network');
      };
      await assert.rejects(cachedFolder('thing', 1, failing, { root }), /no network/);
      assert.deepEqual(readdirSync(root).sort(), ['locks', 'users']);
      assert.ok(existsSync(await take(1)));
    });

    it('replaces what a killed process left half-built', async () => {
      const { unfinished } = placesOf(1);
      await mkdir(unfinished);
      await writeFile(join(unfinished, 'half'), '');
      await writeFile(`${unfinished}.tar`, '');
      assert.deepEqual(readdirSync(await take(1)), ['file']);
      assert.deepEqual(
        readdirSync(root).filter((name) => name.includes('unfinished')),
        [],
      );
    });

    it('has a stamp that says what it is, and when it was used last', async () => {
      const build = async (folder: string) => {
        await mkdir(join(folder, 'deep/tmp'), { recursive: true });
        await writeFile(join(folder, 'deep/tmp/file'), 'four');
        await mkdir(join(folder, 'tmp'));
        await writeFile(join(folder, 'tmp/scratch'), '');
      };
      const before = Date.now();
      await cachedFolder('thing', 1, build, { root, description: 'a thing' });
      const { stamp } = placesOf(1);
      const { madeAt, ...rest } = (await readStamp(stamp))!;
      assert.deepEqual(rest, {
        kind: 'thing',
        description: 'a thing',
        inputs: contentHash(1),
        files: { 'deep/tmp/file': 4 },
      });
      assert.ok(Date.parse(madeAt) >= before - 1);
      lastUsed(placesOf(1), 3);
      await cachedFolder('thing', 1, build, { root });
      assert.ok(statSync(stamp).mtimeMs >= before - 1);
    });

    it('of many files is flushed and stamped like one of few', async () => {
      const names = Array.from({ length: 100 }, (_, index) => `file${index}`);
      const build = async (folder: string) => {
        for (const name of names) await writeFile(join(folder, name), name);
      };
      const folder = await cachedFolder('thing', 1, build, { root });
      assert.deepEqual(Object.keys(fileSizes(folder)).sort(), [...names].sort());
    });

    it('of a version without stamps is taken, and stamped', async () => {
      const { folder, stamp } = placesOf(1);
      await mkdir(folder);
      await writeFile(join(folder, 'file'), 'of old');
      assert.equal(readFileSync(join(await take(1), 'file'), 'utf8'), 'of old');
      assert.deepEqual((await readStamp(stamp))?.files, { file: 6 });
      assert.deepEqual(said, []);
    });
  });

  describe('a broken entry', () => {
    const damages: Record<string, [RegExp, (folder: string, stamp: string) => Promise<void>]> = {
      'a missing file': [/file is missing/, (folder) => rm(join(folder, 'file'))],
      'a file cut short': [/file has 3 bytes instead of 8/, (folder) => truncate(join(folder, 'file'), 3)],
      'a file that grew': [/file has 9 bytes instead of 8/, (folder) => appendFile(join(folder, 'file'), '!')],
      'a stamp that is none': [/stamp cannot be read/, (_, stamp) => writeFile(stamp, '{"kind":')],
      'a stamp without files': [/stamp cannot be read/, (_, stamp) => writeFile(stamp, 'null')],
    };
    for (const [what, [message, damage]] of Object.entries(damages)) {
      it(`is made anew, with a word about it: ${what}`, async () => {
        const { stamp } = placesOf(1);
        await damage(await take(1), stamp);
        const folder = await take(1, 'made anew');
        assert.equal(readFileSync(join(folder, 'file'), 'utf8'), 'made anew');
        assert.equal(said.length, 1);
        assert.match(said[0]!, message);
        await take(1);
        assert.equal(said.length, 1);
      });
    }

    it('is not what somebody removed by hand', async () => {
      await rm(await take(1), { recursive: true });
      assert.equal(readFileSync(join(await take(1, 'again'), 'file'), 'utf8'), 'again');
      assert.deepEqual(said, []);
    });

    it('can be told by the one who uses it', async () => {
      const folder = await take(1);
      await discardEntry(folder, 'QEMU refuses it', onProgress);
      assert.deepEqual(said, [`Throwing away the cached ${placesOf(1).name}: QEMU refuses it`]);
      assert.equal(existsSync(folder), false);
      assert.equal(existsSync(placesOf(1).stamp), false);
      await discardEntry(folder, 'once more', onProgress);
      assert.equal(said.length, 1);
      assert.equal(readFileSync(join(await take(1, 'anew'), 'file'), 'utf8'), 'anew');
    });

    it('is an entry, and no other folder', async () => {
      await assert.rejects(discardEntry(root, 'by mistake', onProgress), /is no entry of a cache/);
      assert.ok(existsSync(root));
    });

    it('is not thrown away a second time when another process has made it anew', async () => {
      const folder = await take('1');
      await rm(folder, { recursive: true });
      const maker = await other('1');
      assert.equal(await maker.says(), 'building');
      maker.process.stdin!.write('go on\n');
      assert.equal(await maker.says(), `using ${folder}`);
      await discardEntry(folder, 'QEMU refuses it', onProgress);
      assert.deepEqual(said, []);
      assert.equal(readFileSync(join(folder, 'file'), 'utf8'), String(maker.process.pid));
    });
  });

  describe('a prune', () => {
    it('lists what is there, by last use', async () => {
      await take(1, 'x', 'program');
      await cachedFolder('kernel', 2, async () => {}, { root, description: 'a kernel' });
      await mkdir(placesOf(3, 'module').unfinished);
      await forgetUses();
      await take(1, 'x', 'program');
      lastUsed(placesOf(1, 'program'), 2);
      lastUsed(placesOf(2, 'kernel'), 5);
      const entries = await listCache(root);
      assert.deepEqual(
        entries.map(({ kind, description, state }) => [kind, description, state]),
        [
          ['module', '', 'left over'],
          ['program', '', 'in use'],
          ['kernel', 'a kernel', 'ready'],
        ],
      );
      assert.deepEqual(
        (await listCache(root, ['kernel'])).map(({ name }) => name),
        [placesOf(2, 'kernel').name],
      );
      assert.deepEqual(await listCache(join(root, 'absent')), []);
    });

    it('counts blocks on the disk, and what entries share once', async () => {
      const sparse = await cachedFolder(
        'thing',
        'sparse',
        async (folder) => {
          await writeFile(join(folder, 'file'), 'x'.repeat(100_000));
          await truncate(join(folder, 'file'), GIB);
        },
        { root },
      );
      const [only] = await listCache(root);
      assert.ok(only!.sizeBytes >= 100_000 && only!.sizeBytes < 1_000_000, String(only!.sizeBytes));
      await cachedFolder('thing', 'linked', async (folder) => linkSync(join(sparse, 'file'), join(folder, 'file')), {
        root,
      });
      const sizes = (await listCache(root)).map(({ sizeBytes }) => sizeBytes).sort((left, right) => left - right);
      assert.equal(sizes.length, 2);
      assert.ok(sizes[0]! < 100_000 && sizes[1]! >= 100_000, String(sizes));
    });

    const listed = (...rows: [name: string, state: CacheEntry['state'], daysAgo: number, sizeBytes: number][]) =>
      rows.map(([name, state, daysAgo, sizeBytes]): CacheEntry => {
        const time = new Date(100 * DAY_MS - daysAgo * DAY_MS);
        return { name, kind: 'thing', description: '', state, madeAt: time, lastUsedAt: time, sizeBytes };
      });
    const now = 100 * DAY_MS;
    const chosen = (entries: CacheEntry[], rule: Parameters<typeof chooseEntries>[1]) =>
      chooseEntries(entries, rule, now)
        .map(({ name }) => name)
        .join(' ');

    it('chooses by age, by size, or both, the oldest first, and never what is used or made', () => {
      const entries = listed(
        ['new', 'ready', 1, 10],
        ['old', 'ready', 9, 10],
        ['older', 'ready', 20, 10],
        ['used', 'in use', 30, 10],
        ['made', 'being made', 30, 10],
        ['left', 'left over', 0, 10],
      );
      assert.equal(chosen(entries, {}), 'left');
      assert.equal(chosen(entries, { olderThanMs: 9 * DAY_MS }), 'left older');
      assert.equal(chosen(entries, { olderThanMs: 8 * DAY_MS }), 'left older old');
      assert.equal(chosen(entries, { maxBytes: 60 }), 'left');
      assert.equal(chosen(entries, { maxBytes: 49 }), 'left older');
      assert.equal(chosen(entries, { maxBytes: 30, olderThanMs: 8 * DAY_MS }), 'left older old');
      assert.equal(chosen(entries, { maxBytes: 0 }), 'left older old new');
    });

    it('removes entries with their stamps; a dry run only names them', async () => {
      const rule = { olderThanMs: 7 * DAY_MS };
      const folders = [await take(1), await take(2)];
      await forgetUses();
      lastUsed(placesOf(1), 8);
      lastUsed(placesOf(2), 6);
      const names = [placesOf(1).name];
      assert.deepEqual(
        (await pruneCache(root, rule, true)).map(({ name }) => name),
        names,
      );
      assert.deepEqual(folders.map(existsSync), [true, true]);
      assert.deepEqual(
        (await pruneCache(root, rule)).map(({ name }) => name),
        names,
      );
      assert.deepEqual(folders.map(existsSync), [false, true]);
      assert.deepEqual(readdirSync(join(root, 'stamps')), [`${placesOf(2).name}.json`]);
      assert.deepEqual(await pruneCache(root, rule), []);
    });

    it('leaves other kinds alone', async () => {
      await take(1, 'x', 'program');
      await take(1, 'x', 'kernel');
      await forgetUses();
      const removed = await pruneCache(root, { kinds: ['program'], maxBytes: 0 });
      assert.deepEqual(
        removed.map(({ kind }) => kind),
        ['program'],
      );
      assert.ok(existsSync(placesOf(1, 'kernel').folder));
    });

    it('leaves what a running process uses until that ends, by whatever means', async () => {
      const user = await other('1');
      assert.equal(await user.says(), 'building');
      assert.deepEqual(await pruneCache(root, { maxBytes: 0 }), []);
      user.process.stdin!.write('go on\n');
      const { folder, stamp } = placesOf('1');
      assert.equal(await user.says(), `using ${folder}`);
      lastUsed({ stamp }, 99);
      assert.deepEqual(await pruneCache(root, { maxBytes: 0 }), []);
      assert.ok(existsSync(folder) && existsSync(stamp));
      await end(user.process, 'SIGKILL');
      assert.equal((await pruneCache(root, { maxBytes: 0 })).length, 1);
      assert.equal(existsSync(folder), false);
      assert.deepEqual(readdirSync(join(root, 'users')), []);
    });

    it('leaves what was used after it was listed', async () => {
      const folder = await take(1);
      await forgetUses();
      lastUsed(placesOf(1), 5);
      const [entry] = await listCache(root);
      await take(1);
      await forgetUses();
      assert.equal(await removeUnused(root, entry!), false);
      await noteUse(root, entry!.name);
      const [again] = await listCache(root);
      assert.equal(await removeUnused(root, again!), false);
      assert.ok(existsSync(folder) && existsSync(placesOf(1).stamp));
      await forgetUses();
      assert.equal(await removeUnused(root, again!), true);
    });

    it('trusts what processes of other hosts and containers said within a day', async () => {
      await take(1);
      await forgetUses();
      await mkdir(join(root, 'users'));
      const file = join(root, 'users', `another-boot.4026531836.${process.pid}.1`);
      await writeFile(file, `${placesOf(1).name}\n`);
      assert.deepEqual(await pruneCache(root, { maxBytes: 0 }), []);
      const longAgo = new Date(Date.now() - 2 * DAY_MS);
      utimesSync(file, longAgo, longAgo);
      assert.equal((await pruneCache(root, { maxBytes: 0 })).length, 1);
    });

    it('does not take another process of the same number for the one that used an entry', async () => {
      const folder = await take(1);
      const users = join(root, 'users');
      const [own] = readdirSync(users);
      renameSync(join(users, own!), join(users, own!.replace(/\d+$/, '1')));
      assert.equal((await pruneCache(root, { maxBytes: 0 })).length, 1);
      assert.equal(existsSync(folder), false);
    });

    it('that was killed before it removed the entry does no harm', async () => {
      const folder = await take(1);
      const { stamp, doomedStamp } = placesOf(1);
      renameSync(stamp, doomedStamp);
      lastUsed({ stamp: doomedStamp }, 3);
      const [entry] = await listCache(root);
      assert.ok(Date.now() - Number(entry!.lastUsedAt) > 2 * DAY_MS);
      assert.equal(readFileSync(join(await take(1, 'made anew'), 'file'), 'utf8'), 'contents');
      assert.deepEqual(readdirSync(join(root, 'stamps')), [`${placesOf(1).name}.json`]);
      renameSync(stamp, doomedStamp);
      renameSync(folder, placesOf(1).unfinished);
      assert.equal(readFileSync(join(await take(1, 'made anew'), 'file'), 'utf8'), 'made anew');
      assert.deepEqual(said, []);
    });

    it('removes what killed processes left of any entry, and stamps without one', async () => {
      const killed = await other('1');
      assert.equal(await killed.says(), 'building');
      await removeRemains(root);
      assert.deepEqual(readdirSync(placesOf('1').unfinished), ['half']);
      await end(killed.process, 'SIGKILL');
      await rm(await take(2), { recursive: true });
      await writeFile(`${placesOf(3).unfinished}.tar`, '');
      await removeRemains(root);
      assert.deepEqual(readdirSync(root).sort(), ['locks', 'stamps', 'users']);
      assert.deepEqual(readdirSync(join(root, 'stamps')), []);
    });
  });

  describe('limits', () => {
    it('are 8 GiB of snapshots, or what the environment says', () => {
      assert.equal(snapshotLimit({}), 8 * GIB);
      assert.equal(snapshotLimit({ GHOSTBUS_SNAPSHOT_LIMIT: '512M' }), GIB / 2);
      assert.equal(snapshotLimit({ GHOSTBUS_SNAPSHOT_LIMIT: '0' }), 0);
      assert.throws(() => snapshotLimit({ GHOSTBUS_SNAPSHOT_LIMIT: 'little' }), HostSetupError);
    });

    it('are for the kinds that grow without end', () => {
      assert.deepEqual(
        defaultRules().map(({ kinds }) => kinds),
        [['snapshot'], ['initrd', 'kvm', 'module', 'module-index', 'program', 'snapshot-fault', 'snapshot-wish']],
      );
      assert.deepEqual(
        defaultRules('program').map(({ kinds }) => kinds),
        [['program']],
      );
      assert.deepEqual(defaultRules('kernel'), []);
    });

    it('are kept whenever a snapshot is made', async () => {
      const block = 'x'.repeat(64 * 1024);
      process.env.GHOSTBUS_SNAPSHOT_LIMIT = '150K';
      try {
        for (const [index, kind] of ['snapshot', 'snapshot', 'program', 'program', 'kernel'].entries()) {
          await take(index, block, kind);
        }
        await forgetUses();
        for (const [index, daysAgo] of [3, 2].entries()) lastUsed(placesOf(index, 'snapshot'), daysAgo);
        for (const [index, daysAgo] of [31, 29].entries()) lastUsed(placesOf(index + 2, 'program'), daysAgo);
        lastUsed(placesOf(4, 'kernel'), 99);
        await mkdir(placesOf(5, 'module').unfinished);
        await take(6, block, 'snapshot');
        assert.deepEqual(
          readdirSync(root)
            .filter((name) => name.includes('-'))
            .sort(),
          [
            placesOf(1, 'snapshot').name,
            placesOf(6, 'snapshot').name,
            placesOf(3, 'program').name,
            placesOf(4, 'kernel').name,
          ].sort(),
        );
        process.env.GHOSTBUS_SNAPSHOT_LIMIT = '0';
        await take(7, block, 'snapshot');
        // Those that this process uses stay.
        assert.deepEqual((await listCache(root, ['snapshot'])).length, 2);
        process.env.GHOSTBUS_SNAPSHOT_LIMIT = 'little';
        await take(8, block, 'snapshot');
        assert.match(said.at(-1)!, /not tidied: GHOSTBUS_SNAPSHOT_LIMIT/);
      } finally {
        delete process.env.GHOSTBUS_SNAPSHOT_LIMIT;
      }
    });

    it('leave a gibibyte of the disk free: unused snapshots give way, then the new one is refused', async () => {
      const free = (bytes: number) => async () => bytes + GIB * (2 - (await listCache(root, ['snapshot'])).length);
      for (const [index, daysAgo] of [2, 3].entries()) {
        await take(index, 'x', 'snapshot');
        lastUsed(placesOf(index, 'snapshot'), daysAgo);
      }
      await take(3, 'x', 'kernel');
      await forgetUses();
      await requireRoomFor(GIB, root, free(2 * GIB));
      assert.equal((await listCache(root)).length, 3);
      await requireRoomFor(GIB, root, free(2 * GIB - 1));
      assert.deepEqual(
        (await listCache(root, ['snapshot'])).map(({ name }) => name),
        [placesOf(0, 'snapshot').name],
      );
      await assert.rejects(requireRoomFor(3 * GIB, root, free(GIB)), (error) => {
        assert.ok(error instanceof HostSetupError);
        assert.match(error.message, /snapshot of 3072 MiB .* less than 1G free .* which has 3072 MiB/);
        return true;
      });
      assert.deepEqual(
        (await listCache(root)).map(({ kind }) => kind),
        ['kernel'],
      );
      await requireRoomFor(1, join(root, 'absent/folder'));
    });
  });

  describe('a lock', () => {
    it('is held once, and free after its release', async () => {
      const path = join(root, 'locks/one');
      const release = await lockFile(path);
      assert.equal(await tryLockFile(path), undefined);
      await release();
      const second = await tryLockFile(path);
      assert.ok(second);
      await second();
    });

    it('outlasts a Ctrl-C in the terminal of its process', async () => {
      const lock = new URL('./file-lock.js', import.meta.url).href;
      const path = join(root, 'locks/one');
      const script = `process.on('SIGINT', () => console.log('interrupted'));
        const { lockFile } = await import(${JSON.stringify(lock)});
        await lockFile(${JSON.stringify(path)});
        console.log('locked');
        setInterval(() => {}, 1000);`;
      const holder = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
        detached: true,
      });
      others.push(holder);
      const lines = createInterface(holder.stdout)[Symbol.asyncIterator]();
      assert.equal((await lines.next()).value, 'locked');
      process.kill(-holder.pid!, 'SIGINT');
      assert.equal((await lines.next()).value, 'interrupted');
      assert.equal(await tryLockFile(path), undefined);
      await end(holder, 'SIGKILL');
      const release = await lockFile(path);
      await release();
    });

    it('that cannot be taken is an error', async () => {
      const path = join(root, 'locks/one');
      await mkdir(join(root, 'locks'));
      symlinkSync('/no/such/folder/lock', path);
      await assert.rejects(tryLockFile(path), /cannot lock .*flock ended with status/);
      await assert.rejects(lockFile(path), /cannot lock .*flock ended with status/);
    });
  });
});
