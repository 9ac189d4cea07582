import type { Bar, BarMemory, BarRegisters } from '../plugin/index.js';
import type { Capability } from './capability.js';
import { MSIX_ENTRY_BYTES, pendingBytes } from './msix.js';

/** QEMU maps host pages; a vfio sparse area is a multiple of them. */
export const PAGE_BYTES = 4096;

/** PCI Local Bus 3.0 §6.2.5.1: the low four bits of a memory BAR are read-only, so 16 bytes is the least. */
const MIN_MEMORY_BYTES = 16;
const MAX_MEMORY32_BYTES = 2 ** 31;
/** Bus addresses are exact below 2^53, and the BAR must be able to sit above zero. */
const MAX_MEMORY64_BYTES = 2 ** 52;
/** PCI Local Bus 3.0 §6.2.5.1: an I/O BAR asks for 4 to 256 bytes. */
const MIN_IO_BYTES = 4;
const MAX_IO_BYTES = 256;

/** Handlers see 4-byte aligned offsets as the guest does only if their part starts on one. */
const REGISTERS_ALIGNMENT = 4;

/**
 * Checks what a plugin declared: sizes, pairs, parts, the one memory region per BAR, and that the MSI-X table and pending
 * bits stay clear of mapped memory. Throws an Error that names the BAR and the value.
 */
export function validateBars(bars: readonly Bar[], capabilities: readonly Capability[] = []): void {
  const taken = new Map<number, number>();
  for (const bar of bars) {
    checkSize(bar);
    for (const index of bar.kind === 'memory64' ? [bar.index, bar.index + 1] : [bar.index]) {
      const owner = taken.get(index);
      if (owner !== undefined) fail(bar, `register ${index} already belongs to BAR ${owner}`);
      taken.set(index, bar.index);
    }
    checkParts(bar);
    checkMemoryParts(bar);
  }
  for (const { interrupts } of capabilities) {
    if (interrupts?.kind !== 'msix') continue;
    const { vectors, tableBar, tableOffset, pendingBar, pendingOffset } = interrupts;
    const table = {
      what: 'MSI-X table',
      bar: tableBar,
      start: tableOffset,
      end: tableOffset + vectors * MSIX_ENTRY_BYTES,
    };
    const pending = {
      what: 'MSI-X pending bits',
      bar: pendingBar,
      start: pendingOffset,
      end: pendingOffset + pendingBytes(vectors),
    };
    checkInterruptPages(bars, table);
    checkInterruptPages(bars, pending);
    if (tableBar === pendingBar && overlaps(table, pending)) {
      throw new Error(
        `MSI-X: table and pending bits overlap in BAR ${tableBar}; move pendingOffset to ${table.end} or above`,
      );
    }
  }
}

/** The part's start inside its memory region. */
export function memoryOffsetOf(part: BarMemory): number {
  return part.memoryOffset ?? part.offset;
}

export function isMemory(part: BarMemory | BarRegisters): part is BarMemory {
  return 'memory' in part;
}

function fail(bar: Bar, problem: string): never {
  throw new Error(`BAR ${bar.index}: ${problem}`);
}

function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value));
}

function checkSize(bar: Bar): void {
  if (!Number.isInteger(bar.index) || bar.index < 0 || bar.index > 5) fail(bar, 'index must be 0 to 5');
  if (!isPowerOfTwo(bar.sizeBytes)) fail(bar, `size ${bar.sizeBytes} is not a power of two`);
  if (bar.kind === 'io' && bar.prefetchable) fail(bar, 'I/O space cannot be prefetchable');
  if (bar.kind === 'memory64' && bar.index === 5)
    fail(bar, 'a memory64 BAR needs the next register too; use index 4 or less');
  const [min, max] =
    bar.kind === 'io'
      ? [MIN_IO_BYTES, MAX_IO_BYTES]
      : [MIN_MEMORY_BYTES, bar.kind === 'memory64' ? MAX_MEMORY64_BYTES : MAX_MEMORY32_BYTES];
  if (bar.sizeBytes < min || bar.sizeBytes > max) {
    fail(bar, `size ${bar.sizeBytes} is outside ${min} to ${max} bytes, the limits of kind ${bar.kind}`);
  }
}

function checkParts(bar: Bar): void {
  let end = 0;
  for (const part of bar.parts) {
    if (
      !Number.isSafeInteger(part.offset) ||
      !Number.isSafeInteger(part.sizeBytes) ||
      part.offset < 0 ||
      part.sizeBytes <= 0
    ) {
      fail(bar, `part at ${part.offset} of ${part.sizeBytes} bytes: use a non-negative offset and a positive size`);
    }
    if (part.offset < end)
      fail(bar, `part at 0x${part.offset.toString(16)} overlaps or precedes the one before; sort the parts`);
    end = part.offset + part.sizeBytes;
    if (end > bar.sizeBytes)
      fail(bar, `part at 0x${part.offset.toString(16)} ends at ${end}, beyond the BAR's ${bar.sizeBytes} bytes`);
    if (!isMemory(part) && (part.offset % REGISTERS_ALIGNMENT !== 0 || part.sizeBytes % REGISTERS_ALIGNMENT !== 0)) {
      fail(
        bar,
        `registers at ${part.offset} of ${part.sizeBytes} bytes: both must be multiples of ${REGISTERS_ALIGNMENT}`,
      );
    }
  }
}

function checkMemoryParts(bar: Bar): void {
  const parts = bar.parts.filter(isMemory);
  const [first] = parts;
  if (first === undefined) return;
  if (bar.kind === 'io') fail(bar, 'I/O space cannot be mapped; use registers');
  if (bar.sizeBytes < PAGE_BYTES) fail(bar, `size ${bar.sizeBytes} cannot be mapped; make it at least ${PAGE_BYTES}`);
  const shift = memoryOffsetOf(first) - first.offset;
  if (shift < 0) {
    fail(
      bar,
      `memoryOffset - offset is ${shift}; it must not be negative (a larger region costs nothing until touched)`,
    );
  }
  for (const part of parts) {
    const at = `memory at 0x${part.offset.toString(16)}`;
    const start = memoryOffsetOf(part);
    for (const [name, value] of [
      ['offset', part.offset],
      ['sizeBytes', part.sizeBytes],
      ['memoryOffset', start],
    ] as const) {
      if (value % PAGE_BYTES !== 0) fail(bar, `${at}: ${name} ${value} is not a multiple of ${PAGE_BYTES}`);
    }
    if (part.memory !== first.memory) {
      fail(
        bar,
        `${at} is in region ${part.memory.name}, an earlier part in ${first.memory.name}; a BAR can have one region`,
      );
    }
    if (start - part.offset !== shift) {
      fail(
        bar,
        `${at}: memoryOffset - offset is ${start - part.offset}, of an earlier part ${shift}; they must be equal`,
      );
    }
    if (start + part.sizeBytes > part.memory.sizeBytes) {
      fail(
        bar,
        `${at} ends at ${start + part.sizeBytes} of region ${part.memory.name}, which has ${part.memory.sizeBytes} bytes`,
      );
    }
  }
}

interface InterruptStructure {
  readonly what: string;
  readonly bar: number;
  readonly start: number;
  readonly end: number;
}

function overlaps(a: { start: number; end: number }, b: { start: number; end: number }): boolean {
  return a.start < b.end && b.start < a.end;
}

/** QEMU lays its table over the BAR below our mapping: whatever of it lies in mapped pages would never trap. */
function checkInterruptPages(bars: readonly Bar[], structure: InterruptStructure): void {
  const bar = bars.find(({ index }) => index === structure.bar);
  if (bar === undefined || bar.kind === 'io') {
    throw new Error(
      `${structure.what}: BAR ${structure.bar} is ${bar === undefined ? 'not declared' : 'I/O space'}; name a memory BAR`,
    );
  }
  if (structure.end > bar.sizeBytes) {
    fail(bar, `${structure.what} ends at ${structure.end}, beyond the BAR's ${bar.sizeBytes} bytes`);
  }
  const pages = {
    start: Math.floor(structure.start / PAGE_BYTES) * PAGE_BYTES,
    end: Math.ceil(structure.end / PAGE_BYTES) * PAGE_BYTES,
  };
  for (const part of bar.parts) {
    if (isMemory(part) && overlaps(pages, { start: part.offset, end: part.offset + part.sizeBytes })) {
      fail(
        bar,
        `${structure.what} shares a page with memory at 0x${part.offset.toString(16)}; give it pages of its own`,
      );
    }
  }
}
