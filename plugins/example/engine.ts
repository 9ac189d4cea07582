/**
 * The copy engine: fetches descriptors from the ring, moves the bytes in slices, writes completions back.
 *
 * It never works inside a register handler. A doorbell only notes the new tail and posts a slice;
 * every slice moves at most {@link SLICE_BYTES} and posts the next one, so that register accesses
 * of this and every other function stay quick.
 */
import { DmaError, type FunctionPort, type MemoryRegion, SLICE_BYTES } from 'ghostbus';
import {
  COMPLETION_OFFSET,
  DESCRIPTOR_BYTES,
  type Descriptor,
  decodeDescriptor,
  flags,
  isValid,
  status,
  statusOfDmaFailure,
} from './descriptor.js';

export interface Ring {
  readonly base: number;
  readonly entries: number;
}

/** Why the engine stopped by itself; the value of the ERROR register. */
export const haltReason = {
  none: 0,
  badRing: 1,
  badTail: 2,
  fetchFailed: 3,
  completionFailed: 4,
} as const;

export interface EngineEvents {
  /** A descriptor that asked for an interrupt has been completed. */
  completed(): void;
  /** The engine stopped; only stopping and starting it again helps. */
  halted(reason: number): void;
}

/** Charged per descriptor against the slice, so that many tiny copies also end a slice in time. */
const DESCRIPTOR_COST_BYTES = 64 * 1024;

interface Job {
  readonly index: number;
  readonly descriptor: Descriptor;
  doneBytes: number;
}

export class CopyEngine {
  readonly #memory: MemoryRegion;
  readonly #events: EngineEvents;
  readonly #port: FunctionPort;
  #ring: Ring | undefined;
  #head = 0;
  #tail = 0;
  #job: Job | undefined;
  #sliceIsPosted = false;
  #injectedStatus: number | undefined;
  readonly totals = { descriptors: 0, failed: 0, bytes: 0 };

  constructor(port: FunctionPort, memory: MemoryRegion, events: EngineEvents) {
    this.#port = port;
    this.#memory = memory;
    this.#events = events;
  }

  get head(): number {
    return this.#head;
  }

  get tail(): number {
    return this.#tail;
  }

  get isRunning(): boolean {
    return this.#ring !== undefined;
  }

  get isBusy(): boolean {
    return this.#ring !== undefined && this.#head !== this.#tail;
  }

  /** Starts with an empty ring. */
  start(ring: Ring): void {
    this.#ring = ring;
    this.#head = 0;
    this.#tail = 0;
    this.#job = undefined;
  }

  /** Stops at once; a copy under way stays half done and is not completed. */
  stop(): void {
    this.#ring = undefined;
    this.#job = undefined;
  }

  /** The driver has filled descriptors up to, not including, `tail`. */
  doorbell(tail: number): void {
    const ring = this.#ring;
    if (ring === undefined) {
      this.#port.log.warn('doorbell rung while the engine is stopped', { tail });
      return;
    }
    if (tail >= ring.entries) {
      this.#halt(haltReason.badTail);
      return;
    }
    this.#tail = tail;
    this.#postSlice();
  }

  /** The next descriptor completes with this status instead of being executed. */
  failNext(injectedStatus: number): void {
    this.#injectedStatus = injectedStatus;
  }

  #postSlice(): void {
    if (this.#sliceIsPosted || !this.isBusy) return;
    this.#sliceIsPosted = true;
    this.#port.post(() => {
      this.#sliceIsPosted = false;
      this.#slice();
      this.#postSlice();
    });
  }

  #slice(): void {
    for (let budget = SLICE_BYTES; budget > 0 && this.isBusy; ) {
      this.#job ??= this.#fetch();
      if (this.#job === undefined) return;
      budget -= this.#advance(this.#job, budget);
    }
  }

  #fetch(): Job | undefined {
    const ring = this.#ring;
    if (ring === undefined) return undefined;
    const index = this.#head;
    const bytes = new Uint8Array(DESCRIPTOR_BYTES);
    try {
      this.#port.dma.read(ring.base + index * DESCRIPTOR_BYTES, bytes);
    } catch (error) {
      this.#haltOnDmaError(error, ring, haltReason.fetchFailed);
      return undefined;
    }
    // While a DMA request was under way the driver may have stopped the engine: its world is gone then.
    return this.#ring === ring ? { index, descriptor: decodeDescriptor(bytes), doneBytes: 0 } : undefined;
  }

  /** Moves the next part of a job, and completes it after its last byte. Returns what to charge the slice. */
  #advance(job: Job, budgetBytes: number): number {
    const { descriptor } = job;
    let result: number = status.done;
    let movedBytes = 0;
    if (this.#injectedStatus !== undefined) {
      result = this.#injectedStatus;
      this.#injectedStatus = undefined;
    } else if (!isValid(descriptor, this.#memory.sizeBytes)) {
      result = status.invalidDescriptor;
    } else {
      movedBytes = Math.min(budgetBytes, descriptor.lengthBytes - job.doneBytes);
      try {
        this.#move(descriptor, job.doneBytes, movedBytes);
      } catch (error) {
        if (!(error instanceof DmaError)) throw error;
        result = statusOfDmaFailure[error.failure];
        movedBytes = 0;
      }
      job.doneBytes += movedBytes;
    }
    if (this.#job !== job) return movedBytes;
    if (result !== status.done || job.doneBytes === descriptor.lengthBytes) this.#complete(job, result);
    return movedBytes + DESCRIPTOR_COST_BYTES;
  }

  #move(descriptor: Descriptor, doneBytes: number, lengthBytes: number): void {
    const { dma } = this.#port;
    const memory = this.#memory;
    const source = Number(descriptor.source) + doneBytes;
    const destination = Number(descriptor.destination) + doneBytes;
    const fromLocal = (descriptor.flags & flags.sourceIsLocal) !== 0;
    const toLocal = (descriptor.flags & flags.destinationIsLocal) !== 0;
    if ((descriptor.flags & flags.immediate) !== 0) {
      const data = immediateData(descriptor);
      if (toLocal) memory.write(destination, data);
      else dma.write(destination, data);
    } else if (fromLocal && toLocal) memory.copy(destination, source, lengthBytes);
    else if (fromLocal) dma.writeFrom(destination, memory, source, lengthBytes);
    else if (toLocal) dma.readInto(source, memory, destination, lengthBytes);
    else dma.copy(destination, source, lengthBytes);
  }

  #complete(job: Job, result: number): void {
    const ring = this.#ring;
    if (ring === undefined) return;
    const completion = (BigInt(job.doneBytes) << 32n) | BigInt(result);
    try {
      this.#port.dma.writeU64(ring.base + job.index * DESCRIPTOR_BYTES + COMPLETION_OFFSET, completion);
    } catch (error) {
      this.#haltOnDmaError(error, ring, haltReason.completionFailed);
      return;
    }
    if (this.#job !== job) return;
    this.totals.descriptors++;
    this.totals.bytes += job.doneBytes;
    if (result !== status.done) this.totals.failed++;
    this.#job = undefined;
    this.#head = (this.#head + 1) % ring.entries;
    if ((job.descriptor.flags & flags.interrupt) !== 0) this.#events.completed();
  }

  #haltOnDmaError(error: unknown, ring: Ring, reason: number): void {
    if (!(error instanceof DmaError)) throw error;
    this.#port.log.warn(`the ring cannot be reached: ${error.message}`, { reason });
    if (this.#ring === ring) this.#halt(reason);
  }

  #halt(reason: number): void {
    this.stop();
    this.#events.halted(reason);
  }
}

/** The immediate data is the low `lengthBytes` bytes of the source field. */
function immediateData(descriptor: Descriptor): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, descriptor.source, true);
  return bytes.subarray(0, descriptor.lengthBytes);
}
