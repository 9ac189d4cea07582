/** Where the BARs of a group of functions are on the bus: a sorted table of what lies at which address. */
import type { MemoryRegion } from './region.js';

/** What DMA needs of memory; a function's region and a client's mapped file both offer it. */
export type ByteMemory = Pick<
  MemoryRegion,
  'read' | 'write' | 'forEachSpan' | 'readU32' | 'readU64' | 'writeU32' | 'writeU64'
>;

/** A part of a BAR that is plain memory: QEMU maps it into the guest, accesses never trap. */
export interface MemoryPart {
  readonly offset: number;
  readonly sizeBytes: number;
  readonly memory: MemoryRegion;
  /** Where in `memory` this part starts. Default: `offset`. */
  readonly memoryOffset?: number;
}

/** What the fabric needs of a memory BAR. Whatever is outside `memoryParts` is accessed by `read` and `write`. */
export interface FabricBar {
  readonly sizeBytes: number;
  /** Sorted and disjoint. */
  readonly memoryParts: readonly MemoryPart[];
  /**
   * Register accesses: naturally aligned, 1, 2, 4 or 8 bytes. They never throw: a handler's fault
   * stays in its function.
   */
  read(offset: number, target: Uint8Array): void;
  write(offset: number, source: Uint8Array): void;
}

/** A memory BAR that decodes now. */
export interface BarWindow {
  readonly address: number;
  readonly bar: FabricBar;
}

/** Bus addresses from `start` up to, not including, `end` that are memory of a function. */
export interface MemorySegment<Owner> {
  readonly kind: 'peer-memory';
  readonly start: number;
  readonly end: number;
  readonly owner: Owner;
  readonly memory: MemoryRegion;
  /** Byte of `memory` at `start`. */
  readonly memoryOffset: number;
}

/** Bus addresses that trap into a function. */
export interface RegisterSegment<Owner> {
  readonly kind: 'peer-registers';
  readonly start: number;
  readonly end: number;
  readonly owner: Owner;
  readonly bar: FabricBar;
  /** Offset in the BAR at `start`. */
  readonly barOffset: number;
}

export type Segment<Owner> = MemorySegment<Owner> | RegisterSegment<Owner>;

/**
 * The sorted, disjoint segments of all windows. Where a guest laid windows over each other, the one that starts at the
 * lower address keeps the overlap, and of two that start together the one listed first.
 */
export function buildSegments<Owner>(
  owners: readonly { owner: Owner; windows: readonly BarWindow[] }[],
): Segment<Owner>[] {
  const all = owners.flatMap(({ owner, windows }) => windows.flatMap((window) => windowSegments(owner, window)));
  all.sort((a, b) => a.start - b.start);
  const disjoint: Segment<Owner>[] = [];
  let taken = 0;
  for (const segment of all) {
    const start = Math.max(segment.start, taken);
    if (start >= segment.end) continue;
    disjoint.push(start === segment.start ? segment : startingAt(segment, start));
    taken = segment.end;
  }
  return disjoint;
}

/** Index of the last segment that starts at or below `address`; -1 when there is none. */
export function segmentIndexAtOrBelow(segments: readonly Segment<unknown>[], address: number): number {
  let low = 0;
  let high = segments.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (segments[middle]!.start <= address) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function windowSegments<Owner>(owner: Owner, { address, bar }: BarWindow): Segment<Owner>[] {
  const segments: Segment<Owner>[] = [];
  let done = 0;
  const registersUpTo = (offset: number) => {
    if (offset > done) {
      segments.push({
        kind: 'peer-registers',
        start: address + done,
        end: address + offset,
        owner,
        bar,
        barOffset: done,
      });
    }
    done = offset;
  };
  for (const { offset, sizeBytes, memory, memoryOffset = offset } of bar.memoryParts) {
    registersUpTo(offset);
    done = offset + sizeBytes;
    segments.push({ kind: 'peer-memory', start: address + offset, end: address + done, owner, memory, memoryOffset });
  }
  registersUpTo(bar.sizeBytes);
  return segments;
}

function startingAt<Owner>(segment: Segment<Owner>, start: number): Segment<Owner> {
  const skipped = start - segment.start;
  return segment.kind === 'peer-memory'
    ? { ...segment, start, memoryOffset: segment.memoryOffset + skipped }
    : { ...segment, start, barOffset: segment.barOffset + skipped };
}
