import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hostPackages } from '../../qemu/index.js';
import { formatFinding } from './commands/doctor.js';
import { checkCache, checkDebian, checkKvm, checkNode } from './host-checks.js';

describe('doctor', () => {
  it('knows which Node.js is new enough', () => {
    const rows: [string, string][] = [
      ['18.20.4', 'missing'],
      ['20.18.9', 'missing'],
      ['20.19.0', 'good'],
      ['22.0.0', 'good'],
      ['100.1.0', 'good'],
    ];
    for (const [version, verdict] of rows) assert.equal(checkNode(version).verdict, verdict, version);
  });

  it('asks for the Node.js that package.json asks for', () => {
    const manifest = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
    const oldest = manifest.engines.node.replace('>=', '');
    const [major, minor] = oldest.split('.').map(Number);
    assert.equal(checkNode(`${oldest}.0`).verdict, 'good');
    assert.equal(checkNode(`${major}.${minor - 1}.0`).verdict, 'missing');
  });

  it('tells Debian from others', () => {
    const debian = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_CODENAME=trixie\nID=debian\n';
    assert.deepEqual(checkDebian(debian), { what: 'Debian', verdict: 'good', detail: 'Debian GNU/Linux 13 (trixie)' });
    assert.equal(checkDebian(debian.replaceAll('trixie', 'forky')).verdict, 'note');
    assert.equal(checkDebian('ID=alpine\n').verdict, 'missing');
    assert.equal(checkDebian('').verdict, 'missing');
  });

  it('does without KVM', async () => {
    assert.equal((await checkKvm('/dev/no-such-kvm')).verdict, 'note');
  });

  it('counts what the cache holds, whole entries only', () => {
    const folder = mkdtempSync(join(tmpdir(), 'spec-'));
    try {
      assert.equal(checkCache(join(folder, 'absent')).verdict, 'note');
      const hash = '0123456789abcdef0123';
      const names = [
        `kernel-${hash}`,
        `kernel-headers-${hash}`,
        `userland-${hash}.unfinished`,
        `qemu-${hash}`,
        'locks',
      ];
      for (const name of names) mkdirSync(join(folder, name));
      assert.match(checkCache(folder).detail, /1 kernels, 0 user spaces, 1 QEMU/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('prints the remedy with the finding', () => {
    const finding = { what: 'Node.js', verdict: 'missing', detail: '18 is too old', remedy: 'install 20' } as const;
    assert.equal(formatFinding(finding), 'MISSING  Node.js: 18 is too old\n         -> install 20');
  });
});

describe('scripts/setup', () => {
  it('installs every Debian package that qemu/ needs', () => {
    const script = readFileSync(new URL('../../../scripts/setup', import.meta.url), 'utf8');
    const listed = /^debian_packages=\(([^)]*)\)/m.exec(script)![1]!.split(' ');
    assert.deepEqual(
      hostPackages.filter((name) => !listed.includes(name)),
      [],
    );
  });
});
