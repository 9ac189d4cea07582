import assert from 'node:assert/strict';
import { describeFurther, explainApt, furtherPackages } from './apt-report.js';

/** As mmdebstrap prints them around apt's. */
const before = [
  'I: automatically chosen mode: root',
  'I: running apt-get update...',
  'I: downloading packages with apt...',
  'Reading package lists...',
  'Building dependency tree...',
];
const after = [
  'E: apt download failed: E: apt-get --yes -oDir::Log=/dev/null install kmod -oAPT::Status-Fd=<$fd> failed',
  'I: main() received signal PIPE: waiting for setup...',
  'E: mmdebstrap failed to run',
];

describe('what apt says when packages cannot be installed', () => {
  const rows: { title: string; words: string[]; noise?: string[]; remedy: RegExp }[] = [
    { title: 'no such package', words: ['E: Unable to locate package nosuchpackage'], remedy: /name.*component main/ },
    {
      title: 'a package that is only referred to',
      words: [
        'Package linux-image-999 is not available, but is referred to by another package.',
        "E: Package 'linux-image-999' has no installation candidate",
      ],
      noise: ['This may mean that the package is missing, has been obsoleted, or'],
      remedy: /component main/,
    },
    { title: 'not in that suite', words: ["E: Release 'forky' for 'bcachefs' was not found"], remedy: /suite/ },
    {
      title: 'no such suite',
      words: ["E: The repository 'http://mirror.example/debian nosuch Release' does not have a Release file."],
      noise: ['Err:4 http://mirror.example/debian nosuch Release', '  404  Not Found [IP: 192.0.2.1 80]'],
      remedy: /no such suite/,
    },
    {
      title: 'dependencies that nothing meets',
      words: [
        'The following packages have unmet dependencies:',
        ' udev : Depends: libsystemd-shared (= 262-1) but 257.13-1~deb13u1 is to be installed',
        '        Depends: libudev1 (= 262-1) but 257.13-1~deb13u1 is to be installed',
        'E: Unable to correct problems, you have held broken packages.',
      ],
      noise: ['requested an impossible situation or if you are using the unstable'],
      remedy: /exclude each other/,
    },
    {
      title: "the newer solver's reasons, which go on in further lines",
      words: [
        'E: Unable to satisfy dependencies. Reached two conflicting assignments:',
        '   1. exim4:amd64 is selected for install',
        '   2. exim4:amd64 Conflicts postfix',
      ],
      remedy: /exclude each other/,
    },
    {
      title: "a package's script that fails",
      words: [
        'dpkg: error processing package broken (--configure):',
        ' installed broken package post-installation script subprocess returned error exit status 1',
        'E: Sub-process env returned an error code (1)',
      ],
      noise: ['Errors were encountered while processing:', ' broken'],
      remedy: /script/,
    },
    {
      title: 'a mirror that is not there',
      words: [
        "E: Failed to fetch http://mirror.example/debian/dists/trixie/InRelease  Temporary failure resolving 'mirror.example'",
        'E: Some index files failed to download. They have been ignored, or old ones used instead.',
      ],
      noise: ['Err:1 http://mirror.example/debian trixie InRelease', "  Temporary failure resolving 'mirror.example'"],
      remedy: /mirror is reachable/,
    },
  ];
  for (const { title, words, noise = [], remedy } of rows) {
    it(`is told alone: ${title}`, () => {
      const failure = explainApt([...before, ...noise, ...words, ...after].join('\n'));
      assert.equal(failure?.words, words.join('\n'));
      assert.match(failure!.remedy, remedy);
      if (title !== 'a mirror that is not there') assert.doesNotMatch(failure!.remedy, /reachable/);
    });
  }

  it('is nothing when something else failed', () => {
    const output = ['I: automatically chosen mode: unshare', 'E: mmdebstrap failed to run', 'newuidmap: not permitted'];
    assert.equal(explainApt(output.join('\n')), undefined);
  });
});

describe('what a package of another suite brings with it', () => {
  const simulated = [
    'NOTE: This is only a simulation!',
    'Inst gcc-14-base (14.2.0-19 Debian:13.8/stable [amd64])',
    'Inst libc6 [2.41-12] (2.43-7 Debian:testing [amd64]) []',
    'Inst libc-gconv-modules-extra (2.43-7 Debian:testing [amd64])',
    'Inst tzdata (2026b-1 Debian:13.8/stable, Debian:testing [all])',
    'Inst fio (3.39-1~bpo13+1 Debian Backports:stable-backports [amd64])',
    'Inst strace (7.2+ds-1+b1 Debian:testing [amd64])',
    'Conf strace (7.2+ds-1+b1 Debian:testing [amd64])',
  ].join('\n');

  it('is what only that suite has, without what was asked for', () => {
    const packages = ['tzdata', 'strace/forky', 'fio/trixie-backports'];
    assert.deepEqual(furtherPackages(simulated, packages, '13'), [
      { suite: 'forky', asked: ['strace/forky'], names: ['libc-gconv-modules-extra', 'libc6'] },
    ]);
  });

  it('is counted once for all packages of a suite', () => {
    const [further, ...others] = furtherPackages(simulated, ['strace/forky', 'libc6/forky'], '13');
    assert.deepEqual(further, {
      suite: 'forky',
      asked: ['strace/forky', 'libc6/forky'],
      names: ['libc-gconv-modules-extra'],
    });
    assert.deepEqual(others, []);
    assert.equal(
      describeFurther(further!),
      'strace/forky and libc6/forky take 1 further package from forky: libc-gconv-modules-extra',
    );
  });

  it('is nothing when no suite is named, and when apt found no solution', () => {
    assert.deepEqual(furtherPackages(simulated, ['strace', 'tzdata'], '13'), []);
    assert.deepEqual(furtherPackages('', ['strace/forky'], '13'), []);
  });

  it('is told with the number of all and the first of their names', () => {
    const names = Array.from({ length: 40 }, (_, index) => `lib${String(index).padStart(2, '0')}`);
    const text = describeFurther({ suite: 'forky', asked: ['perftest/forky'], names });
    assert.match(text, /^perftest\/forky takes 40 further packages from forky: lib00, lib01, .*lib11 and 28 more$/);
  });
});
