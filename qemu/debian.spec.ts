import assert from 'node:assert/strict';
import { mergePackages, parseMirror, parseTransportSettings, suitesOf } from './debian.js';

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
