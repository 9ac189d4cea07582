/** Hardware queues as the hardware scheduler sees them: places to which it connects the queues of processes. */
import type { AddressSpace } from '../memory/address-space.js';

/** Where a run list's queue is in memory, and whose it is. */
export interface QueuePlacement {
  readonly mqdAddress: number;
  readonly doorbellDword: number;
  readonly vmid: number;
  /** Where user space keeps its write pointer, in the process's address space; 0: nowhere. */
  readonly wptrAddress: number;
}

/** A hardware queue that the scheduler can connect to a process's queue in memory. */
export interface QueueSlot {
  readonly name: string;
  readonly busy: boolean;
  /** Loads the memory queue descriptor and runs. False: a kind of queue that is not modelled. */
  connect(placement: QueuePlacement): boolean;
  /** Writes its pointers back to the descriptor and stops. */
  disconnect(): void;
}

/** A queue's write pointer, in its own unit. */
interface WritePointer {
  readonly low: number;
  readonly high: number;
}

/**
 * Where a queue's commands end: as its descriptor says, or beyond that as user space left it in memory, because the
 * doorbell may have rung while the queue was disconnected. `wptrAddress` 0: memory has none.
 */
export function newestWritePointer(space: AddressSpace, wptrAddress: number, described: WritePointer): WritePointer {
  if (wptrAddress === 0) return described;
  const inMemory = space.readU64(wptrAddress);
  if (inMemory <= ((BigInt(described.high) << 32n) | BigInt(described.low))) return described;
  return { low: Number(inMemory & 0xffff_ffffn), high: Number(inMemory >> 32n) };
}
