/** What a device is to the machine, and what the machine offers it: the card, its model, and the model's port. */

import type { Clock } from '../ambient/clock.js';
import type { Log } from '../ambient/log.js';
import type { FunctionCounters } from '../memory/counters.js';
import type { Dma } from '../memory/dma.js';
import type { MemoryRegion } from '../memory/region.js';
import type { BarShape } from '../pci/bar.js';
import type { BarParts, BarRegisters } from '../pci/bar-parts.js';
import type { Capability } from '../pci/capability.js';
import type { ResetKind } from '../pci/config-space.js';
import type { Identity } from '../pci/identity.js';

/**
 * Why a model is made. `attach`: the function was put on the bus. `device` and `flr`: it was reset, see {@link
 * ResetKind}. `self`: its own model asked for it, see {@link FunctionPort.restart}.
 */
export type PowerOnCause = 'attach' | ResetKind | 'self';

/**
 * One emulated PCIe function, as a plugin describes it: the card. It says what the guest finds on the bus and keeps
 * what outlives a reset: options, memory regions, faults that were asked for to stay. What a reset loses is in the
 * {@link FunctionModel}, which the card makes anew each time.
 */
export interface PcieFunction<Model extends FunctionModel = FunctionModel> {
  /** Appended to the instance name when a plugin returns several functions, for example `p0` for `rdma0p0`. */
  readonly nameSuffix?: string;
  readonly identity: Identity;
  readonly bars: readonly BarShape[];
  readonly capabilities: readonly Capability[];
  /** Expansion ROM image, served from the ROM BAR; padded to a power of two with 0xff. At most 1 MiB. */
  readonly rom?: Uint8Array;
  /** What this function lets others reach over private links; see {@link FunctionPort.link}. */
  readonly linkMemory?: MemoryRegion;
  /**
   * Makes the model as it is after power-on: once before the first access, and anew after every reset. `port` belongs
   * to this model alone and is dead once the model is thrown away. When it throws, a function that is being attached is
   * refused; after a reset the function is broken until the next one.
   */
  powerOn(port: FunctionPort, cause: PowerOnCause): Model;
  /** The emulator is shutting down or the function is removed; memory regions are closed by the emulator afterwards. */
  detach?(): void;
}

/**
 * Everything of a function that a reset loses: registers, engines, queues. It is thrown away whole, so nothing in it
 * has to be set back, and work of it that was under way cannot disturb its successor.
 */
export interface FunctionModel {
  /**
   * What lies behind each BAR, by its index; a BAR without an entry reads as zero. The memory parts must be the same at
   * every power-on: the guest has them mapped.
   */
  readonly bars: Readonly<Record<number, BarParts>>;
  /**
   * Vendor registers inside configuration space that no capability describes (the ELBI mailbox of a Gaudi at 0xFF0).
   * Sorted, disjoint, dword-aligned ranges; accesses are naturally aligned.
   */
  readonly configRegisters?: readonly BarRegisters[];
  /** Everything about this function that is worth showing a person: register counts, engine states. Plain JSON. */
  inspect?(): unknown;
  /**
   * The model is about to be thrown away, by a reset or because the function leaves the machine: let go of what is
   * outside of it (files, the other end of a cable). The port is dead already.
   */
  powerOff?(): void;
}

/** One function's end of a private link to another: the other's memory, past the bus. */
export interface PrivateLink {
  readonly memory: MemoryRegion;
  /** To be called for every access to {@link memory}: counted in {@link FunctionCounters.links}, not as DMA. */
  count(direction: 'read' | 'write', lengthBytes: number): void;
}

/**
 * What the machine offers one model. Once the model is thrown away its port is dead: nothing that was posted or timed
 * runs any more, interrupts go nowhere, and DMA throws {@link PortClosedError}, so that work which a reset interrupted
 * ends there.
 */
export interface FunctionPort {
  /** Name of this function in logs and counters, for example `gpu0`. */
  readonly name: string;
  readonly dma: Dma;
  readonly clock: Clock;
  readonly log: Log;
  /** True while the guest lets this function master the bus (COMMAND.BME, not in D3). */
  readonly busMasterEnabled: boolean;
  /**
   * Sends the MSI-X or MSI message `vector` (0-based). Everything written by DMA before is visible to the guest before
   * the interrupt. Nothing happens while the guest has not enabled the vector.
   * Throws RangeError when the function has no such vector.
   */
  interrupt(vector: number): void;
  /**
   * Runs `work` on the bus thread after the current request has been answered and after requests that already wait on
   * other functions' sockets of the same machine. Work of one function runs in the order it was posted. A long job does
   * a slice (about a millisecond, or {@link SLICE_BYTES} of copying) and posts the rest, so that no register access
   * waits. Work posted before a reset of the function is dropped.
   */
  post(work: () => void): void;
  /**
   * Another function of the same emulator, for devices that know each other by other ways than the bus (the two ends of
   * a cable); undefined if there is none of that name. Ordinary DMA needs none of this.
   */
  sibling(name: string): PcieFunction | undefined;
  /**
   * The device resets itself (a driver asked for it through a register, firmware starts over): this model is thrown
   * away and a new one made before the call returns. Configuration space stays as it is, and so do the addresses of the
   * BARs.
   */
  restart(): void;
  /**
   * The function is gone from the bus, as a card that is pulled out: reads of its registers and of configuration space
   * give all ones, writes are dropped, peers find nobody, its posted work, timers, DMA and interrupts end. Only a reset
   * by the machine (`device`) brings it back. Memory that the guest has mapped cannot be taken away from it: it stays
   * readable.
   */
  vanish(): void;
  /**
   * A private link (an XGMI hive) to the {@link PcieFunction.linkMemory} of another function of the same emulator;
   * undefined if there is no such function, or it has none. No bus address and no Bus Master Enable is involved.
   */
  link(name: string): PrivateLink | undefined;
}

/** A slice of copying: small enough that a register access never notices, large enough to run at memcpy speed. */
export const SLICE_BYTES = 4 * 1024 * 1024;
