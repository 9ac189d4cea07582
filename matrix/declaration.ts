/**
 * The matrix as data: who exports, who imports, how much, in which machine. What to expect of a cell is said in `expectation.ts`, by
 * rules about the properties that are declared here; nothing is written down per cell.
 */
import type { Topology } from '../qemu/index.js';

export const kernels = ['lts', 'latest'] as const;
export type KernelName = (typeof kernels)[number];

const KIB = 1024;
const MIB = 1024 * KIB;

/** Who takes part in every machine. The order gives the names: gpu0, gpu1, habana0, rdma0p0, rdma0p1, example0. */
export const devices: readonly string[] = [
  'gpu,vram=256M',
  'gpu,vram=256M',
  'habana',
  'rdma,functions=2',
  'example,memory=128M',
];

/** Places in the guest that a command line needs. Addresses as `0000:01:00.0`. */
export interface GuestPlaces {
  readonly address: (functionName: string) => string;
  /** Name of the RDMA device, such as `mlx5_0`, of a function. */
  readonly rdmaDevice: (functionName: string) => string;
}

export interface Exporter {
  readonly name: string;
  readonly title: string;
  /** Whose memory it is; undefined: the guest's. */
  readonly functionName?: string;
  /** What lies behind the dma-buf: bytes, or registers that do something when written. */
  readonly content: 'memory' | 'registers';
  /** The program and its arguments, before those of the importer. */
  command(places: GuestPlaces, exportBytes: number): readonly string[];
}

export const exporters: readonly Exporter[] = [
  {
    name: 'amdgpu-vram',
    title: 'amdgpu VRAM',
    functionName: 'gpu0',
    content: 'memory',
    command: ({ address }, bytes) => ['export-vram', address('gpu0'), String(bytes)],
  },
  {
    name: 'habanalabs-hbm',
    title: 'habanalabs HBM',
    functionName: 'habana0',
    content: 'memory',
    command: (_, bytes) => ['export-hbm', '0', String(bytes)],
  },
  {
    name: 'udmabuf',
    title: 'udmabuf',
    content: 'memory',
    command: (_, bytes) => ['export-memory', 'udmabuf', String(bytes)],
  },
  {
    name: 'dma-heap',
    title: 'dma-heap',
    content: 'memory',
    command: (_, bytes) => ['export-memory', 'heap', String(bytes)],
  },
];

/** One transfer that an importer makes: whose bytes, as seen from the importing function. */
export interface Step {
  readonly name: string;
  readonly bytes: number;
  /** Bytes that the importing function reads from, and writes to, the dma-buf. */
  readonly reads: number;
  readonly writes: number;
}

export interface Importer {
  readonly name: string;
  readonly title: string;
  /** The function that accesses the dma-buf. */
  readonly functionName: string;
  command(places: GuestPlaces, size: Size): readonly string[];
  /** What the program does, in its order. */
  steps(size: Size): readonly Step[];
}

const read = (name: string, bytes: number): Step => ({ name, bytes, reads: bytes, writes: 0 });
const write = (name: string, bytes: number): Step => ({ name, bytes, reads: 0, writes: bytes });
const atomic = (name: string): Step => ({ name, bytes: 8, reads: 8, writes: 8 });

const taskOf = ({ offset, bytes, teardown }: Size) => [String(offset), String(bytes), teardown];
/** The exporter has let go of the buffer: the importer looks once more. */
const lastLook = (size: Size) => (size.teardown === 'exporter-first' ? [read('read', size.bytes)] : []);

export const importers: readonly Importer[] = [
  {
    name: 'amdgpu',
    title: 'amdgpu (SDMA)',
    functionName: 'gpu1',
    command: ({ address }, size) => ['import-gpu', address('gpu1'), String(size.exportBytes), ...taskOf(size)],
    steps: (size) => [read('read', size.bytes), write('write', size.bytes), ...lastLook(size)],
  },
  {
    name: 'mlx5',
    title: 'mlx5 (ibv_reg_dmabuf_mr)',
    functionName: 'rdma0p0',
    command: ({ rdmaDevice }, size) => ['import-rdma', rdmaDevice('rdma0p0'), rdmaDevice('rdma0p1'), ...taskOf(size)],
    steps: (size) => [
      read('read', size.bytes),
      write('write', size.bytes),
      read('send', size.bytes),
      write('receive', size.bytes),
      atomic('fetch-add'),
      atomic('compare-swap'),
      read('read-word', 8),
      write('atomic-answer', 8),
      ...lastLook(size),
    ],
  },
];

/** How much of an export is used, and what is taken down first. */
export interface Size {
  readonly name: string;
  readonly exportBytes: number;
  readonly offset: number;
  readonly bytes: number;
  readonly teardown: 'importer-first' | 'exporter-first' | 'fd-first';
}

const whole = (name: string, exportBytes: number, teardown: Size['teardown']): Size => ({
  name,
  exportBytes,
  offset: 0,
  bytes: exportBytes,
  teardown,
});

export const sizes: readonly Size[] = [
  whole('4K', 4 * KIB, 'fd-first'),
  whole('64K', 64 * KIB, 'exporter-first'),
  whole('2M', 2 * MIB, 'importer-first'),
  whole('2M+4K', 2 * MIB + 4 * KIB, 'fd-first'),
  whole('64M', 64 * MIB, 'exporter-first'),
  { name: 'unaligned', exportBytes: 64 * KIB, offset: 4168, bytes: 57_352, teardown: 'importer-first' },
];

export interface TopologyPlan {
  readonly name: string;
  readonly title: string;
  readonly topology: Topology;
  /** QEMU's CPU model; both are AMD's, but only EPYC's family is one that pci_p2pdma trusts. */
  readonly cpu: 'EPYC' | 'qemu64';
  readonly iommu: 'none' | 'passthrough' | 'translating';
}

export const topologies: readonly TopologyPlan[] = [
  { name: 'host-bridge', title: 'host bridge, EPYC', topology: 'root-ports', cpu: 'EPYC', iommu: 'none' },
  { name: 'switch', title: 'one switch', topology: 'switch', cpu: 'qemu64', iommu: 'none' },
  { name: 'acs', title: 'ACS redirect, EPYC', topology: 'switch-acs', cpu: 'EPYC', iommu: 'none' },
  { name: 'acs-refused', title: 'ACS redirect, qemu64', topology: 'switch-acs', cpu: 'qemu64', iommu: 'none' },
  { name: 'refused', title: 'host bridge, qemu64', topology: 'root-ports', cpu: 'qemu64', iommu: 'none' },
  { name: 'iommu-pt', title: 'vIOMMU, iommu=pt', topology: 'root-ports', cpu: 'EPYC', iommu: 'passthrough' },
  { name: 'iommu', title: 'vIOMMU, translating', topology: 'root-ports', cpu: 'EPYC', iommu: 'translating' },
];

/** One square of the table. */
export interface Cell {
  /** `latest/switch/amdgpu-vram/mlx5/2M`. */
  readonly id: string;
  readonly kernel: KernelName;
  readonly topology: TopologyPlan;
  readonly exporter: Exporter;
  readonly importer: Importer;
  readonly size: Size;
}

export interface Selection {
  readonly kernels?: readonly string[];
  readonly topologies?: readonly string[];
  readonly exporters?: readonly string[];
  readonly importers?: readonly string[];
  readonly sizes?: readonly string[];
}

/** Every combination, those of one boot together. */
export function generateCells(selection: Selection = {}): Cell[] {
  const { kernels: wantedKernels, ...names } = selection;
  return kernels
    .filter((kernel) => wantedKernels?.includes(kernel) ?? true)
    .flatMap((kernel) =>
      chosen(topologies, names.topologies).flatMap((topology) =>
        chosen(exporters, names.exporters).flatMap((exporter) =>
          chosen(importers, names.importers).flatMap((importer) =>
            chosen(sizes, names.sizes).map((size) => ({
              id: [kernel, topology.name, exporter.name, importer.name, size.name].join('/'),
              kernel,
              topology,
              exporter,
              importer,
              size,
            })),
          ),
        ),
      ),
    );
}

function chosen<T extends { readonly name: string }>(all: readonly T[], names: readonly string[] | undefined): T[] {
  return all.filter(({ name }) => names?.includes(name) ?? true);
}
