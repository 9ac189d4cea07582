import { hex } from '../bus/registers.js';
import type { GpuHost } from '../host.js';
import type { InterruptHandler } from '../interrupts/ih.js';
import type { AddressSpace } from '../memory/address-space.js';
import type { Hub } from '../memory/hub.js';
import type { MapQueueRequest } from '../packets/pm4.js';

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
export interface WritePointer {
  readonly low: number;
  readonly high: number;
}

/**
 * Where a queue's commands end: as its descriptor says, or beyond that as user space left it in memory, because the doorbell
 * may have rung while the queue was disconnected. `wptrAddress` 0: memory has none.
 */
export function newestWritePointer(space: AddressSpace, wptrAddress: number, described: WritePointer): WritePointer {
  if (wptrAddress === 0) return described;
  const inMemory = space.readU64(wptrAddress);
  if (inMemory <= ((BigInt(described.high) << 32n) | BigInt(described.low))) return described;
  return { low: Number(inMemory & 0xffff_ffffn), high: Number(inMemory >> 32n) };
}

/** Which engine a queue is for: compute, or an SDMA engine by its index. */
export type QueueEngine = 'compute' | number;

interface Process {
  readonly pasid: number;
  readonly vmid: number;
}

/**
 * The hardware scheduler: what the MEC firmware does with the run lists of the kernel's compute driver (amdkfd,
 * kfd_packet_manager_v9.c). It gives processes VMIDs and connects their queues. There is no time slicing: queues and
 * processes beyond what the hardware has stay unconnected, and the log says so.
 */
export class HardwareScheduler {
  readonly #host: GpuHost;
  readonly #hubs: readonly Hub[];
  readonly #interrupts: InterruptHandler;
  readonly #computeSlots: readonly QueueSlot[];
  /** By engine. */
  readonly #sdmaSlots: readonly (readonly QueueSlot[])[];
  #vmidMask = 0;
  #queueMask = 0n;
  #process: Process | undefined;
  #processes: Process[] = [];
  #connected: { readonly slot: QueueSlot; readonly pasid: number }[] = [];
  #runLists = 0;

  constructor(
    host: GpuHost,
    hubs: readonly Hub[],
    interrupts: InterruptHandler,
    slots: { readonly compute: readonly QueueSlot[]; readonly sdma: readonly (readonly QueueSlot[])[] },
  ) {
    this.#host = host;
    this.#hubs = hubs;
    this.#interrupts = interrupts;
    this.#computeSlots = slots.compute;
    this.#sdmaSlots = slots.sdma;
  }

  /** Which VMIDs and which compute queues (bit = (me - 1) * 32 + pipe * 8 + queue) are the scheduler's. */
  setResources(vmidMask: number, queueMask: bigint): void {
    this.#vmidMask = vmidMask;
    this.#queueMask = queueMask;
  }

  /** A new run list replaces the one before. */
  beginRunList(): void {
    this.#runLists++;
    this.unmap();
  }

  /** The queues that follow belong to this process. */
  mapProcess(pasid: number, rootLow: number, rootHigh: number): void {
    this.#process = undefined;
    const used = this.#processes.reduce((mask, { vmid }) => mask | (1 << vmid), 0);
    // VMID 0 is the kernel's.
    const vmid = Array.from({ length: 15 }, (_, index) => index + 1).find((id) => ((this.#vmidMask & ~used) >> id) & 1);
    if (vmid === undefined) {
      this.#host.complaints.warn('run list', `run list: no VMID left for process ${pasid}; its queues wait`);
      return;
    }
    for (const hub of this.#hubs) hub.setRoot(vmid, rootLow, rootHigh);
    this.#interrupts.setPasid(vmid, pasid);
    this.#process = { pasid, vmid };
    this.#processes.push(this.#process);
  }

  /** Connects a queue of the current process to a free slot. */
  mapQueue(request: MapQueueRequest): void {
    const process = this.#process;
    if (process === undefined) return;
    const slot = this.#freeSlot(request.engine);
    if (slot === undefined) {
      this.#host.complaints.warn(
        'run list',
        `run list: no queue of engine ${request.engine} left for process ${process.pasid}`,
      );
      return;
    }
    const { mqdAddress, doorbellDword, wptrAddress } = request;
    if (slot.connect({ mqdAddress, doorbellDword, wptrAddress, vmid: process.vmid })) {
      this.#connected.push({ slot, pasid: process.pasid });
    } else
      this.#host.complaints.warn(
        'run list',
        `run list: the queue described at ${hex(mqdAddress)} is of a kind not implemented`,
      );
  }

  #freeSlot(engine: MapQueueRequest['engine']): QueueSlot | undefined {
    if (typeof engine === 'number') return this.#sdmaSlots[engine]?.find(({ busy }) => !busy);
    if (engine !== 'compute') return undefined;
    return this.#computeSlots.find((slot, index) => !slot.busy && ((this.#queueMask >> BigInt(index)) & 1n) === 1n);
  }

  /** Disconnects the queues of one process, or of all. */
  unmap(pasid?: number): void {
    const stays = (owner: { readonly pasid: number }) => pasid !== undefined && owner.pasid !== pasid;
    for (const connected of this.#connected) if (!stays(connected)) connected.slot.disconnect();
    this.#connected = this.#connected.filter(stays);
    this.#processes = this.#processes.filter(stays);
    this.#process = undefined;
  }

  inspect(): unknown {
    return {
      runLists: this.#runLists,
      processes: this.#processes,
      queues: this.#connected.map(({ slot, pasid }) => ({ slot: slot.name, pasid })),
    };
  }
}
