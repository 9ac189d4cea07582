import assert from 'node:assert/strict';
import { driversOf } from './catalogue.js';
import { generateCells } from './cells.js';
import { expectationOf } from './expectation.js';
import { absenceOf, type MatrixKernel, mapsAtAttach, userKernel } from './kernels.js';
import { builtIn as catalogue } from './test/made-up.js';
import { iommuDriver } from './topologies.js';

/** All that the matrix asks for. */
const OPTIONS = [
  ...['DRM_AMDGPU', 'DRM_ACCEL_HABANALABS', 'KPROBES', 'UDMABUF', 'DMABUF_HEAPS', 'DMABUF_HEAPS_SYSTEM'],
  ...['MLX5_CORE_EN', 'MLX5_INFINIBAND', 'INFINIBAND_USER_ACCESS', 'INFINIBAND_ON_DEMAND_PAGING'],
  ...['VFIO_PCI', 'VFIO_GROUP', 'VFIO_CONTAINER', 'VFIO_IOMMU_TYPE1', 'INTEL_IOMMU', 'IRQ_REMAP'],
  ...['PCI_P2PDMA', 'VFIO_PCI_DMABUF', 'IOMMUFD', 'VFIO_DEVICE_CDEV'],
];

interface Change {
  readonly release?: string;
  readonly without?: readonly string[];
  readonly buildTree?: string | undefined;
}

function kernelWith({ release = '7.3.4-mine', without = [], ...rest }: Change = {}): MatrixKernel {
  const options = new Set(OPTIONS.filter((option) => !without.includes(option)));
  const buildTree = 'buildTree' in rest ? rest.buildTree : '/somewhere';
  return userKernel('/somewhere', { release, options, buildTree });
}

/** The outcome in a word, of a cell's name without its kernel. */
function word(kernel: MatrixKernel, id: string): string {
  const cell = generateCells(catalogue, { kernels: [kernel] }).find(
    (candidate) => candidate.id === `${kernel.label}/${id}`,
  );
  assert.ok(cell, `no cell ${id}`);
  const expectation = expectationOf(cell);
  if (expectation.kind === 'refused') return `${expectation.errno} at ${expectation.at}`;
  return expectation.kind === 'not-applicable' ? `n/a: ${expectation.because}` : expectation.kind;
}

describe('a kernel of the user’s own in the matrix', () => {
  it('lacks nothing when it has all options', () => {
    const kernel = kernelWith();
    for (const driver of [...driversOf(catalogue), iommuDriver]) assert.equal(absenceOf(driver, kernel), undefined);
    for (const { refusedAtExport } of catalogue.exporters) assert.equal(refusedAtExport?.(kernel), undefined);
    assert.ok(kernel.has('PCI_P2PDMA'));
    assert.equal(mapsAtAttach(kernel), false);
  });

  it('is known by its release in names of cells, and by its path where it is booted', () => {
    const [cell] = generateCells(catalogue, { kernels: [kernelWith(), 'lts'] });
    assert.match(cell!.id, /^7\.3\.4-mine\//);
    assert.equal(cell!.kernel.choice, '/somewhere');
  });

  for (const [option, id] of [
    ['DRM_AMDGPU', 'switch/amdgpu-vram/mlx5/4K'],
    ['DRM_AMDGPU', 'switch/udmabuf/amdgpu/4K'],
    ['DRM_ACCEL_HABANALABS', 'switch/habanalabs-hbm/mlx5/4K'],
    ['INFINIBAND_ON_DEMAND_PAGING', 'switch/udmabuf/mlx5/4K'],
    ['VFIO_CONTAINER', 'iommu-pt/vfio-bar/mlx5/4K'],
    ['UDMABUF', 'switch/udmabuf/mlx5/4K'],
    ['DMABUF_HEAPS_SYSTEM', 'switch/dma-heap/mlx5/4K'],
    ['INTEL_IOMMU', 'iommu/amdgpu-vram/mlx5/4K'],
    ['KPROBES', 'switch/habanalabs-hbm/mlx5/4K'],
  ] as const) {
    it(`without CONFIG_${option}: ${id} is not applicable, and says why`, () => {
      assert.doesNotMatch(word(kernelWith(), id), /^n\/a/);
      assert.match(word(kernelWith({ without: [option] }), id), new RegExp(`^n/a: .*CONFIG_${option}`));
    });
  }

  for (const [id, expected] of [
    ['iommu/vfio-bar/iommufd/64M', 'p2p'],
    ['iommu-pt/vfio-bar/iommufd/unaligned', 'p2p'],
    ['iommu-pt/amdgpu-vram/iommufd/4K', 'EOPNOTSUPP at map'],
    ['iommu/amdgpu-vram/iommufd/4K', 'EOPNOTSUPP at map'],
    ['iommu-pt/habanalabs-hbm/iommufd/4K', 'EOPNOTSUPP at map'],
    ['iommu-pt/mlx5-uar/iommufd/doorbell', 'EOPNOTSUPP at map'],
    ['iommu/mlx5-uar/iommufd/doorbell', 'EOPNOTSUPP at map'],
    ['iommu/udmabuf/iommufd/4K', 'EOPNOTSUPP at map'],
    ['iommu/dma-heap/iommufd/4K', 'EOPNOTSUPP at map'],
  ] as const) {
    it(`with iommufd: ${id} is ${expected}`, () => {
      assert.equal(word(kernelWith(), id), expected);
    });
  }

  it('has iommufd as an importer only behind an IOMMU, with the option, and from 6.19 on', () => {
    assert.match(word(kernelWith(), 'switch/vfio-bar/iommufd/4K'), /^n\/a: .*IOMMU/);
    assert.match(word(kernelWith({ without: ['IOMMUFD'] }), 'iommu/vfio-bar/iommufd/4K'), /^n\/a: .*CONFIG_IOMMUFD/);
    assert.match(word(kernelWith({ release: '6.18.1' }), 'iommu/vfio-bar/iommufd/4K'), /^n\/a: .*6\.19/);
  });

  it('moves bytes that iommufd mapped by DMA messages, with iommu=pt too: the address space is a program’s own', () => {
    const cells = generateCells(catalogue, {
      kernels: [kernelWith()],
      exporters: ['vfio-bar'],
      importers: ['iommufd'],
    });
    const ways = cells.map((cell) => expectationOf(cell)).flatMap((each) => (each.kind === 'p2p' ? [each.via] : []));
    assert.deepEqual([...new Set(ways)], ['messages']);
  });

  it('says that iommufd is no PCI device only where CONFIG_PCI_P2PDMA has it looked for', () => {
    const messageOf = (kernel: MatrixKernel) => {
      const [cell] = generateCells(catalogue, {
        kernels: [kernel],
        topologies: ['iommu-pt'],
        exporters: ['habanalabs-hbm'],
        importers: ['iommufd'],
      });
      const expectation = expectationOf(cell!);
      return expectation.kind === 'refused' ? expectation.message?.source : expectation.kind;
    };
    assert.match(messageOf(kernelWith()) ?? '', /not a PCI device/);
    assert.equal(messageOf(kernelWith({ without: ['PCI_P2PDMA', 'VFIO_PCI_DMABUF'] })), undefined);
  });

  it('cannot have habanalabs opened from 6.12 on where our module cannot be built', () => {
    const id = 'switch/habanalabs-hbm/mlx5/4K';
    assert.match(word(kernelWith({ buildTree: undefined }), id), /^n\/a: .*tree/);
    assert.doesNotMatch(word(kernelWith({ release: '6.11.2', buildTree: undefined }), id), /^n\/a/);
  });

  it('stages without CONFIG_PCI_P2PDMA, whatever its version', () => {
    const kernel = kernelWith({ without: ['PCI_P2PDMA', 'VFIO_PCI_DMABUF'] });
    assert.equal(word(kernel, 'switch/amdgpu-vram/mlx5/4K'), 'staged');
    assert.equal(word(kernel, 'iommu-pt/vfio-bar/mlx5/4K'), 'ENOTTY at export');
    assert.equal(word(kernel, 'switch/mlx5-uar/mlx5/doorbell'), 'EOPNOTSUPP at export');
  });

  it('with CONFIG_PCI_P2PDMA goes from peer to peer, be it 6.12', () => {
    const kernel = kernelWith({ release: '6.12.9', without: ['VFIO_PCI_DMABUF'] });
    assert.equal(word(kernel, 'switch/amdgpu-vram/mlx5/4K'), 'p2p');
    assert.equal(word(kernel, 'refused/habanalabs-hbm/amdgpu/4K'), 'EPERM at import');
    assert.equal(word(kernel, 'switch/mlx5-uar/mlx5/doorbell'), 'EPROTONOSUPPORT at export');
  });
});
