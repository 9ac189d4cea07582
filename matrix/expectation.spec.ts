import assert from 'node:assert/strict';
import { type Cell, generateCells } from './cells.js';
import { expectationOf, peerRoute } from './expectation.js';
import { debianKernels } from './kernels.js';
import { builtIn as catalogue } from './test/made-up.js';
import { topologies } from './topologies.js';

function cellOf(id: string): Cell {
  const cell = generateCells(catalogue).find((candidate) => candidate.id === id);
  assert.ok(cell, `no cell ${id}`);
  return cell;
}

/** The outcome in a word, as the table would have it. */
function word(id: string): string {
  const expectation = expectationOf(cellOf(id));
  switch (expectation.kind) {
    case 'p2p':
      return `P2P by ${expectation.via}`;
    case 'refused':
      return `${expectation.errno} at ${expectation.at}`;
    default:
      return expectation.kind;
  }
}

describe('the matrix’s expectations', () => {
  it('gives every cell one, with a reason', () => {
    for (const cell of generateCells(catalogue)) assert.ok(expectationOf(cell).because.length > 10, cell.id);
  });

  it('knows no peer-to-peer on 6.12', () => {
    for (const plan of topologies) assert.equal(peerRoute(debianKernels.lts, plan).kind, 'none');
    const kinds = new Set(generateCells(catalogue, { kernels: ['lts'] }).map((cell) => expectationOf(cell).kind));
    assert.ok(!kinds.has('p2p'));
  });

  it('routes as pci_p2pdma does', () => {
    const routes = topologies.map((plan) => [plan.name, peerRoute(debianKernels.latest, plan).kind]);
    assert.deepEqual(routes, [
      ['host-bridge', 'host-bridge'],
      ['switch', 'bus-address'],
      ['acs', 'host-bridge'],
      ['acs-refused', 'none'],
      ['refused', 'none'],
      ['iommu-pt', 'host-bridge'],
      ['iommu', 'host-bridge'],
    ]);
  });

  for (const [id, expected] of [
    ['latest/host-bridge/amdgpu-vram/mlx5/2M', 'P2P by fabric'],
    ['latest/iommu/amdgpu-vram/mlx5/2M', 'P2P by messages'],
    ['latest/iommu-pt/habanalabs-hbm/amdgpu/4K', 'P2P by fabric'],
    ['latest/refused/amdgpu-vram/amdgpu/4K', 'staged'],
    ['latest/refused/habanalabs-hbm/mlx5/4K', 'EPERM at register'],
    ['latest/refused/habanalabs-hbm/amdgpu/4K', 'EPERM at job'],
    ['lts/host-bridge/habanalabs-hbm/amdgpu/4K', 'EPERM at import'],
    ['lts/switch/amdgpu-vram/mlx5/4K', 'staged'],
    ['latest/switch/udmabuf/mlx5/4K', 'staged'],
    ['latest/switch/vfio-bar/mlx5/4K', 'not-applicable'],
    ['latest/iommu/vfio-bar/mlx5/4K', 'P2P by messages'],
    ['lts/iommu/vfio-bar/mlx5/4K', 'ENOTTY at export'],
    ['latest/iommu/habanalabs-hbm/mlx5/4K', 'not-applicable'],
    ['latest/iommu/mlx5-uar/mlx5/doorbell', 'not-applicable'],
    ['latest/iommu-pt/mlx5-uar/mlx5/doorbell', 'P2P by fabric'],
    ['lts/iommu/mlx5-uar/mlx5/doorbell', 'EPROTONOSUPPORT at export'],
    ['latest/iommu/vfio-bar/iommufd/4K', 'not-applicable'],
    ['lts/switch/mlx5-uar/amdgpu/doorbell', 'EPROTONOSUPPORT at export'],
    ['latest/refused/mlx5-uar/amdgpu/doorbell', 'EINVAL at job'],
    ['latest/switch/mlx5-uar/amdgpu/doorbell', 'P2P by fabric'],
    ['latest/switch/udmabuf/mlx5-pinned/4K', 'EINVAL at register'],
    ['latest/switch/udmabuf/mlx5-pinned/unaligned', 'EOPNOTSUPP at register'],
  ] as const) {
    it(`${id}: ${expected}`, () => {
      assert.equal(word(id), expected);
    });
  }
});
