import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
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

  /** What it was told before anything was made, which a stub does by making a file of this name. */
  const MADE = 'made';
  const SIMULATED = 'simulated';

  async function make(packages: readonly string[]): Promise<string[]> {
    const told: string[] = [];
    const onProgress = (text: string) => {
      assert.equal(existsSync(join(folder, MADE)), false);
      told.push(text);
    };
    await makeDebianRoot({ packages, state: 'configured', tarPath: join(folder, 'root.tar'), onProgress });
    assert.equal(existsSync(join(folder, MADE)), true);
    return told;
  }

  async function mmdebstrap(simulation: string): Promise<void> {
    const simulate = `touch ${folder}/${SIMULATED}; ${simulation}`;
    await program('mmdebstrap', `case "$*" in *--simulate*) ${simulate};; *) touch ${folder}/${MADE};; esac`);
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
    const simulated = [
      'Inst strace (7.2 Debian:testing [amd64])',
      'Inst libc6 (2.43 Debian:testing [amd64])',
      'Inst kmod (34 Debian:13.8/stable [amd64])',
    ].join('\\n');
    await mmdebstrap(`printf '${simulated}\\n' >&2`);
    assert.deepEqual(await make(['kmod', 'strace/forky']), ['strace/forky takes 1 further package from forky: libc6']);
  });

  it('is made also where the simulation, which is pickier, fails', async () => {
    await mmdebstrap('exit 25');
    assert.deepEqual(await make(['strace/forky']), []);
    assert.equal(existsSync(join(folder, SIMULATED)), true);
  });

  it('is not simulated without need', async () => {
    await mmdebstrap('true');
    await make(['kmod']);
    assert.equal(existsSync(join(folder, SIMULATED)), false);
  });
});
