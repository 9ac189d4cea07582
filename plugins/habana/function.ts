/** The accelerator as the bus sees it. Its engines and its management processor come in a later stage: see README.md. */
import {
  type Bar,
  type Capability,
  type CreateContext,
  type FunctionPort,
  type Identity,
  type MemoryRegion,
  msi,
  type PcieFunction,
  pciExpress,
} from '../../emulator/plugin.js';
import { CFG_BAR, CFG_BAR_BYTES, HBM_BAR, SRAM_BAR, SRAM_BAR_BYTES } from './address-map.js';
import { CfgSpace } from './cfg-space.js';
import { ElbiMailbox } from './elbi.js';

/** L/common/habanalabs_drv.c ids: PCI_VENDOR_ID_HABANALABS, PCI_IDS_GAUDI. Class: processing accelerator. */
export const identity: Identity = {
  vendorId: 0x1da3,
  deviceId: 0x1000,
  subsystemVendorId: 0x1da3,
  subsystemId: 0x1000,
  classCode: 0x120000,
  revisionId: 1,
};

/** The card offers 32 messages; the driver asks for one (L/gaudi/gaudi.c gaudi_enable_msi). */
const MSI_VECTORS = 32;

/** Serial number of the card, as its management processor will report it. Made up, and different for every instance. */
export function serialNumber(instance: number): string {
  return `GB${String(instance).padStart(8, '0')}`;
}

export class HabanaFunction implements PcieFunction {
  readonly identity = identity;
  readonly bars: readonly Bar[];
  readonly capabilities: readonly Capability[];
  readonly configRegisters: NonNullable<PcieFunction['configRegisters']>;
  readonly #serialNumber: string;
  readonly #sram: MemoryRegion;
  readonly #hbm: MemoryRegion;
  readonly #cfg: CfgSpace;
  readonly #elbi: ElbiMailbox;

  constructor(context: CreateContext, hbmBytes: number) {
    this.#serialNumber = serialNumber(context.instance);
    this.#sram = context.createMemory('sram', SRAM_BAR_BYTES);
    this.#hbm = context.createMemory('hbm', hbmBytes);
    this.#cfg = new CfgSpace(context.log);
    this.#elbi = new ElbiMailbox(this.#cfg, context.log);
    this.configRegisters = [this.#elbi.configRegisters];
    this.bars = [
      memoryBar(SRAM_BAR, this.#sram),
      {
        index: CFG_BAR,
        kind: 'memory64',
        prefetchable: true,
        sizeBytes: CFG_BAR_BYTES,
        parts: this.#cfg.barParts(),
      },
      memoryBar(HBM_BAR, this.#hbm),
    ];
    this.capabilities = [msi({ offset: 0x50, vectors: MSI_VECTORS }), pciExpress({ offset: 0x70 })];
  }

  attach(_port: FunctionPort): void {}

  /** HBM keeps its contents over a function-level reset, as memory that is refreshed does. */
  reset(kind: 'device' | 'flr'): void {
    this.#cfg.reset();
    this.#elbi.reset();
    if (kind === 'device') {
      this.#sram.fill(0, 0, this.#sram.sizeBytes);
      this.#hbm.fill(0, 0, this.#hbm.sizeBytes);
    }
  }

  inspect(): unknown {
    return {
      serialNumber: this.#serialNumber,
      hbmAllocatedBytes: this.#hbm.allocatedBytes(),
      sramAllocatedBytes: this.#sram.allocatedBytes(),
      unimplemented: this.#cfg.unimplemented(),
    };
  }
}

function memoryBar(index: 0 | 4, memory: MemoryRegion): Bar {
  const { sizeBytes } = memory;
  return {
    index,
    kind: 'memory64',
    prefetchable: true,
    sizeBytes,
    parts: [{ offset: 0, sizeBytes, memory }],
  };
}
