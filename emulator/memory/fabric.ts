/**
 * The PCIe fabric between the functions of one virtual machine: decides where a DMA request goes, and counts it.
 *
 * A request of function R at address A is routed in this order (vfio-user.md §3.3):
 * 1. Bus Master Enable of R is clear: it fails.
 * 2. A lies in a BAR that decodes, of R itself or of a function in R's group: that function's memory or registers
 *    (unless an IOMMU translates R's requests, see {@link PeerRouting}).
 * 3. A lies in a DMA map of R with a file: guest memory.
 * 4. A lies in a DMA map of R without a file: a DMA message to R's client.
 * 5. Nobody claims it: Unsupported Request.
 *
 * Functions are in one group when their clients mapped the same file as guest memory. Until a function's client has
 * mapped any, it reaches nobody but itself.
 */

import {
  countLink,
  emptyFunctionCounters,
  emptyTransferCounters,
  type FunctionCounters,
  type TransferCounters,
} from './counters.js';
import { DmaError, type DmaFailure } from './dma-error.js';
import type { DmaMessageChannel } from './dma-messages.js';
import type { DmaMap, DmaSpace } from './dma-space.js';
import { countAlignedPieces, PostedWrites } from './posted-writes.js';
import { type BarWindow, buildSegments, type RegisterSegment, type Segment, segmentIndexAtOrBelow } from './windows.js';

/** One function, as the fabric sees it. All of it is asked anew for every request, except `windows`. */
export interface FabricMember {
  readonly name: string;
  /** COMMAND.BME is set and the function is in D0. */
  readonly busMasterEnabled: boolean;
  readonly dmaSpace: DmaSpace;
  /** Undefined while no client is connected. */
  readonly messages: DmaMessageChannel | undefined;
  /** The memory BARs that decode now. Asked after {@link FabricPort.decodeChanged}. */
  windows(): readonly BarWindow[];
}

/**
 * Which requests reach a BAR.
 *
 * `address`: every request with an address inside it. Right without a translating IOMMU, where a BAR has the same
 * address everywhere, whether the request turns around in a switch or, because of ACS redirect or
 * separate root ports, in the host bridge. Right also with a translating IOMMU when the functions share a
 * switch without ACS redirect: the switch routes by address before the IOMMU sees the request, and Linux
 * keeps the bridges' windows out of the IOVA space.
 *
 * `iommu`: an IOMMU sees every request (root ports, or a switch with ACS redirect) and may translate those of any
 * function, as the guest decides for each: with `iommu=pt` those of the kernel's drivers pass as they are while
 * those of a function that a program drives through vfio are translated. A function that is not translated ({@link
 * DmaSpace.isUntranslated}) reaches BARs by address. For one that is, an address is an IOVA and means what its
 * client mapped there, be it some BAR's address or not; a BAR that the guest mapped at an IOVA is reached by DMA
 * messages, because only QEMU knows the translation.
 */
export type PeerRouting = 'address' | 'iommu';

export interface FabricOptions {
  /** Default `address`. */
  readonly peerRouting?: PeerRouting;
  /**
   * Calls `work` soon, outside any handler of `member`, in the order of other posted work of `member`. It executes
   * writes that peers posted into the member's registers.
   */
  readonly schedule: (member: FabricMember, work: () => void) => void;
}

/** Where a request goes. `owner` says whose memory or registers. */
export type Target = Segment<FabricPort> | DmaMap;

type Direction = 'read' | 'write';

const NO_SEGMENTS: readonly Segment<FabricPort>[] = [];

export class Fabric {
  readonly #ports = new Map<string, FabricPort>();
  readonly #tables = new Map<string, readonly Segment<FabricPort>[]>();
  readonly peerRouting: PeerRouting;
  readonly #schedule: FabricOptions['schedule'];
  /** Changes whenever any window or group may have changed. */
  generation = 0;

  constructor({ peerRouting = 'address', schedule }: FabricOptions) {
    this.peerRouting = peerRouting;
    this.#schedule = schedule;
  }

  /** Connects a function. @throws Error when another one has its name */
  join(member: FabricMember): FabricPort {
    if (this.#ports.has(member.name)) throw new Error(`the fabric already has a function named ${member.name}`);
    const stopListening = member.dmaSpace.onGuestMemoryChange(() => this.invalidate());
    const port = new FabricPort(this, member, {
      schedule: (work) => this.#schedule(member, work),
      leave: () => {
        stopListening();
        this.#ports.delete(member.name);
        this.invalidate();
      },
    });
    this.#ports.set(member.name, port);
    this.invalidate();
    return port;
  }

  /** Copies of all counters by the requester's name. */
  snapshot(): Record<string, FunctionCounters> {
    const all: Record<string, FunctionCounters> = {};
    for (const [name, port] of this.#ports) all[name] = structuredClone(port.counters);
    return all;
  }

  resetCounters(): void {
    for (const port of this.#ports.values()) port.resetCounters();
  }

  /** Windows or groups changed: tables are built again when they are next needed. */
  invalidate(): void {
    this.generation++;
    this.#tables.clear();
  }

  /** What `port` reaches by address; one table per group. */
  segmentsFor(port: FabricPort): readonly Segment<FabricPort>[] {
    const key = port.member.dmaSpace.guestMemoryKey;
    if (key === undefined) return buildSegments([{ owner: port, windows: port.member.windows() }]);
    let table = this.#tables.get(key);
    if (table === undefined) {
      const group = [...this.#ports.values()].filter(({ member }) => member.dmaSpace.guestMemoryKey === key);
      table = buildSegments(group.map((owner) => ({ owner, windows: owner.member.windows() })));
      this.#tables.set(key, table);
    }
    return table;
  }
}

/** One function's place in the fabric. */
export class FabricPort {
  readonly member: FabricMember;
  /** Live; {@link resetCounters} replaces it. */
  counters: FunctionCounters = emptyFunctionCounters();
  /** Set by {@link resolve}: the first address behind the one resolved that may go elsewhere. */
  limit = 0;
  readonly #fabric: Fabric;
  readonly #leave: () => void;
  readonly #registers: PostedWrites;
  #segments: readonly Segment<FabricPort>[] = [];
  #generation = -1;
  #lastOwner: FabricPort | undefined;
  #lastTransfer: TransferCounters = emptyTransferCounters();

  /** Made by {@link Fabric.join}. */
  constructor(
    fabric: Fabric,
    member: FabricMember,
    { schedule, leave }: { schedule: (work: () => void) => void; leave: () => void },
  ) {
    this.#fabric = fabric;
    this.member = member;
    this.#leave = leave;
    this.#registers = new PostedWrites(schedule);
  }

  /** To be called after any change of this function's BAR addresses, memory decode or power state. */
  decodeChanged(): void {
    this.#fabric.invalidate();
  }

  /** To be called at a reset of this function: register writes of peers that still wait are lost. */
  dropPostedWrites(): void {
    this.#registers.drop();
  }

  /** Disconnects the function. */
  leave(): void {
    this.#registers.drop();
    this.#leave();
  }

  resetCounters(): void {
    this.counters = emptyFunctionCounters();
    this.#lastOwner = undefined;
  }

  /**
   * Bytes that went over this function's private link to `name`. Links are not routed: only the
   * counting is the fabric's.
   */
  countLink(name: string, direction: Direction, lengthBytes: number): void {
    countLink(this.counters.links, name, direction, lengthBytes);
  }

  countInterrupt(vector: number): void {
    const { interrupts } = this.counters;
    interrupts[vector] = (interrupts[vector] ?? 0) + 1;
  }

  /**
   * Where this function's request at `address` goes; {@link limit} says how far. Use the result at once: it is stale
   * after any call that may run guest-driven code. `lengthBytes` is for the error.
   * @throws DmaError
   */
  resolve(direction: Direction, address: number, lengthBytes: number): Target {
    if (!this.member.busMasterEnabled) throw this.failed('bus-master-disabled', direction, address, lengthBytes);
    if (this.#generation !== this.#fabric.generation) this.#refresh();
    const { dmaSpace } = this.member;
    const segments = this.#fabric.peerRouting === 'address' || dmaSpace.isUntranslated ? this.#segments : NO_SEGMENTS;
    const index = segmentIndexAtOrBelow(segments, address);
    const segment = segments[index];
    if (segment !== undefined && address < segment.end) {
      this.limit = segment.end;
      return segment;
    }
    const map = dmaSpace.lookup(address);
    if (map === undefined) throw this.failed('unsupported-request', direction, address, lengthBytes);
    if (!(direction === 'read' ? map.readable : map.writable)) {
      throw this.failed('access-denied', direction, address, lengthBytes);
    }
    const next = segments[index + 1];
    this.limit = next === undefined ? map.end : Math.min(map.end, next.start);
    return map;
  }

  /** Counts a failed request; the result is to be thrown. */
  failed(failure: DmaFailure, direction: Direction, address: number, lengthBytes: number, detail?: string): DmaError {
    this.counters.failedRequests++;
    return new DmaError(failure, direction, address, lengthBytes, detail);
  }

  countBytes(target: Target, direction: Direction, lengthBytes: number): void {
    const transfer = this.#transferOf(target);
    if (direction === 'read') transfer.bytesRead += lengthBytes;
    else transfer.bytesWritten += lengthBytes;
  }

  /** Reads registers at once, after the writes that wait for the same function. @throws DmaError would-deadlock */
  readRegisters(segment: RegisterSegment<FabricPort>, address: number, target: Uint8Array): void {
    const offset = segment.barOffset + address - segment.start;
    if (!segment.owner.#registers.read(segment.bar, offset, target)) {
      throw this.#reentry('read', segment, address, target.length);
    }
    this.#transferOf(segment).registerReads += countAlignedPieces(offset, target.length);
  }

  /** Posts a write into registers. @throws DmaError would-deadlock */
  postRegisters(segment: RegisterSegment<FabricPort>, address: number, source: Uint8Array): void {
    const offset = segment.barOffset + address - segment.start;
    if (!segment.owner.#registers.post(segment.bar, offset, source)) {
      throw this.#reentry('write', segment, address, source.length);
    }
    this.#transferOf(segment).registerWrites += countAlignedPieces(offset, source.length);
  }

  #reentry(
    direction: Direction,
    { owner }: RegisterSegment<FabricPort>,
    address: number,
    lengthBytes: number,
  ): DmaError {
    const detail = `${owner.member.name} is executing a register access that led to this one`;
    return this.failed('would-deadlock', direction, address, lengthBytes, detail);
  }

  #refresh(): void {
    this.#segments = this.#fabric.segmentsFor(this);
    this.#generation = this.#fabric.generation;
  }

  #transferOf(target: Target): TransferCounters {
    if (target.kind === 'messages') return this.counters.messages;
    if (target.kind === 'guest-memory') return this.counters.guestMemory;
    if (target.owner === this.#lastOwner) return this.#lastTransfer;
    const { peers } = this.counters;
    const { name } = target.owner.member;
    peers[name] ??= emptyTransferCounters();
    this.#lastOwner = target.owner;
    this.#lastTransfer = peers[name];
    return this.#lastTransfer;
  }
}
