/**
 * The cells: every kernel, machine, exporter, importer and size with every other. What to expect of one is said by
 * `expectation.ts`.
 */
import type { Exporter, Importer, ImportTask, Transfer } from '../emulator/plugin/index.js';
import type { DebianKernel } from '../qemu/index.js';
import type { MatrixCatalogue } from './catalogue.js';
import { debianKernels, type MatrixKernel } from './kernels.js';
import { type TopologyPlan, topologies } from './topologies.js';

const KIB = 1024;
const MIB = 1024 * KIB;
export const PAGE_BYTES = 4 * KIB;

/** How much of an export is used, and what is taken down first. */
export interface Size extends ImportTask {
  readonly name: string;
}

const whole = (name: string, exportBytes: number, teardown: Size['teardown']): Size => ({
  name,
  exportBytes,
  offset: 0,
  bytes: exportBytes,
  teardown,
});

const sizesOfMemory: readonly Size[] = [
  whole('4K', 4 * KIB, 'fd-first'),
  whole('64K', 64 * KIB, 'exporter-first'),
  whole('2M', 2 * MIB, 'importer-first'),
  whole('2M+4K', 2 * MIB + 4 * KIB, 'fd-first'),
  whole('64M', 64 * MIB, 'exporter-first'),
  { name: 'unaligned', exportBytes: 64 * KIB, offset: 4168, bytes: 57_352, teardown: 'importer-first' },
];
const DOORBELL = 'doorbell';

export const sizeNames: readonly string[] = [...sizesOfMemory.map(({ name }) => name), DOORBELL];

/** The sizes that make sense for what an exporter has. */
function sizesFor({ doorbell, largestBytes = Number.POSITIVE_INFINITY }: Exporter): Size[] {
  if (doorbell !== undefined) return [{ name: DOORBELL, exportBytes: PAGE_BYTES, ...doorbell, teardown: 'ring' }];
  return sizesOfMemory.filter(({ exportBytes }) => exportBytes <= largestBytes);
}

/** One square of the table. */
export interface Cell {
  /** `latest/switch/udmabuf/NAME/2M`; a user's kernel appears as its release. */
  readonly id: string;
  readonly kernel: MatrixKernel;
  readonly topology: TopologyPlan;
  readonly exporter: Exporter;
  readonly importer: Importer;
  readonly size: Size;
}

interface Selection {
  /** Default: both of Debian's. */
  readonly kernels?: readonly (DebianKernel | MatrixKernel)[];
  readonly topologies?: readonly string[];
  readonly exporters?: readonly string[];
  readonly importers?: readonly string[];
  readonly sizes?: readonly string[];
}

/** Every combination of what takes part, those of one boot together. */
export function generateCells(
  { exporters, importers }: Pick<MatrixCatalogue, 'exporters' | 'importers'>,
  { kernels = ['lts', 'latest'], ...names }: Selection = {},
): Cell[] {
  const parts = kernels
    .map((kernel) => (typeof kernel === 'string' ? debianKernels[kernel] : kernel))
    .flatMap((kernel) => chosen(topologies, names.topologies).map((topology) => ({ kernel, topology })))
    .flatMap((part) => chosen(exporters, names.exporters).map((exporter) => ({ ...part, exporter })))
    .flatMap((part) => chosen(importers, names.importers).map((importer) => ({ ...part, importer })))
    .flatMap((part) => chosen(sizesFor(part.exporter), names.sizes).map((size) => ({ ...part, size })));
  return parts.map((part) => ({ id: nameOf(part), ...part }));
}

function nameOf({ kernel, topology, exporter, importer, size }: Omit<Cell, 'id'>): string {
  return [kernel.label, topology.name, exporter.name, importer.name, size.name].join('/');
}

function chosen<T extends { readonly name: string }>(all: readonly T[], names: readonly string[] | undefined): T[] {
  return all.filter(({ name }) => names?.includes(name) ?? true);
}

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

/** Bytes of a word of dmabuf-kit.h, on which atomic operations work too. */
const WORD_BYTES = 8;

/** What an importer's program does with an exporter's buffer, in its order. */
export function stepsOf({ exporter, importer, size }: Pick<Cell, 'exporter' | 'importer' | 'size'>): Step[] {
  if (exporter.doorbell !== undefined) return [{ name: 'ring', bytes: size.bytes, reads: 0, writes: 0, rings: 1 }];
  const steps = importer.transfers.map(([name, kind]) => stepOf(name, kind, size.bytes));
  // The exporter has let go of the buffer: the importer looks once more.
  const lastLook = size.teardown === 'exporter-first' && exporter.outlives;
  return lastLook ? [...steps, stepOf('read', 'read', size.bytes)] : steps;
}

function stepOf(name: string, kind: Transfer[1], wholeBytes: number): Step {
  const bytes = kind === 'read' || kind === 'write' ? wholeBytes : WORD_BYTES;
  const reads = kind === 'write' || kind === 'write-word' ? 0 : bytes;
  const writes = kind === 'read' || kind === 'read-word' ? 0 : bytes;
  return { name, bytes, reads, writes, rings: 0 };
}
