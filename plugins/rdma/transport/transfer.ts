/** Moving the bytes of a message from one function's memory to another's (or the same one's). */
import { DmaError } from 'ghostbus';
import type { KeyedMemory } from '../memory/device-memory.js';
import {
  AccessRefused,
  type Extent,
  type MemoryKeys,
  PageMissing,
  type Requester,
  type Right,
} from '../memory/memory-key.js';
import type { PageFaults } from '../memory/page-faults.js';
import type { SendPiece } from '../queues/work-queue-entry.js';

/** What a turn moves at most: a register access waits no longer than this takes. */
export const TURN_BYTES = 1024 * 1024;
/** Between two functions bytes pass through a buffer of this size. */
const BOUNCE_BYTES = 256 * 1024;

/** The part of an adapter that memory accesses need. */
export interface MemoryAccess {
  readonly dma: KeyedMemory;
  readonly memoryKeys: MemoryKeys;
  readonly pageFaults: PageFaults;
}

/** One end of a transfer: a list of places, and the rights by which they are reached. */
export interface Side {
  readonly adapter: MemoryAccess;
  readonly owner: Requester;
  readonly pieces: readonly SendPiece[];
  readonly right: Right;
  /** False when the other queue pair went away meanwhile. Default: it does not go away without abandoning the work. */
  readonly isAlive?: () => boolean;
}

/** The other end of a transfer is gone. */
export class PeerGone extends Error {}

/** Sees the bytes of a message pass, in order. */
export type Tap = (bytes: Uint8Array) => void;

/** A transfer that failed at one end; the cause is an AccessRefused or a DmaError, or a page that did not come. */
export class TransferFailed extends Error {
  readonly end: 'source' | 'target';

  constructor(end: 'source' | 'target', cause: Error) {
    super(cause.message, { cause });
    this.end = end;
  }
}

/** Why a generator of work pauses: `slice`, others' turn; `wait`, until somebody calls the wake-up. */
export type Pause = 'slice' | 'wait';
export type Work<T = void> = Generator<Pause, T, void>;

/** What work needs from the queue that runs it while it waits. */
export interface Waiter {
  /** Runs the work again. */
  wake(): void;
  /** Called when the work is abandoned while it waits. */
  onAbandon(forget: (() => void) | undefined): void;
}

type Chunk = Extent | { readonly inline: Uint8Array; readonly lengthBytes: number };

/**
 * Moves `lengthBytes`, slice by slice. Every slice is translated anew, so that a key that changed in between counts; pages that
 * are missing are asked for and waited for. Throws {@link TransferFailed}.
 */
export function* transfer(waiter: Waiter, source: Side, target: Side, lengthBytes: number, tap?: Tap): Work {
  for (let done = 0; done < lengthBytes; ) {
    const length = Math.min(TURN_BYTES, lengthBytes - done);
    const { from, to } = yield* locateBoth(waiter, source, target, done, length);
    moveChunks(source.adapter.dma, from, target.adapter.dma, to, tap);
    done += length;
    if (done < lengthBytes) yield 'slice';
  }
}

/** Translates a part of both ends at one moment. */
export function* locateBoth(
  waiter: Waiter,
  source: Side,
  target: Side,
  start: number,
  lengthBytes: number,
): Work<{ from: Chunk[]; to: Chunk[] }> {
  const refusals = { source: 0, target: 0 };
  for (;;) {
    if (source.isAlive?.() === false || target.isAlive?.() === false) throw new PeerGone();
    const from = locate(source, start, lengthBytes);
    const to = from instanceof Error ? from : locate(target, start, lengthBytes);
    if (!(from instanceof Error) && !(to instanceof Error)) return { from, to };
    const end = from instanceof Error ? 'source' : 'target';
    const error = to as Error;
    if (!(error instanceof PageMissing)) throw new TransferFailed(end, error);
    const came = yield* waitForPage(waiter, (end === 'source' ? source : target).adapter, error);
    // The driver may refuse a fault that raced with a change of the key; what it refuses twice is not there.
    if (!came && ++refusals[end] > 1) throw new TransferFailed(end, error);
  }
}

function* waitForPage(waiter: Waiter, adapter: MemoryAccess, fault: PageMissing): Work<boolean> {
  let answer: boolean | undefined;
  const forget = adapter.pageFaults.raise(fault, (failed) => {
    answer = !failed;
    waiter.wake();
  });
  if (forget === undefined) return false;
  waiter.onAbandon(forget);
  while (answer === undefined) yield 'wait';
  waiter.onAbandon(undefined);
  return answer;
}

/** Where bytes [start, start + lengthBytes) of a list are, or why they cannot be had. */
function locate(side: Side, start: number, lengthBytes: number): Chunk[] | Error {
  const chunks: Chunk[] = [];
  let skip = start;
  let left = lengthBytes;
  try {
    for (const piece of side.pieces) {
      if (left === 0) break;
      if (skip >= piece.lengthBytes) {
        skip -= piece.lengthBytes;
        continue;
      }
      const length = Math.min(left, piece.lengthBytes - skip);
      addChunks(side, piece, skip, length, chunks);
      left -= length;
      skip = 0;
    }
  } catch (error) {
    if (error instanceof AccessRefused || error instanceof PageMissing) return error;
    throw error;
  }
  return chunks;
}

function addChunks(side: Side, piece: SendPiece, skip: number, lengthBytes: number, chunks: Chunk[]): void {
  if ('inline' in piece) {
    chunks.push({ inline: piece.inline.subarray(skip, skip + lengthBytes), lengthBytes });
    return;
  }
  const extents: Extent[] = [];
  const access = { key: piece.key, address: piece.address + BigInt(skip), lengthBytes, right: side.right };
  side.adapter.memoryKeys.translate(side.owner, access, extents);
  chunks.push(...extents);
}

/** Moves bytes between two lists of equal length. Throws {@link TransferFailed}. */
export function moveChunks(
  sourceDma: KeyedMemory,
  from: readonly Chunk[],
  targetDma: KeyedMemory,
  to: readonly Chunk[],
  tap?: Tap,
): void {
  let sourceIndex = 0;
  let sourceDone = 0;
  for (const target of to) {
    for (let done = 0; done < target.lengthBytes; ) {
      const source = from[sourceIndex]!;
      const length = Math.min(source.lengthBytes - sourceDone, target.lengthBytes - done);
      if (tap !== undefined) tap(readChunk(sourceDma, source, sourceDone, length));
      moveBytes(sourceDma, source, sourceDone, targetDma, target, done, length);
      done += length;
      sourceDone += length;
      if (sourceDone === source.lengthBytes) {
        sourceIndex++;
        sourceDone = 0;
      }
    }
  }
}

function readChunk(dma: KeyedMemory, chunk: Chunk, offset: number, lengthBytes: number): Uint8Array {
  if ('inline' in chunk) return chunk.inline.subarray(offset, offset + lengthBytes);
  const bytes = new Uint8Array(lengthBytes);
  if (chunk.address >= 0) guarded('source', () => dma.read(chunk.address + offset, bytes));
  return bytes;
}

/** Reads a list of at most a few KiB into one array; waits for pages. Throws {@link TransferFailed}. */
export function* gather(waiter: Waiter, source: Side, lengthBytes: number): Work<Uint8Array> {
  const nothing: Side = { ...source, pieces: [{ inline: new Uint8Array(0), lengthBytes: 0 }] };
  const { from } = yield* locateBoth(waiter, source, nothing, 0, lengthBytes);
  const bytes = new Uint8Array(lengthBytes);
  let done = 0;
  for (const chunk of from) {
    bytes.set(readChunk(source.adapter.dma, chunk, 0, chunk.lengthBytes), done);
    done += chunk.lengthBytes;
  }
  return bytes;
}

function moveBytes(
  sourceDma: KeyedMemory,
  source: Chunk,
  sourceOffset: number,
  targetDma: KeyedMemory,
  target: Chunk,
  targetOffset: number,
  lengthBytes: number,
): void {
  if ('inline' in target || target.address < 0) return;
  const to = target.address + targetOffset;
  if ('inline' in source) {
    guarded('target', () => targetDma.write(to, source.inline.subarray(sourceOffset, sourceOffset + lengthBytes)));
    return;
  }
  if (source.address < 0) {
    guarded('target', () => targetDma.fill(to, 0, lengthBytes));
    return;
  }
  const at = source.address + sourceOffset;
  for (let done = 0; done < lengthBytes; ) {
    const part = bounce.subarray(0, Math.min(BOUNCE_BYTES, lengthBytes - done));
    guarded('source', () => sourceDma.read(at + done, part));
    guarded('target', () => targetDma.write(to + done, part));
    done += part.length;
  }
}

/** Nothing keeps it between two calls: transfers never interleave inside {@link moveBytes}. */
const bounce = new Uint8Array(BOUNCE_BYTES);

function guarded(end: 'source' | 'target', action: () => void): void {
  try {
    action();
  } catch (error) {
    if (error instanceof DmaError) throw new TransferFailed(end, error);
    throw error;
  }
}
