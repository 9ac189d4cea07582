/**
 * The matrix as data: who exports, who imports, how much, in which machine. What to expect of a cell is said in `expectation.ts`, by
 * rules about the properties that are declared here; nothing is written down per cell.
 */
import type { Topology } from '../qemu/index.js';
import { type DebianKernel, type DriverName, debianKernels, type KernelTraits, type MatrixKernel } from './kernels.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Who takes part in every machine. The order gives the names: gpu0, gpu1, habana0, rdma0p0, rdma0p1, example0, example1. */
export const devices: readonly string[] = [
  'gpu,vram=256M',
  'gpu,vram=256M',
  'habana',
  'rdma,functions=2',
  'example,memory=128M',
  'example',
];

/** plugins/example/function.ts MEMORY_BAR. */
const EXAMPLE_MEMORY_BAR = 2;

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
  /** Without it, this exporter does not exist. */
  readonly driver: DriverName;
  /** What lies behind the dma-buf: bytes, or a page of registers of which one is a doorbell. */
  readonly content: 'memory' | 'doorbell';
  /** The memory lives as long as the dma-buf; otherwise it is revoked when the exporter closes its device. */
  readonly outlives: boolean;
  /** The program and its arguments, before those of the importer. */
  command(places: GuestPlaces, exportBytes: number): readonly string[];
}

export const exporters: readonly Exporter[] = [
  {
    name: 'amdgpu-vram',
    title: 'amdgpu VRAM',
    driver: 'amdgpu',
    functionName: 'gpu0',
    content: 'memory',
    outlives: true,
    command: ({ address }, bytes) => ['export-vram', address('gpu0'), String(bytes)],
  },
  {
    name: 'habanalabs-hbm',
    title: 'habanalabs HBM',
    driver: 'habanalabs',
    functionName: 'habana0',
    content: 'memory',
    outlives: true,
    command: (_, bytes) => ['export-hbm', '0', String(bytes)],
  },
  {
    name: 'vfio-bar',
    title: 'vfio-pci BAR',
    driver: 'vfio-pci',
    functionName: 'example0',
    content: 'memory',
    // vfio_pci_dma_buf_cleanup, when the device is closed.
    outlives: false,
    command: ({ address }, bytes) => ['export-bar', address('example0'), String(EXAMPLE_MEMORY_BAR), String(bytes)],
  },
  {
    name: 'mlx5-uar',
    title: 'mlx5 doorbell page',
    driver: 'mlx5',
    functionName: 'rdma0p1',
    content: 'doorbell',
    outlives: false,
    command: ({ rdmaDevice }) => ['export-uar', rdmaDevice('rdma0p1')],
  },
  {
    name: 'udmabuf',
    title: 'udmabuf',
    driver: 'udmabuf',
    content: 'memory',
    outlives: true,
    command: (_, bytes) => ['export-memory', 'udmabuf', String(bytes)],
  },
  {
    name: 'dma-heap',
    title: 'dma-heap',
    driver: 'dma-heap',
    content: 'memory',
    outlives: true,
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
  /** Writes of registers, of up to 8 bytes each. */
  readonly rings: number;
}

export interface Importer {
  readonly name: string;
  readonly title: string;
  /** Without it, this importer does not exist. */
  readonly driver: DriverName;
  /** The function that accesses the dma-buf. */
  readonly functionName: string;
  command(places: GuestPlaces, size: Size): readonly string[];
  /** At most so many bytes of rings, indirect buffers, fences, completion and event entries go to and from guest memory. */
  readonly ringBytes: number;
  /** What the function copies from and to: memory of its own or of another function, or the guest's, where the payload is then counted. */
  readonly ownEnd: 'function' | 'guest-memory';
  /** How often the program reads all of its part of the dma-buf, writes it, and what it does to single words. */
  readonly transfers: readonly Transfer[];
}

type Transfer = readonly [name: string, kind: 'read' | 'write' | 'read-word' | 'write-word' | 'atomic'];

const ATOMIC_BYTES = 8;

/** What an importer's program does with an exporter's buffer, in its order. */
export function stepsOf({ exporter, importer, size }: Pick<Cell, 'exporter' | 'importer' | 'size'>): Step[] {
  if (exporter.content === 'doorbell') return [{ name: 'ring', bytes: size.bytes, reads: 0, writes: 0, rings: 1 }];
  const steps = importer.transfers.map(([name, kind]) => stepOf(name, kind, size.bytes));
  // The exporter has let go of the buffer: the importer looks once more.
  const lastLook = size.teardown === 'exporter-first' && exporter.outlives;
  return lastLook ? [...steps, stepOf('read', 'read', size.bytes)] : steps;
}

function stepOf(name: string, kind: Transfer[1], wholeBytes: number): Step {
  const bytes = kind === 'read' || kind === 'write' ? wholeBytes : ATOMIC_BYTES;
  const reads = kind === 'write' || kind === 'write-word' ? 0 : bytes;
  const writes = kind === 'read' || kind === 'read-word' ? 0 : bytes;
  return { name, bytes, reads, writes, rings: 0 };
}

const taskOf = ({ offset, bytes, teardown }: Size) => [String(offset), String(bytes), teardown];

const copies: readonly Transfer[] = [
  ['read', 'read'],
  ['write', 'write'],
];

const verbs: readonly Transfer[] = [
  ['read', 'read'],
  ['write', 'write'],
  ['send', 'read'],
  ['receive', 'write'],
  ['fetch-add', 'atomic'],
  ['compare-swap', 'atomic'],
  ['read-word', 'read-word'],
  ['atomic-answer', 'write-word'],
];

const rdmaCommand = ({ rdmaDevice }: GuestPlaces, size: Size, ...flags: readonly string[]) => [
  ...['import-rdma', ...flags],
  ...[rdmaDevice('rdma0p0'), rdmaDevice('rdma0p1'), ...taskOf(size)],
];

export const importers: readonly Importer[] = [
  {
    name: 'amdgpu',
    title: 'amdgpu (SDMA)',
    driver: 'amdgpu',
    functionName: 'gpu1',
    ringBytes: 48 * KIB,
    ownEnd: 'function',
    command: ({ address }, size) => ['import-gpu', address('gpu1'), String(size.exportBytes), ...taskOf(size)],
    transfers: copies,
  },
  {
    name: 'mlx5',
    title: 'mlx5, on demand',
    driver: 'mlx5',
    functionName: 'rdma0p0',
    ringBytes: 16 * KIB,
    // Its peer reads and writes the guest's memory, it does not.
    ownEnd: 'function',
    command: (places, size) => rdmaCommand(places, size),
    transfers: verbs,
  },
  {
    name: 'mlx5-pinned',
    title: 'mlx5, pinned',
    driver: 'mlx5',
    functionName: 'rdma0p0',
    ringBytes: 16 * KIB,
    // Its peer reads and writes the guest's memory, it does not.
    ownEnd: 'function',
    command: (places, size) => rdmaCommand(places, size, '--pinned'),
    transfers: verbs,
  },
  {
    name: 'iommufd',
    title: 'iommufd (vfio-pci)',
    driver: 'iommufd',
    functionName: 'example1',
    ringBytes: 1 * KIB,
    ownEnd: 'guest-memory',
    command: ({ address }, size) => ['import-iommufd', address('example1'), ...taskOf(size)],
    transfers: copies,
  },
];

/** How much of an export is used, and what is taken down first. */
export interface Size {
  readonly name: string;
  readonly exportBytes: number;
  readonly offset: number;
  readonly bytes: number;
  /** What is taken down first; `ring`: nothing but the doorbell is touched. */
  readonly teardown: 'importer-first' | 'exporter-first' | 'fd-first' | 'ring';
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
  // include/linux/mlx5/doorbell.h MLX5_BF_OFFSET.
  { name: 'doorbell', exportBytes: 4 * KIB, offset: 0x800, bytes: 8, teardown: 'ring' },
];

/** The sizes that make sense for what an exporter has. */
function sizesFor({ content }: Exporter): Size[] {
  return sizes.filter(({ teardown }) => (teardown === 'ring') === (content === 'doorbell'));
}

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
  /** `latest/switch/amdgpu-vram/mlx5/2M`; a user's kernel appears as its release. */
  readonly id: string;
  /** `lts`, `latest`, or the path of a kernel of the user's own. */
  readonly kernel: string;
  readonly traits: KernelTraits;
  readonly topology: TopologyPlan;
  readonly exporter: Exporter;
  readonly importer: Importer;
  readonly size: Size;
}

export interface Selection {
  /** Default: both of Debian's. */
  readonly kernels?: readonly (DebianKernel | MatrixKernel)[];
  readonly topologies?: readonly string[];
  readonly exporters?: readonly string[];
  readonly importers?: readonly string[];
  readonly sizes?: readonly string[];
}

/** Every combination, those of one boot together. */
export function generateCells({ kernels = ['lts', 'latest'], ...names }: Selection = {}): Cell[] {
  return kernels
    .map((kernel) => (typeof kernel === 'string' ? debianKernels[kernel] : kernel))
    .flatMap(({ choice, label, traits }) =>
      chosen(topologies, names.topologies).flatMap((topology) =>
        chosen(exporters, names.exporters).flatMap((exporter) =>
          chosen(importers, names.importers).flatMap((importer) =>
            chosen(sizesFor(exporter), names.sizes).map((size) => ({
              id: [label, topology.name, exporter.name, importer.name, size.name].join('/'),
              kernel: choice,
              traits,
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
