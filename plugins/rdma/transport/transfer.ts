/** Moving the bytes of a message from one function's memory to another's (or the same one's). */
import { type Clock, DmaError } from 'ghostbus';
import { COST, type WorkBudget } from 'ghostbus/kit';
import { AccessRefused, type KeyUser, PageMissing, type Right } from '../memory/access.js';
import type { Extent, KeyedMemory } from '../memory/keyed-memory.js';
import type { MemoryKeys } from '../memory/memory-keys.js';
import type { PageFaults } from '../memory/page-faults.js';
import { TURN_UNITS } from '../queues/turns.js';
import type { SendPiece } from '../queues/work-queue-entry.js';

/** What is translated and moved at one moment. */
const SLICE_BYTES = TURN_UNITS / COST.byte;
/** Between two functions bytes pass through a buffer of this size. */
const BOUNCE_BYTES = 256 * 1024;

/** How the memory behind an adapter's keys is reached. */
export interface MemoryAccess {
  readonly memory: KeyedMemory;
  readonly memoryKeys: Pick<MemoryKeys, 'translate'>;
  readonly pageFaults: Pick<PageFaults, 'raise'>;
}

/** One end of a transfer: a list of places, and the rights by which they are reached. */
export interface Side {
  readonly access: MemoryAccess;
  readonly user: KeyUser;
  readonly pieces: readonly SendPiece[];
  readonly right: Right;
  /** False when the other queue pair went away meanwhile. Default: it does not go away without abandoning the work. */
  readonly isAlive?: () => boolean;
}

/** The other end of a transfer is gone. */
export class PeerGone extends Error {}

/** Sees the bytes of a message pass, in order. */
export type Tap = (bytes: Uint8Array) => void;

type End = 'source' | 'target';

/** A transfer that failed at one end; the cause is an AccessRefused or a DmaError, or a page that did not come. */
export class TransferFailed extends Error {
  readonly end: End;

  constructor(end: End, cause: Error) {
    super(cause.message, { cause });
    this.end = end;
  }
}

/** Why a generator of work pauses: `slice`, others' turn; `wait`, until somebody calls the wake-up. */
type Pause = 'slice' | 'wait';
export type Work<T = void> = Generator<Pause, T, void>;

/** What work needs from the queue that runs it while it waits. */
export interface Waiter {
  readonly clock: Clock;
  /** What the present turn may still do: work charges what it costs. */
  readonly budget: WorkBudget;
  /** Runs the work again. */
  wake(): void;
  /** Called when the work is abandoned while it waits. */
  onAbandon(forget: (() => void) | undefined): void;
}

/** Bytes of a message: in memory, or inside a work queue entry. */
export type Chunk = Extent | { readonly kind: 'inline'; readonly inline: Uint8Array; readonly lengthBytes: number };

/** A chunk and the memory in which its places are. */
interface ChunkPlace {
  readonly memory: KeyedMemory;
  readonly chunk: Chunk;
  readonly offset: number;
}

/**
 * Moves `lengthBytes`, slice by slice. Every slice is translated anew, so that a key that changed in between counts;
 * pages that are missing are asked for and waited for. Throws {@link TransferFailed}.
 */
export function* transfer(waiter: Waiter, source: Side, target: Side, lengthBytes: number, tap?: Tap): Work {
  for (let done = 0; done < lengthBytes; ) {
    const length = Math.min(SLICE_BYTES, lengthBytes - done);
    const { from, to } = yield* locateBoth(waiter, source, target, done, length);
    moveChunks(source.access.memory, from, target.access.memory, to, tap);
    done += length;
    waiter.budget.charge(length * COST.byte);
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
    const end: End = from instanceof Error ? 'source' : 'target';
    const error = to as Error;
    if (!(error instanceof PageMissing)) throw new TransferFailed(end, error);
    const came = yield* waitForPage(waiter, (end === 'source' ? source : target).access, error);
    // The driver may refuse a fault that raced with a change of the key; what it refuses twice is not there.
    if (!came && ++refusals[end] > 1) throw new TransferFailed(end, error);
  }
}

function* waitForPage(waiter: Waiter, { pageFaults }: MemoryAccess, fault: PageMissing): Work<boolean> {
  let answer: boolean | undefined;
  const forget = pageFaults.raise(fault, (failed) => {
    answer = !failed;
    waiter.wake();
  });
  if (forget === undefined) return false;
  waiter.onAbandon(forget);
  while (answer === undefined) yield 'wait';
  waiter.onAbandon(undefined);
  return answer;
}

/** Waits at least `delayMs`. */
export function* sleep(waiter: Waiter, delayMs: number): Work {
  let over = false;
  const timer = waiter.clock.after(delayMs, () => {
    over = true;
    waiter.wake();
  });
  waiter.onAbandon(() => timer.cancel());
  while (!over) yield 'wait';
  waiter.onAbandon(undefined);
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
    chunks.push({ kind: 'inline', inline: piece.inline.subarray(skip, skip + lengthBytes), lengthBytes });
    return;
  }
  const extents: Extent[] = [];
  const access = { key: piece.key, address: piece.address + BigInt(skip), lengthBytes, right: side.right };
  side.access.memoryKeys.translate(side.user, access, extents);
  chunks.push(...extents);
}

/** Moves bytes between two lists of equal length. Throws {@link TransferFailed}. */
function moveChunks(
  sourceMemory: KeyedMemory,
  from: readonly Chunk[],
  targetMemory: KeyedMemory,
  to: readonly Chunk[],
  tap: Tap | undefined,
): void {
  let sourceIndex = 0;
  let sourceDone = 0;
  for (const chunk of to) {
    for (let done = 0; done < chunk.lengthBytes; ) {
      const source = { memory: sourceMemory, chunk: from[sourceIndex]!, offset: sourceDone };
      const length = Math.min(source.chunk.lengthBytes - sourceDone, chunk.lengthBytes - done);
      if (tap !== undefined) tap(readChunk(source, length));
      moveBytes(source, { memory: targetMemory, chunk, offset: done }, length);
      done += length;
      sourceDone += length;
      if (sourceDone === source.chunk.lengthBytes) {
        sourceIndex++;
        sourceDone = 0;
      }
    }
  }
}

function readChunk({ memory, chunk, offset }: ChunkPlace, lengthBytes: number): Uint8Array {
  if (chunk.kind === 'inline') return chunk.inline.subarray(offset, offset + lengthBytes);
  const bytes = new Uint8Array(lengthBytes);
  guarded('source', () => memory.read(chunk, offset, bytes));
  return bytes;
}

/** Reads a list of at most a few KiB into one array; waits for pages. Throws {@link TransferFailed}. */
export function* gather(waiter: Waiter, source: Side, lengthBytes: number): Work<Uint8Array> {
  const nothing: Side = { ...source, pieces: [{ inline: new Uint8Array(0), lengthBytes: 0 }] };
  const { from } = yield* locateBoth(waiter, source, nothing, 0, lengthBytes);
  const bytes = new Uint8Array(lengthBytes);
  let done = 0;
  for (const chunk of from) {
    bytes.set(readChunk({ memory: source.access.memory, chunk, offset: 0 }, chunk.lengthBytes), done);
    done += chunk.lengthBytes;
  }
  return bytes;
}

function moveBytes(source: ChunkPlace, target: ChunkPlace, lengthBytes: number): void {
  const { chunk: from } = source;
  const { chunk: to } = target;
  if (to.kind === 'inline' || to.kind === 'nothing') return;
  if (from.kind === 'inline') {
    const part = from.inline.subarray(source.offset, source.offset + lengthBytes);
    guarded('target', () => target.memory.write(to, target.offset, part));
    return;
  }
  if (from.kind === 'nothing') {
    guarded('target', () => target.memory.fill(to, target.offset, 0, lengthBytes));
    return;
  }
  for (let done = 0; done < lengthBytes; ) {
    const part = bounce.subarray(0, Math.min(BOUNCE_BYTES, lengthBytes - done));
    guarded('source', () => source.memory.read(from, source.offset + done, part));
    guarded('target', () => target.memory.write(to, target.offset + done, part));
    done += part.length;
  }
}

/** Nothing keeps it between two calls: transfers never interleave inside {@link moveBytes}. */
const bounce = new Uint8Array(BOUNCE_BYTES);

/** Names the end at which memory could not be reached. */
export function guarded<T>(end: End, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof DmaError) throw new TransferFailed(end, error);
    throw error;
  }
}
