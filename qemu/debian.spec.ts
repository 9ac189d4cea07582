import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { makeDebianRoot, mergePackages, parseMirror, parseTransportSettings, suitesOf } from './debian.js';
import { HostSetupError } from './errors.js';

describe('debian', () => {
  it("finds the mirror of the host's own suite, not a third party's or the security archive", () => {
    const printed = [
      "'https://tools.example/linux/dists/bookworm/InRelease' a 0 ",
      "'https://tools.example/linux/dists/bookworm/stable/binary-amd64/Packages.xz' a 0 ",
      "'http://security.example/debian-security/dists/bookworm-security/main/binary-amd64/Packages.xz' b 0 ",
      "'http://mirror.example/pub/debian/dists/bookworm/InRelease' c 0 ",
      "'http://mirror.example/pub/debian/dists/bookworm/main/binary-amd64/Packages.xz' c 0 ",
    ].join('\n');
    assert.equal(parseMirror(printed, 'bookworm'), 'http://mirror.example/pub/debian');
    assert.equal(parseMirror(printed, 'trixie'), undefined);
  });

  it('carries proxy and certificate settings over, and nothing else', () => {
    const dump = [
      'APT::Architecture "amd64";',
      'Acquire::http::Proxy "http://proxy.example:3128";',
      'Acquire::https::Verify-Peer "false";',
      'Acquire::cdrom::mount "/media/cdrom";',
      'Acquire::http "";',
      'Acquire::Retries "3";',
    ].join('\n');
    assert.deepEqual(parseTransportSettings(dump), [
      'Acquire::http::Proxy "http://proxy.example:3128";',
      'Acquire::https::Verify-Peer "false";',
      'Acquire::Retries "3";',
    ]);
  });

  it('adds the suites that packages name to its own', () => {
    assert.deepEqual(suitesOf(['fio']), ['trixie', 'trixie-backports']);
    assert.deepEqual(suitesOf(['fio/trixie-backports', 'a/forky', 'b/forky']), ['trixie', 'trixie-backports', 'forky']);
  });

  it('replaces a package of its own by one that is asked for from another suite', () => {
    assert.deepEqual(mergePackages(['kmod', 'udev'], ['udev/forky', 'fio']), ['fio', 'kmod', 'udev/forky']);
  });
});

describe('a Debian root', () => {
  const { PATH } = process.env;
  let folder: string;

  async function program(name: string, ...lines: string[]): Promise<void> {
    await writeFile(join(folder, name), ['#!/bin/sh', ...lines, ''].join('\n'));
    await chmod(join(folder, name), 0o755);
  }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ghostbus-debian-'));
    process.env.PATH = [folder, PATH].join(delimiter);
    const index = '/main/binary-amd64/Packages.xz';
    await program('apt-get', '. /etc/os-release', `echo "'http://m.example/dists/$VERSION_CODENAME${index}' x 0"`);
    await program('apt-config', 'true');
  });

  afterEach(async () => {
    process.env.PATH = PATH;
    await rm(folder, { recursive: true });
  });

  /** Files by which the stub and the spec tell each other how far they are. */
  const MADE = 'made';
  const TOLD = 'told';
  const ARGUMENTS = 'arguments';

  async function make(packages: readonly string[]): Promise<string[]> {
    const told: string[] = [];
    const onProgress = (text: string) => {
      assert.equal(existsSync(join(folder, MADE)), false);
      told.push(text);
      writeFileSync(join(folder, TOLD), '');
    };
    await makeDebianRoot({ packages, state: 'configured', tarPath: join(folder, 'root.tar'), onProgress });
    assert.equal(existsSync(join(folder, MADE)), true);
    return told;
  }

  /** A stub that prints these lines, and then waits, at most ten seconds, until something was told. */
  async function mmdebstrap(...lines: string[]): Promise<void> {
    await writeFile(join(folder, 'output'), lines.map((line) => `${line}\n`).join(''));
    await program(
      'mmdebstrap',
      `cd ${folder}; echo "$*" > ${ARGUMENTS}; cat output >&2`,
      `if [ -s output ]; then for i in $(seq 100); do [ -e ${TOLD} ] && break; sleep 0.1; done; fi`,
      `touch ${MADE}`,
    );
  }

  it('fails with what apt said about its packages', async () => {
    await program('mmdebstrap', 'echo "E: Unable to locate package nosuch" >&2; exit 25');
    await assert.rejects(
      make(['nosuch']),
      (error) =>
        error instanceof HostSetupError &&
        /apt says:\nE: Unable to locate package nosuch\nCheck name and suite/.test(error.message),
    );
  });

  it('says what a package brings from another suite before that is installed', async () => {
    await mmdebstrap(
      "I: running --essential-hook in shell: sh -c 'apt-get; echo ghostbus: simulated'",
      'Inst libc6 [2.41-12] (2.43-7 Debian:testing [amd64])',
      'Inst strace (7.2 Debian:testing [amd64])',
      'Inst kmod (34 Debian:13.8/stable [amd64])',
      'ghostbus: simulated',
    );
    assert.deepEqual(await make(['kmod', 'strace/forky']), ['strace/forky takes 1 further package from forky: libc6']);
  });

  it('has apt simulate with just these packages, whatever their names have in them', async () => {
    await mmdebstrap();
    assert.deepEqual(await make(['kmod', "it's/forky"]), []);
    const given = readFileSync(join(folder, ARGUMENTS), 'utf8');
    assert.ok(given.includes(`apt-get --simulate install 'kmod' 'it'\\''s/forky' 2>/dev/null`), given);
  });

  it('is not simulated without need', async () => {
    await mmdebstrap();
    await make(['kmod']);
    assert.doesNotMatch(readFileSync(join(folder, ARGUMENTS), 'utf8'), /simulate/);
  });
});
