import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { CacheEntry } from '../../../qemu/index.js';
import { UsageError } from '../../../session/exit-status.js';
import { cacheReport, pruneReport } from '../cache-report.js';
import { runCli } from '../cli.js';
import { formatAge, formatEntries, formatSize, parseAge, pruneRules } from './cache.js';

const PROGRAM = fileURLToPath(new URL('../main.js', import.meta.url));
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const GIB = 2 ** 30;

describe('ghostbus cache', () => {
  it('reads ages', () => {
    assert.deepEqual(['0m', '90m', '2h', '7d', '1w'].map(parseAge), [
      ...[0, 90 * MINUTE_MS, 2 * HOUR_MS],
      ...[7 * DAY_MS, 7 * DAY_MS],
    ]);
    for (const text of ['', '7', 'd', '7 d', '-1d', '1.5d', '7days']) assert.throws(() => parseAge(text), UsageError);
  });

  it('tells ages and sizes in units for people', () => {
    assert.deepEqual(
      [-5, MINUTE_MS - 1, 119 * MINUTE_MS, 2 * HOUR_MS, 47 * HOUR_MS, 2 * DAY_MS, 40 * DAY_MS].map(formatAge),
      ['0 min', '0 min', '119 min', '2 h', '47 h', '2 d', '40 d'],
    );
    assert.deepEqual([0, 1, 2 ** 20, 316 * 2 ** 20, 1.5 * GIB].map(formatSize), [
      ...['0 KiB', '1 KiB', '1 MiB', '316 MiB', '1.5 GiB'],
    ]);
  });

  it('has a line for each entry', () => {
    const now = 100 * DAY_MS;
    const entry = (name: string, description: string): CacheEntry => ({
      ...{ name, kind: 'snapshot', description, state: 'in use' },
      ...{ madeAt: new Date(now - 3 * DAY_MS), lastUsedAt: new Date(now - 5 * MINUTE_MS), sizeBytes: GIB },
    });
    const text = formatEntries([entry('snapshot-1', 'latest, 2 GiB'), entry('snapshot-22', 'x'.repeat(99))], now);
    const [header, first, second] = text.split('\n');
    assert.equal(header, '   SIZE   USED  MADE  STATE   NAME         WHAT');
    assert.equal(first, '1.0 GiB  5 min   3 d  in use  snapshot-1   latest, 2 GiB');
    assert.match(second!, /snapshot-22 {2}x{59}…$/);
  });

  it('prunes by what is asked for, else as is done without being asked', () => {
    assert.deepEqual(pruneRules({ olderThan: '7d', maxSize: '10G', kind: 'snapshot' }), [
      { kinds: ['snapshot'], olderThanMs: 7 * DAY_MS, maxBytes: 10 * GIB },
    ]);
    assert.deepEqual(pruneRules({ maxSize: '0' }), [{ kinds: undefined, olderThanMs: undefined, maxBytes: 0 }]);
    assert.deepEqual(pruneRules({ kind: 'kernel' }), [{ kinds: ['kernel'] }]);
    assert.deepEqual(
      pruneRules({}).map(({ kinds }) => kinds?.includes('snapshot')),
      [undefined, true, false],
    );
    assert.throws(() => pruneRules({ maxSize: 'much' }), /--max-size: .*not a size/);
  });

  for (const argv of [
    ['cache', '--max-size', '1G'],
    ['cache', 'list', '--older-than', '1d'],
    ['cache', '--dry-run'],
    ['cache', 'shrink'],
    ['cache', 'prune', '--older-than', 'long'],
    ['cache', 'prune', '--max-size', 'x'],
    ['cache', 'prune', '--kind', 'program', '--kind', 'module'],
  ]) {
    it(`refuses: ghostbus ${argv.join(' ')}`, async () => {
      let said = '';
      assert.equal(await runCli(argv, { write: (text: string) => (said += text) } as never), 2);
      assert.match(said, /^ghostbus: \S/);
    });
  }

  describe('on a cache', () => {
    let home: string;
    const old = `program-${'0'.repeat(20)}`;
    const young = `kernel-${'1'.repeat(20)}`;

    beforeEach(() => {
      home = mkdtempSync(join(tmpdir(), 'ghostbus-cache-'));
      for (const [name, days] of [
        [old, 31],
        [young, 1],
        [`module-${'2'.repeat(20)}.unfinished`, 0],
      ] as const) {
        const folder = join(home, 'ghostbus', name);
        mkdirSync(folder, { recursive: true });
        writeFileSync(join(folder, 'file'), 'x');
        const time = new Date(Date.now() - days * DAY_MS);
        utimesSync(folder, time, time);
      }
    });
    afterEach(() => rmSync(home, { recursive: true }));

    async function ghostbus(...args: string[]): Promise<string> {
      const env = { ...process.env, XDG_CACHE_HOME: home };
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [PROGRAM, 'cache', ...args], { env });
      assert.equal(stderr, '');
      return stdout;
    }

    it('lists for people, and for programs as the schema says', async () => {
      const text = await ghostbus();
      assert.match(text, new RegExp(`^ *\\d+ KiB +31 d +31 d +ready +${old}$`, 'm'));
      assert.match(text, /^3 entries, \d+ KiB, in .*\/ghostbus; snapshots 0 KiB of at most 8\.0 GiB$/m);
      const report = cacheReport.parse(JSON.parse(await ghostbus('list', '--json')));
      assert.deepEqual(
        report.entries.map(({ kind, state }) => [kind, state]),
        [
          ['module', 'left over'],
          ['kernel', 'ready'],
          ['program', 'ready'],
        ],
      );
      assert.equal(
        report.totalBytes,
        report.entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      );
      assert.match(await ghostbus('list', '--kind', 'kernel'), /^1 entry, /m);
    });

    it('prunes, and says beforehand what it would', async () => {
      const names = (text: string) => pruneReport.parse(JSON.parse(text)).removed.map(({ kind }) => kind);
      assert.deepEqual(names(await ghostbus('prune', '--dry-run', '--json')), ['module', 'program']);
      assert.ok(existsSync(join(home, 'ghostbus', old)));
      assert.deepEqual(names(await ghostbus('prune', '--json')), ['module', 'program']);
      assert.deepEqual(
        readdirSync(join(home, 'ghostbus')).filter((name) => name.includes('-')),
        [young],
      );
      assert.match(await ghostbus('prune', '--older-than', '2d'), /^0 entries, 0 KiB, removed from /m);
      assert.match(await ghostbus('prune', '--older-than', '23h'), /^1 entry, \d+ KiB, removed from /m);
      assert.match(await ghostbus('list'), /^0 entries/m);
    });
  });
});
