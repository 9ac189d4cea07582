/** The rules, one property at a time, on a device that no rule can know. */
import assert from 'node:assert/strict';
import type { FunctionExporter, Importer } from '../emulator/plugin/index.js';
import type { DebianKernel } from '../qemu/index.js';
import { generateCells } from './cells.js';
import { type Expectation, expectationOf } from './expectation.js';
import { debianKernels, type MatrixKernel } from './kernels.js';
import { builtIn, catalogueWith, exporterWith, importerWith } from './test/made-up.js';

const { lts, latest } = debianKernels;

interface Case {
  readonly exporter?: Partial<FunctionExporter>;
  readonly importer?: Partial<Importer>;
  readonly kernel?: MatrixKernel;
  readonly topology: string;
  readonly size?: string;
}

function expected({ exporter, importer, kernel = latest, topology, size }: Case): Expectation {
  const catalogue = catalogueWith(exporterWith(exporter), importerWith(importer));
  const [cell] = generateCells(catalogue, {
    kernels: [kernel],
    topologies: [topology],
    exporters: ['toast'],
    sizes: [size ?? (exporter?.doorbell === undefined ? '4K' : 'doorbell')],
  });
  assert.ok(cell, 'no such cell');
  return expectationOf(cell);
}

function word(choice: Case): string {
  const expectation = expected(choice);
  if (expectation.kind === 'p2p') return `P2P by ${expectation.via}`;
  if (expectation.kind !== 'refused') return expectation.kind;
  return `${expectation.errno} at ${expectation.at}${expectation.message === undefined ? '' : ', with a message'}`;
}

const staged = { withoutRoute: { kind: 'staged', because: 'toaster_move' } } as const;
const says = { errno: 'ENOKEY', because: 'it says so' } as const;
const lever = { doorbell: { offset: 16, bytes: 4 } };
const needy = { ...exporterWith().driver, needsIommu: 'a toaster burns without an IOMMU' };
const withoutDevice = { withoutDevice: { errno: 'ENODEV', because: 'no range' } };

describe('the matrix’s rules', () => {
  for (const [what, choice, outcome] of [
    ['a route', { topology: 'switch' }, 'P2P by fabric'],
    ['a route through a translating IOMMU', { topology: 'iommu' }, 'P2P by messages'],
    ['no route, and an exporter that refuses', { topology: 'refused' }, 'EBADSLT at toast'],
    ['… which asks why', { topology: 'refused', exporter: { reportsRoute: true } }, 'EBADSLT at toast, with a message'],
    ['… on a kernel that maps at attach', { topology: 'refused', kernel: lts }, 'EBADSLT at plug'],
    ['no route, and an exporter that moves its buffer', { topology: 'refused', exporter: staged }, 'staged'],
    [
      'an export that is refused',
      { topology: 'switch', exporter: { refusedAtExport: () => says } },
      'ENOKEY at export',
    ],
    ['an export that breaks', { topology: 'iommu', exporter: { notBehindTranslation: 'smoke' } }, 'not-applicable'],
    ['… in another machine', { topology: 'iommu-pt', exporter: { notBehindTranslation: 'smoke' } }, 'P2P by fabric'],
    ['a doorbell', { topology: 'switch', exporter: lever }, 'P2P by fabric'],
    ['… behind a translating IOMMU', { topology: 'iommu', exporter: lever }, 'not-applicable'],
    [
      '… that the importer cannot ring',
      { topology: 'switch', exporter: lever, importer: { ringsNoDoorbell: 'no finger' } },
      'not-applicable',
    ],
    ['an exporter that needs an IOMMU', { topology: 'switch', exporter: { driver: needy } }, 'not-applicable'],
    ['an importer that needs an IOMMU', { topology: 'switch', importer: { driver: needy } }, 'not-applicable'],
    ['… which is there', { topology: 'iommu-pt', importer: { driver: needy } }, 'P2P by fabric'],
    ['an importer that refuses', { topology: 'switch', importer: { refusesAll: says } }, 'ENOKEY at toast'],
    [
      'an importer that wants whole pages',
      { topology: 'switch', importer: { offsetAlignment: { bytes: 4096, ...says } } },
      'P2P by fabric',
    ],
    [
      '… and does not get them',
      { topology: 'switch', size: 'unaligned', importer: { offsetAlignment: { bytes: 4096, ...says } } },
      'ENOKEY at toast',
    ],
    ['an importer without a device', { topology: 'iommu-pt', importer: withoutDevice }, 'ENODEV at toast'],
    [
      '… to which the exporter looks for a route',
      { topology: 'iommu-pt', importer: withoutDevice, exporter: { reportsRoute: true } },
      'ENODEV at toast, with a message',
    ],
    [
      '… which the exporter gives its range',
      {
        topology: 'iommu-pt',
        importer: withoutDevice,
        exporter: { withoutDevice: { kind: 'physical-range', because: 'here it is' } },
      },
      'P2P by messages',
    ],
    [
      '… which the exporter refuses',
      { topology: 'iommu-pt', importer: withoutDevice, exporter: { withoutDevice: { kind: 'refused', ...says } } },
      'ENOKEY at toast',
    ],
  ] as const satisfies readonly (readonly [string, Case, string])[]) {
    it(`${what}: ${outcome}`, () => assert.equal(word(choice), outcome));
  }

  it('say of a kernel what it lacks', () => {
    const kernel = { ...latest, has: (option: string) => option !== 'TOASTER', whyWithout: () => 'no electricity' };
    assert.deepEqual(expected({ topology: 'switch', kernel }), { kind: 'not-applicable', because: 'no electricity' });
    const driver = { ...exporterWith().driver, absence: () => 'too old' };
    const choice = { topology: 'switch', exporter: { driver } } as const;
    assert.deepEqual(expected(choice), { kind: 'not-applicable', because: 'too old' });
  });

  it('give reasons of the machine’s and of the driver’s', () => {
    assert.match(expected({ topology: 'refused' }).because, /^no common bridge .*; toaster_map gives -EBADSLT$/);
    assert.match(
      expected({
        topology: 'iommu',
        importer: withoutDevice,
        exporter: { withoutDevice: { kind: 'no-range', because: 'it is pinned' } },
      }).because,
      /^it is pinned; no range$/,
    );
  });

  it('ask an exporter for no more than it has', () => {
    const catalogue = catalogueWith(exporterWith({ largestBytes: 2 ** 21 }), importerWith());
    const cells = generateCells(catalogue, { kernels: [latest], topologies: ['switch'], exporters: ['toast'] });
    assert.deepEqual(
      cells.map(({ size }) => size.name),
      ['4K', '64K', '2M', 'unaligned'],
    );
  });
});

describe('the built-in matrix', () => {
  /** How many cells of a kernel end in what. */
  function sums(kernel: DebianKernel): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const cell of generateCells(builtIn, { kernels: [kernel] })) {
      const expectation = expectationOf(cell);
      const kind = expectation.kind === 'refused' ? expectation.errno : expectation.kind;
      counts[kind] = (counts[kind] ?? 0) + 1;
    }
    return counts;
  }

  it('has the cells that were measured', () => {
    assert.equal(generateCells(builtIn).length, 1736);
    assert.deepEqual(sums('lts'), {
      'not-applicable': 325,
      staged: 252,
      EINVAL: 135,
      EPERM: 72,
      ENOTTY: 36,
      EOPNOTSUPP: 27,
      EPROTONOSUPPORT: 21,
    });
    assert.deepEqual(sums('latest'), {
      'not-applicable': 328,
      staged: 192,
      EINVAL: 149,
      p2p: 140,
      EOPNOTSUPP: 35,
      EPERM: 24,
    });
  });

  it('knows devices by their properties alone: another name changes nothing', () => {
    const renamed = {
      exporters: builtIn.exporters.map((exporter, index) => ({ ...exporter, name: `exporter-${index}` })),
      importers: builtIn.importers.map((importer, index) => ({ ...importer, name: `importer-${index}` })),
    };
    const outcomes = (catalogue: typeof renamed) => generateCells(catalogue).map((cell) => expectationOf(cell));
    assert.deepEqual(
      outcomes(renamed),
      outcomes({ exporters: [...builtIn.exporters], importers: [...builtIn.importers] }),
    );
  });
});
