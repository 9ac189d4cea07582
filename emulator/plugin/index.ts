/**
 * The public plugin API: everything a device plugin is written against.
 *
 * A plugin is a plain object made by {@link definePlugin}. Its `create` returns {@link PcieFunction}s: each states what it
 * looks like on the bus (identity, BARs, capabilities) and behaves through register handlers. The emulator hands every
 * function one {@link FunctionPort}: DMA, interrupts, clock, log, deferred work. A plugin never sees a socket, a file
 * descriptor or the vfio-user protocol, and runs unchanged on the fake bus of `ghostbus/testing`.
 *
 * Numbers: bus addresses, offsets and sizes are `number` (exact below 2^53; the emulator refuses anything larger before it
 * gets here). 64-bit register values are `bigint`.
 */
import type { z } from 'zod';
import type { MemoryRegion } from '../memory/region.js';
import type { Capability } from '../pci/capability.js';
import type { Benchmark } from './bench.js';
import type { PluginMatrix } from './matrix.js';

export type { FunctionCounters, LinkCounters, TransferCounters } from '../memory/counters.js';
export { DmaError, type DmaFailure } from '../memory/dma-error.js';
export type { MemoryRegion } from '../memory/region.js';
export * from '../pci/capabilities.js';
export type { Capability } from '../pci/capability.js';
export type { UndeclaredAccess } from './access-tally.js';
export { type BenchMachine, type Benchmark, median } from './bench.js';
export {
  type Exporter,
  type FunctionExporter,
  type GuestMemoryExporter,
  type GuestPlaces,
  type Importer,
  type ImportTask,
  type KernelFacts,
  type MatrixDriver,
  type PluginMatrix,
  type Refusal,
  type Transfer,
  taskArguments,
  WITHOUT_P2PDMA,
  type WithoutDevice,
} from './matrix.js';
export { type ByteSizeLimits, byteSize, formatByteSize, parseByteSize } from './options.js';
export {
  RegisterBlock,
  type RegisterBlockOptions,
  type RegisterDeclaration,
  type RegisterField,
  type WideRegisterDeclaration,
} from './registers.js';

/** What the function is, as its configuration header says it (PCI Local Bus 3.0 §6.2.1). */
export interface Identity {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  /** 24 bits: base class, subclass, programming interface; for example 0x020000 for an Ethernet controller. */
  readonly classCode: number;
  readonly revisionId: number;
}

/**
 * Registers with side effects: a part of a BAR where every access traps.
 *
 * Accesses are naturally aligned and 1, 2, 4 or 8 bytes wide, little-endian. They come from the guest's CPU or from a
 * peer's DMA. A handler must return at once: QEMU holds its big lock meanwhile and gives the function up after 5 s. Work
 * that takes longer goes to {@link FunctionPort.post}. An 8-byte access reaches a handler without `read64`/`write64` as
 * two 4-byte accesses, lower address first.
 *
 * A handler that throws breaks its function: the emulator logs register, value and stack and reports the function broken.
 */
export interface RegisterHandler {
  /** Answers a read of `sizeBytes` (1, 2 or 4) at `offset` bytes from the start of this register range. */
  read(offset: number, sizeBytes: number): number;
  /** Takes a write of `sizeBytes` (1, 2 or 4) at `offset` bytes from the start of this register range. */
  write(offset: number, sizeBytes: number, value: number): void;
  read64?(offset: number): bigint;
  write64?(offset: number, value: bigint): void;
  /** Name of the register at `offset`, for logs. {@link RegisterBlock} has it. */
  nameAt?(offset: number): string;
}

/** A part of a BAR that is plain memory: QEMU maps it into the guest, accesses never trap. */
export interface BarMemory {
  readonly offset: number;
  readonly sizeBytes: number;
  readonly memory: MemoryRegion;
  /** Where in `memory` this part starts. Default: `offset`. */
  readonly memoryOffset?: number;
}

/** A part of a BAR where accesses trap into a {@link RegisterHandler}. */
export interface BarRegisters {
  readonly offset: number;
  readonly sizeBytes: number;
  readonly registers: RegisterHandler;
}

/**
 * One base address register. Its parts are sorted and do not overlap; memory parts are multiples of 4 KiB, all lie in one
 * {@link MemoryRegion} per BAR (a vfio region has one file) and share one value of `memoryOffset - offset`.
 * Addresses outside every part read as zero, drop writes and are counted as unimplemented.
 */
export interface Bar {
  readonly index: 0 | 1 | 2 | 3 | 4 | 5;
  readonly kind: 'memory32' | 'memory64' | 'io';
  readonly prefetchable?: boolean;
  /** A power of two. A memory64 BAR also takes the next index. */
  readonly sizeBytes: number;
  readonly parts: readonly (BarMemory | BarRegisters)[];
}

/**
 * Why a function is reset. `device`: the machine or the bridge above reset it (vfio-user DEVICE_RESET). `flr`: the guest
 * wrote Initiate Function Level Reset (PCIe 6.0 §6.6.2). Either way the emulator has already reset configuration space and
 * dropped posted work and timers of this function; the function restores its own power-on state.
 */
export type ResetKind = 'device' | 'flr';

/** One emulated PCIe function, as a plugin describes it. */
export interface PcieFunction {
  /** Appended to the instance name when a plugin returns several functions, for example `p0` for `rdma0p0`. */
  readonly nameSuffix?: string;
  readonly identity: Identity;
  readonly bars: readonly Bar[];
  readonly capabilities: readonly Capability[];
  /** Expansion ROM image, served from the ROM BAR; padded to a power of two with 0xff. At most 1 MiB. */
  readonly rom?: Uint8Array;
  /**
   * Vendor registers inside configuration space that no capability describes (the ELBI mailbox of a Gaudi at 0xFF0).
   * Sorted, disjoint, dword-aligned ranges; accesses are naturally aligned.
   */
  readonly configRegisters?: readonly BarRegisters[];
  /** What this function lets others reach over private links; see {@link FunctionPort.link}. */
  readonly linkMemory?: MemoryRegion;
  /** Called once, before any access, with the function's connection to the machine. */
  attach(port: FunctionPort): void;
  /** Return to the power-on state. */
  reset(kind: ResetKind): void;
  /**
   * Commands for tests and for people (`ghostbus ctl`): faults to inject, state to show. Runs on the bus thread.
   * Throws with a clear message on an unknown command. The result is plain JSON.
   */
  control?(command: string, args: Readonly<Record<string, unknown>>): unknown;
  /** Everything about this function that is worth showing a person: register counts, engine states. Plain JSON. */
  inspect?(): unknown;
  /** The emulator is shutting down or the function is removed; memory regions are closed by the emulator afterwards. */
  detach?(): void;
}

/**
 * DMA as this function's requests on the bus. Each request is checked against Bus Master Enable and routed by the fabric:
 * a peer's BAR, guest memory, DMA messages, else Unsupported Request.
 *
 * Every call either completes wholly or throws {@link DmaError} (possibly after moving a first part, as hardware would).
 * Addresses may cross guest pages and mappings freely. No call needs alignment; a write into a peer's registers is split
 * into naturally aligned pieces of at most 8 bytes.
 *
 * Calls are legal from posted work and from timers. From inside a register handler, only memory that is mapped (guest RAM,
 * peer memory) can be reached; memory that needs DMA messages throws {@link DmaError} there, because QEMU cannot answer a
 * message while it waits for the handler. While a message is awaited, register accesses of this function are served.
 */
export interface Dma {
  read(address: number, target: Uint8Array): void;
  write(address: number, source: Uint8Array): void;
  /** Moves bytes from one bus address to another without a detour where both ends are memory. Ranges must not overlap. */
  copy(destination: number, source: number, lengthBytes: number): void;
  /** Fills with one byte; a large fill with zero of a peer's memory region punches a hole. */
  fill(address: number, value: number, lengthBytes: number): void;
  /** Moves bytes from this function's own memory to the bus. */
  writeFrom(address: number, memory: MemoryRegion, memoryOffset: number, lengthBytes: number): void;
  /** Moves bytes from the bus into this function's own memory. */
  readInto(address: number, memory: MemoryRegion, memoryOffset: number, lengthBytes: number): void;
  readU8(address: number): number;
  readU16(address: number): number;
  readU32(address: number): number;
  readU64(address: number): bigint;
  readU16BE(address: number): number;
  readU32BE(address: number): number;
  readU64BE(address: number): bigint;
  writeU8(address: number, value: number): void;
  writeU16(address: number, value: number): void;
  writeU32(address: number, value: number): void;
  writeU64(address: number, value: bigint): void;
  writeU16BE(address: number, value: number): void;
  writeU32BE(address: number, value: number): void;
  writeU64BE(address: number, value: bigint): void;
}

/** Time as the function sees it. Tests own it; under a guest it is the host's monotonic clock. */
export interface Clock {
  /** Nanoseconds since an arbitrary start, monotonic. */
  nowNs(): bigint;
  /** Runs `callback` once on the bus thread, not before `delayMs` from now. A reset of the function cancels it. */
  after(delayMs: number, callback: () => void): Timer;
}

export interface Timer {
  cancel(): void;
}

/** Structured log of one function; `fields` become keys of the record. */
export interface Log {
  debug(message: string, fields?: Readonly<Record<string, unknown>>): void;
  info(message: string, fields?: Readonly<Record<string, unknown>>): void;
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void;
  error(message: string, fields?: Readonly<Record<string, unknown>>): void;
}

/** One function's end of a private link to another: the other's memory, past the bus. */
export interface PrivateLink {
  readonly memory: MemoryRegion;
  /** To be called for every access to {@link memory}: counted in {@link FunctionCounters.links}, not as DMA. */
  count(direction: 'read' | 'write', lengthBytes: number): void;
}

/** What the machine offers one function. */
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
   * the interrupt. Nothing happens (it is counted) while the guest has not enabled the vector.
   * Throws RangeError when the function has no such vector.
   */
  interrupt(vector: number): void;
  /**
   * Runs `work` on the bus thread after the current request has been answered and after requests that already wait on
   * other functions' sockets of the same machine. Work of one function runs in the order it was posted. A long job does a
   * slice (about a millisecond, or {@link SLICE_BYTES} of copying) and posts the rest, so that no register access waits.
   * Work posted before a reset of the function is dropped.
   */
  post(work: () => void): void;
  /**
   * Another function of the same emulator, for devices that know each other by other ways than the bus (the two ends of a
   * cable); undefined if there is none of that name. Ordinary DMA needs none of this.
   */
  sibling(name: string): PcieFunction | undefined;
  /**
   * The function is gone from the bus, as a card that is pulled out: reads of its registers and of configuration space give
   * all ones, writes are dropped, peers find nobody, its posted work, timers, DMA and interrupts end. Only a reset by the
   * machine (`device`) brings it back. Memory that the guest has mapped cannot be taken away from it: it stays readable.
   */
  vanish(): void;
  /**
   * A private link (an XGMI hive) to the {@link PcieFunction.linkMemory} of another function of the same emulator; undefined
   * if there is no such function, or it has none. No bus address and no Bus Master Enable is involved.
   */
  link(name: string): PrivateLink | undefined;
}

/** A slice of copying: small enough that a register access never notices, large enough to run at memcpy speed. */
export const SLICE_BYTES = 4 * 1024 * 1024;

/** What `create` gets beside the options. */
export interface CreateContext {
  /** The name the function will carry, for example `gpu0`; several functions of one instance add their `nameSuffix`. */
  readonly name: string;
  /** 0-based position of this instance among all instances of the plugin; for serial numbers, GUIDs and MAC addresses. */
  readonly instance: number;
  readonly log: Log;
  /** A zero-filled, sparse, memfd-backed memory. It costs nothing until touched. */
  createMemory(name: string, sizeBytes: number): MemoryRegion;
}

/** A file that the guest needs so that the stock driver accepts the function: a firmware stub, a configuration snippet. */
export interface GuestFile {
  /** Absolute path in the guest. */
  readonly path: string;
  readonly contents: Uint8Array;
  readonly mode?: number;
}

/** A plugin: a name, options with a schema, and a factory of functions. */
export interface Plugin<Options = unknown> {
  readonly name: string;
  /** One line for `ghostbus devices`. */
  readonly description: string;
  /**
   * A zod object schema; every key described, every key optional or with a default. Values arrive as strings from
   * `name,key=value,…` (use `z.coerce`, or `byteSize()` of `./options.js` for sizes such as `16G`).
   */
  readonly options: z.ZodType<Options>;
  create(options: Options, context: CreateContext): PcieFunction | readonly PcieFunction[];
  /** Files that every guest with this device needs. */
  guestFiles?(options: Options): readonly GuestFile[];
  /** Guest kernel modules that drive it; shown by `ghostbus devices`. */
  readonly drivers?: readonly string[];
  /** What it brings to `ghostbus matrix`. */
  readonly matrix?: PluginMatrix;
  /** What `npm run bench -- --guest` measures of it. */
  readonly bench?: readonly Benchmark[];
}

/** Declares a plugin. It only checks and types its argument: a plugin is plain data and functions. */
export function definePlugin<Options>(plugin: Plugin<Options>): Plugin<Options> {
  if (!/^[a-z][a-z0-9-]*$/.test(plugin.name)) {
    throw new Error(`plugin name ${JSON.stringify(plugin.name)} must be lower-case letters, digits and dashes`);
  }
  return plugin;
}
