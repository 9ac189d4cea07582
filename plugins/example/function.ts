/**
 * The function as the bus sees it: identity, BARs, capabilities, and the memory that outlives a reset. Everything
 * else is in the model, which is made at power-on.
 */
import {
  type BarShape,
  type Capability,
  type CreateContext,
  type FunctionPort,
  type Identity,
  type MemoryRegion,
  msix,
  type PcieFunction,
  type PowerOnCause,
  pciExpress,
  powerManagement,
} from 'ghostbus';
import { ExampleModel } from './model.js';
import { bar0, MEMORY_BAR, vectors } from './registers.js';

/**
 * The PCI ID database (pci.ids) knows no owner of vendor 0x1234; QEMU's teaching device lives there
 * too (1234:11e8, QEMU docs/specs/edu). The only stock Linux driver for this vendor matches device
 * 0x1111 (drivers/gpu/drm/tiny/bochs.c, bochs_pci_tbl). Class 0x088000, "system peripheral, other",
 * is what DMA engines carry and no driver matches by.
 */
const identity: Identity = {
  vendorId: 0x1234,
  deviceId: 0x6762,
  subsystemVendorId: 0x1234,
  subsystemId: 0x0001,
  classCode: 0x088000,
  revisionId: 1,
};

export class ExampleFunction implements PcieFunction<ExampleModel> {
  readonly identity = identity;
  readonly bars: readonly BarShape[];
  readonly capabilities: readonly Capability[];
  readonly #memory: MemoryRegion;

  constructor(context: CreateContext, memoryBytes: number) {
    this.#memory = context.createMemory('memory', memoryBytes);
    this.bars = [
      { index: 0, kind: 'memory32', sizeBytes: bar0.sizeBytes },
      { index: MEMORY_BAR, kind: 'memory64', prefetchable: true, sizeBytes: memoryBytes },
    ];
    this.capabilities = [
      powerManagement(),
      pciExpress({ functionLevelReset: true }),
      msix({
        vectors: Object.keys(vectors).length,
        tableBar: 0,
        tableOffset: bar0.msixTableOffset,
        pendingBar: 0,
        pendingOffset: bar0.msixPendingOffset,
      }),
    ];
  }

  /**
   * Device memory loses its contents, as memory without refresh does; CONTROL.RESET is about the engine only and leaves
   * it.
   */
  powerOn(port: FunctionPort, cause: PowerOnCause): ExampleModel {
    if (cause !== 'self') this.#memory.fill(0, 0, this.#memory.sizeBytes);
    return new ExampleModel(port, this.#memory);
  }
}
