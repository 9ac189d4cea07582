import type { Capability, InterruptCapability } from './capability.js';
import { MSIX_ENTRY_BYTES, pendingBytes } from './msix.js';

/** One base address register, as configuration space shows it: what stays over resets. */
export interface BarShape {
  readonly index: 0 | 1 | 2 | 3 | 4 | 5;
  readonly kind: 'memory32' | 'memory64' | 'io';
  readonly prefetchable?: boolean;
  /** A power of two. A memory64 BAR also takes the next index. */
  readonly sizeBytes: number;
}

/** PCI Local Bus 3.0 §6.2.5.1: the low four bits of a memory BAR are read-only, so 16 bytes is the least. */
const MIN_MEMORY_BYTES = 16;
const MAX_MEMORY32_BYTES = 2 ** 31;
/** Bus addresses are exact below 2^53, and the BAR must be able to sit above zero. */
const MAX_MEMORY64_BYTES = 2 ** 52;
/** PCI Local Bus 3.0 §6.2.5.1: an I/O BAR asks for 4 to 256 bytes. */
const MIN_IO_BYTES = 4;
const MAX_IO_BYTES = 256;

/**
 * Checks what a function declared: sizes, pairs, and that each MSI-X table and its pending bits have a place.
 * Throws an Error that names the BAR and the value.
 */
export function validateBarShapes(bars: readonly BarShape[], capabilities: readonly Capability[] = []): void {
  const taken = new Map<number, number>();
  for (const bar of bars) {
    checkSize(bar);
    for (const index of bar.kind === 'memory64' ? [bar.index, bar.index + 1] : [bar.index]) {
      const owner = taken.get(index);
      if (owner !== undefined) failBar(bar, `register ${index} already belongs to BAR ${owner}`);
      taken.set(index, bar.index);
    }
  }
  for (const { interrupts } of capabilities) {
    if (interrupts?.kind === 'msix') checkInterruptStructures(bars, interrupts);
  }
}

/** Ends a check of what a device declared. */
export function failBar(bar: Pick<BarShape, 'index'>, problem: string): never {
  throw new Error(`BAR ${bar.index}: ${problem}`);
}

/** The MSI-X table or its pending bits: where in which BAR. */
export interface InterruptStructure {
  readonly what: string;
  readonly bar: number;
  readonly start: number;
  readonly end: number;
}

/** The table and the pending bits of a function with MSI-X. */
export function interruptStructures(interrupts: InterruptCapability): InterruptStructure[] {
  if (interrupts.kind !== 'msix') return [];
  const { vectors, tableBar, tableOffset, pendingBar, pendingOffset } = interrupts;
  return [
    { what: 'MSI-X table', bar: tableBar, start: tableOffset, end: tableOffset + vectors * MSIX_ENTRY_BYTES },
    {
      what: 'MSI-X pending bits',
      bar: pendingBar,
      start: pendingOffset,
      end: pendingOffset + pendingBytes(vectors),
    },
  ];
}

export function overlaps(a: { start: number; end: number }, b: { start: number; end: number }): boolean {
  return a.start < b.end && b.start < a.end;
}

function checkInterruptStructures(bars: readonly BarShape[], interrupts: InterruptCapability): void {
  const [table, pending] = interruptStructures(interrupts);
  for (const structure of [table!, pending!]) {
    const bar = bars.find(({ index }) => index === structure.bar);
    if (bar === undefined || bar.kind === 'io') {
      const problem = bar === undefined ? 'not declared' : 'I/O space';
      throw new Error(`${structure.what}: BAR ${structure.bar} is ${problem}; name a memory BAR`);
    }
    if (structure.end > bar.sizeBytes) {
      failBar(bar, `${structure.what} ends at ${structure.end}, beyond the BAR's ${bar.sizeBytes} bytes`);
    }
  }
  if (table!.bar === pending!.bar && overlaps(table!, pending!)) {
    throw new Error(
      `MSI-X: table and pending bits overlap in BAR ${table!.bar}; move pendingOffset to ${table!.end} or above`,
    );
  }
}

function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value));
}

function checkSize(bar: BarShape): void {
  if (!Number.isInteger(bar.index) || bar.index < 0 || bar.index > 5) failBar(bar, 'index must be 0 to 5');
  if (!isPowerOfTwo(bar.sizeBytes)) failBar(bar, `size ${bar.sizeBytes} is not a power of two`);
  if (bar.kind === 'io' && bar.prefetchable) failBar(bar, 'I/O space cannot be prefetchable');
  if (bar.kind === 'memory64' && bar.index === 5)
    failBar(bar, 'a memory64 BAR needs the next register too; use index 4 or less');
  const [min, max] =
    bar.kind === 'io'
      ? [MIN_IO_BYTES, MAX_IO_BYTES]
      : [MIN_MEMORY_BYTES, bar.kind === 'memory64' ? MAX_MEMORY64_BYTES : MAX_MEMORY32_BYTES];
  if (bar.sizeBytes < min || bar.sizeBytes > max) {
    failBar(bar, `size ${bar.sizeBytes} is outside ${min} to ${max} bytes, the limits of kind ${bar.kind}`);
  }
}
