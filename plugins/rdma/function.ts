/** The adapter as the bus sees it. Its command interface and its queues come in a later stage: see README.md. */
import {
  type Bar,
  type Capability,
  type CreateContext,
  type FunctionPort,
  type Identity,
  msix,
  type PcieFunction,
  pciExpress,
  powerManagement,
} from '../../emulator/plugin.js';
import { formatGuid, formatMac, macAddress, nodeGuid } from './addresses.js';
import { createInitSegment, INIT_SEGMENT_BYTES } from './init-segment.js';
import { namedAccesses, UAR_PAGE_BYTES, UarPages } from './uar.js';

export type Link = 'roce' | 'ib';

/** drivers/net/ethernet/mellanox/mlx5/core/main.c mlx5_core_pci_table: 0x1021 is ConnectX-7. Network or InfiniBand controller. */
export function identityOf(link: Link): Identity {
  return {
    vendorId: 0x15b3,
    deviceId: 0x1021,
    subsystemVendorId: 0x15b3,
    subsystemId: 0x0058,
    classCode: link === 'roce' ? 0x020000 : 0x020700,
    revisionId: 0,
  };
}

/** Like the card: table and pending bits right behind the two pages of the initialization segment. */
export const bar0 = {
  msixTableOffset: 0x2000,
  msixPendingOffset: 0x3000,
  /** Index of the first UAR: below it, a page number would meet the initialization segment or the MSI-X table. */
  firstUar: 16,
  sizeBytes: 32 * 2 ** 20,
} as const;

const MSIX_VECTORS = 16;

export class RdmaFunction implements PcieFunction {
  readonly identity: Identity;
  readonly bars: readonly Bar[];
  readonly capabilities: readonly Capability[];
  readonly #instance: number;
  readonly #initSegment: ReturnType<typeof createInitSegment>;
  readonly #uarPages: UarPages;

  constructor(context: CreateContext, link: Link) {
    this.identity = identityOf(link);
    this.#instance = context.instance;
    this.#initSegment = createInitSegment(context.log);
    this.#uarPages = new UarPages(context.log);
    const uarOffset = bar0.firstUar * UAR_PAGE_BYTES;
    this.bars = [
      {
        index: 0,
        kind: 'memory64',
        prefetchable: true,
        sizeBytes: bar0.sizeBytes,
        parts: [
          { offset: 0, sizeBytes: INIT_SEGMENT_BYTES, registers: this.#initSegment },
          { offset: uarOffset, sizeBytes: bar0.sizeBytes - uarOffset, registers: this.#uarPages },
        ],
      },
    ];
    this.capabilities = [
      powerManagement({ offset: 0x40 }),
      pciExpress({ offset: 0x60 }),
      msix({
        offset: 0x9c,
        vectors: MSIX_VECTORS,
        tableBar: 0,
        tableOffset: bar0.msixTableOffset,
        pendingBar: 0,
        pendingOffset: bar0.msixPendingOffset,
      }),
    ];
  }

  attach(_port: FunctionPort): void {}

  reset(): void {
    this.#initSegment.reset();
    this.#uarPages.reset();
  }

  inspect(): unknown {
    return {
      mac: formatMac(macAddress(this.#instance)),
      nodeGuid: formatGuid(nodeGuid(this.#instance)),
      unimplemented: [...namedAccesses(this.#initSegment), ...this.#uarPages.unimplemented()],
    };
  }
}
