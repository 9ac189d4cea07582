import { requireBacked } from '../memory/region.js';
import type { MemoryPart } from '../memory/windows.js';
import { type BarShape, failBar, interruptStructures, overlaps } from './bar.js';
import type { Capability } from './capability.js';
import type { RegisterHandler } from './register-handler.js';

/** A part of a BAR that is plain memory: QEMU maps it into the guest, accesses never trap. */
export type BarMemory = MemoryPart;

/** A part of a BAR where accesses trap into a {@link RegisterHandler}. */
export interface BarRegisters {
  readonly offset: number;
  readonly sizeBytes: number;
  readonly registers: RegisterHandler;
}

/**
 * What lies behind one BAR. The parts are sorted and do not overlap; memory parts are multiples of 4 KiB, all lie in
 * one memory region per BAR (a vfio region has one file) and share one value of `memoryOffset - offset`. Addresses
 * outside every part read as zero, drop writes and are counted as unimplemented.
 */
export type BarParts = readonly (BarMemory | BarRegisters)[];

/** QEMU maps host pages; a vfio sparse area is a multiple of them. */
const PAGE_BYTES = 4096;

/** Handlers see 4-byte aligned offsets as the guest does only if their part starts on one. */
const REGISTERS_ALIGNMENT = 4;

/**
 * Checks what a model put behind a BAR: that the parts fit, the one memory region, and that the MSI-X table and pending
 * bits stay clear of mapped memory. Throws an Error that names the BAR and the value.
 */
export function validateBarParts(bar: BarShape, parts: BarParts, capabilities: readonly Capability[] = []): void {
  checkParts(bar, parts);
  checkMemoryParts(bar, parts);
  for (const { interrupts } of capabilities) {
    if (interrupts !== undefined) checkInterruptPages(bar, parts, interrupts);
  }
}

/** The part's start inside its memory region. */
export function memoryOffsetOf(part: BarMemory): number {
  return part.memoryOffset ?? part.offset;
}

export function isMemory(part: BarMemory | BarRegisters): part is BarMemory {
  return (part as Partial<BarMemory>).memory !== undefined;
}

function checkParts(bar: BarShape, parts: BarParts): void {
  let end = 0;
  for (const part of parts) {
    if (
      !Number.isSafeInteger(part.offset) ||
      !Number.isSafeInteger(part.sizeBytes) ||
      part.offset < 0 ||
      part.sizeBytes <= 0
    ) {
      failBar(bar, `part at ${part.offset} of ${part.sizeBytes} bytes: use a non-negative offset and a positive size`);
    }
    if (part.offset < end)
      failBar(bar, `part at 0x${part.offset.toString(16)} overlaps or precedes the one before; sort the parts`);
    end = part.offset + part.sizeBytes;
    if (end > bar.sizeBytes)
      failBar(bar, `part at 0x${part.offset.toString(16)} ends at ${end}, beyond the BAR's ${bar.sizeBytes} bytes`);
    checkContents(bar, part);
    if (!isMemory(part) && (part.offset % REGISTERS_ALIGNMENT !== 0 || part.sizeBytes % REGISTERS_ALIGNMENT !== 0)) {
      failBar(
        bar,
        `registers at ${part.offset} of ${part.sizeBytes} bytes: both must be multiples of ${REGISTERS_ALIGNMENT}`,
      );
    }
  }
}

function checkContents(bar: BarShape, part: BarMemory | BarRegisters): void {
  if (isMemory(part)) return;
  const { registers } = part as Partial<BarRegisters>;
  const at = `part at 0x${part.offset.toString(16)}`;
  if (registers === undefined) failBar(bar, `${at} has neither memory nor registers; give one of them`);
  if (typeof registers?.read !== 'function' || typeof registers.write !== 'function') {
    failBar(bar, `registers of the ${at} have no read and write; use a RegisterBlock, or an object with both`);
  }
}

function checkMemoryParts(bar: BarShape, parts: BarParts): void {
  const memories = parts.filter(isMemory);
  const [first] = memories;
  if (first === undefined) return;
  if (bar.kind === 'io') failBar(bar, 'I/O space cannot be mapped; use registers');
  if (bar.sizeBytes < PAGE_BYTES)
    failBar(bar, `size ${bar.sizeBytes} cannot be mapped; make it at least ${PAGE_BYTES}`);
  const shift = memoryOffsetOf(first) - first.offset;
  if (shift < 0) {
    failBar(
      bar,
      `memoryOffset - offset is ${shift}; it must not be negative (a larger region costs nothing until touched)`,
    );
  }
  for (const part of memories) {
    const at = `memory at 0x${part.offset.toString(16)}`;
    requireBacked(part.memory, `BAR ${bar.index}: ${at}`);
    const start = memoryOffsetOf(part);
    for (const [name, value] of [
      ['offset', part.offset],
      ['sizeBytes', part.sizeBytes],
      ['memoryOffset', start],
    ] as const) {
      if (value % PAGE_BYTES !== 0) failBar(bar, `${at}: ${name} ${value} is not a multiple of ${PAGE_BYTES}`);
    }
    if (part.memory !== first.memory) {
      failBar(
        bar,
        `${at} is in region ${part.memory.name}, an earlier part in ${first.memory.name}; a BAR can have one region`,
      );
    }
    if (start - part.offset !== shift) {
      failBar(
        bar,
        `${at}: memoryOffset - offset is ${start - part.offset}, of an earlier part ${shift}; they must be equal`,
      );
    }
    if (start + part.sizeBytes > part.memory.sizeBytes) {
      failBar(
        bar,
        `${at} ends at ${start + part.sizeBytes} of region ${part.memory.name}, which has ${part.memory.sizeBytes} bytes`,
      );
    }
  }
}

/** QEMU lays its table over the BAR below our mapping: whatever of it lies in mapped pages would never trap. */
function checkInterruptPages(bar: BarShape, parts: BarParts, interrupts: NonNullable<Capability['interrupts']>): void {
  for (const structure of interruptStructures(interrupts)) {
    if (structure.bar !== bar.index) continue;
    const pages = {
      start: Math.floor(structure.start / PAGE_BYTES) * PAGE_BYTES,
      end: Math.ceil(structure.end / PAGE_BYTES) * PAGE_BYTES,
    };
    for (const part of parts) {
      if (isMemory(part) && overlaps(pages, { start: part.offset, end: part.offset + part.sizeBytes })) {
        const place = `memory at 0x${part.offset.toString(16)}`;
        failBar(bar, `${structure.what} shares a page with ${place}; give it pages of its own`);
      }
    }
  }
}
