/**
 * The public plugin API: everything a device plugin is written against.
 *
 * A plugin is a plain object made by {@link definePlugin}. Its `create` returns {@link PcieFunction}s, the cards: each
 * states what it looks like on the bus (identity, BARs, capabilities) and makes its {@link FunctionModel} at power-on,
 * anew after every reset. A model behaves through register handlers and gets one {@link FunctionPort}: DMA, interrupts,
 * clock, log, deferred work. A plugin never sees a socket, a file descriptor or the vfio-user protocol, and runs
 * unchanged on the test bus of `ghostbus/testing`.
 *
 * Numbers: bus addresses, offsets and sizes are `number` (exact below 2^53; the emulator refuses anything larger before
 * it gets here). 64-bit register values are `bigint`.
 */

export type { Clock, Timer } from '../ambient/clock.js';
export type { Log } from '../ambient/log.js';
export type { FunctionCounters, LinkCounters, TransferCounters } from '../memory/counters.js';
export type { Dma } from '../memory/dma.js';
export { DmaError, type DmaFailure, PortClosedError } from '../memory/dma-error.js';
export type { MemoryRegion } from '../memory/region.js';
export type { UndeclaredAccess } from '../pci/access-tally.js';
export type { BarShape } from '../pci/bar.js';
export type { BarMemory, BarParts, BarRegisters } from '../pci/bar-parts.js';
export * from '../pci/capabilities.js';
export type { Capability } from '../pci/capability.js';
export type { ResetKind } from '../pci/config-space.js';
export type { Identity } from '../pci/identity.js';
export type { RegisterHandler } from '../pci/register-handler.js';
export { type BenchMachine, type Benchmark, median } from './bench.js';
export { API_VERSION, type PluginStamp } from './brand.js';
export { type Command, type Commands, command } from './command.js';
export {
  type FunctionModel,
  type FunctionPort,
  type PcieFunction,
  type PowerOnCause,
  type PrivateLink,
  SLICE_BYTES,
} from './function.js';
export type { GuestFile, GuestKernel, GuestModule, PluginGuest } from './guest.js';
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
export { packageFile } from './package-file.js';
export {
  type Cards,
  type CreateContext,
  type DefinedPlugin,
  definePlugin,
  type ModelOf,
  type Plugin,
} from './plugin.js';
export {
  RegisterBlock,
  type RegisterBlockOptions,
  type RegisterDeclaration,
  type RegisterField,
  type WideRegisterDeclaration,
} from './registers.js';
