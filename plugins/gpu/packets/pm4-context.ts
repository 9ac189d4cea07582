/** What a PM4 packet of the command processor is, and what it can do beside touching memory. */
import type { Outcome, Packet, PacketContext } from './packet.js';

/** What packets ask of the hardware scheduler: run lists, as amdkfd sends them (kfd_packet_manager_v9.c). */
export interface RunLists {
  /** Which VMIDs and which compute queues (bit = (me - 1) * 32 + pipe * 8 + queue) are the scheduler's. */
  setResources(vmidMask: number, queueMask: bigint): void;
  /** A new run list replaces the one before. */
  beginRunList(): void;
  /** The queues that follow belong to this process; the root of its page tables in register format. */
  mapProcess(pasid: number, rootLow: number, rootHigh: number): void;
}

export interface ComputeContext extends PacketContext {
  endOfPipe(vmid: number, contextId: number): void;
  /** The previous value of the last atomic operation (CP_ATOMIC_PREOP). */
  atomicResult: bigint;
  /** A kernel for the shader cores. */
  dispatch(): void;
  mapQueue(request: MapQueueRequest): void;
  unmapQueues(request: UnmapQueuesRequest): void;
  readonly runLists: RunLists;
}

/** Which engine a queue is for: compute, or an SDMA engine by its index. */
type QueueEngine = 'compute' | number;

/** MAP_QUEUES for one queue. */
export interface MapQueueRequest {
  /** False: `me`, `pipe`, `queue` are given. True: the scheduler chooses. */
  readonly scheduled: boolean;
  readonly me: number;
  readonly pipe: number;
  readonly queue: number;
  /** `interface`: the queue through which amdkfd maps the others. Undefined: none of this ASIC's. */
  readonly engine: QueueEngine | 'interface' | undefined;
  readonly doorbellDword: number;
  readonly mqdAddress: number;
  readonly wptrAddress: number;
}

/** UNMAP_QUEUES: the queues of some doorbells, of one process, or all that the scheduler connected. */
export type UnmapQueuesRequest =
  | { readonly doorbellDwords: readonly number[] }
  | { readonly pasid: number }
  | { readonly all: true };

export type RunPacket = (context: ComputeContext, packet: Packet) => Outcome;
