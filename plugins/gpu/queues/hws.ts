import type { FloodGuard } from 'ghostbus/kit';
import { hex } from '../bus/registers.js';
import type { InterruptHandler } from '../interrupts/ih.js';
import type { Hub } from '../memory/hub.js';
import type { MapQueueRequest, RunLists } from '../packets/pm4-context.js';
import type { QueueSlot } from './queue-slot.js';

/** VMID 0 is the kernel's. */
const USER_VMIDS = Array.from({ length: 15 }, (_, index) => index + 1);

interface Process {
  readonly pasid: number;
  readonly vmid: number;
}

/**
 * The hardware scheduler: what the MEC firmware does with the run lists of the kernel's compute driver (amdkfd,
 * kfd_packet_manager_v9.c). It gives processes VMIDs and connects their queues. There is no time slicing: queues and
 * processes beyond what the hardware has stay unconnected, and the log says so.
 */
export class HardwareScheduler implements RunLists {
  readonly #log: FloodGuard;
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
    log: FloodGuard,
    hubs: readonly Hub[],
    interrupts: InterruptHandler,
    slots: { readonly compute: readonly QueueSlot[]; readonly sdma: readonly (readonly QueueSlot[])[] },
  ) {
    this.#log = log;
    this.#hubs = hubs;
    this.#interrupts = interrupts;
    this.#computeSlots = slots.compute;
    this.#sdmaSlots = slots.sdma;
  }

  setResources(vmidMask: number, queueMask: bigint): void {
    this.#vmidMask = vmidMask;
    this.#queueMask = queueMask;
  }

  beginRunList(): void {
    this.#runLists++;
    this.unmap();
  }

  mapProcess(pasid: number, rootLow: number, rootHigh: number): void {
    this.#process = undefined;
    const used = this.#processes.reduce((mask, { vmid }) => mask | (1 << vmid), 0);
    const vmid = USER_VMIDS.find((id) => ((this.#vmidMask & ~used) >> id) & 1);
    if (vmid === undefined) {
      this.#log.source('run list').warn(`run list: no VMID left for process ${pasid}; its queues wait`);
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
      this.#log
        .source('run list')
        .warn(`run list: no queue of engine ${request.engine} left for process ${process.pasid}`);
      return;
    }
    const { mqdAddress, doorbellDword, wptrAddress } = request;
    if (slot.connect({ mqdAddress, doorbellDword, wptrAddress, vmid: process.vmid })) {
      this.#connected.push({ slot, pasid: process.pasid });
    } else
      this.#log
        .source('run list')
        .warn(`run list: the queue described at ${hex(mqdAddress)} is of a kind not implemented`);
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
