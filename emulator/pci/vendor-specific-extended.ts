import type { Capability } from './capability.js';
import { CapabilityLayout, type CapabilityPlacement, placement } from './capability-layout.js';

/** Extended capability id, linux/pci_regs.h PCI_EXT_CAP_ID_VNDR. */
export const VENDOR_SPECIFIC_EXTENDED_ID = 0x000b;

/** Capability header and the vendor-specific header (linux/pci_regs.h PCI_VNDR_HEADER). */
const HEADERS_BYTES = 8;

export interface VendorSpecificExtendedOptions extends CapabilityPlacement {
  /** The vendor's own number for this structure, 16 bits. */
  readonly vsecId: number;
  /** 4 bits. */
  readonly revision: number;
  /** What follows the vendor-specific header. */
  readonly data: Uint8Array;
  /** Bits of `data` that software can write, same length. Default none. */
  readonly writable?: Uint8Array;
}

/** Vendor-Specific Extended Capability, VSEC (PCIe 6.0 §7.9.5). */
export function vendorSpecificExtended(options: VendorSpecificExtendedOptions): Capability {
  const { vsecId, revision, data, writable } = options;
  if (vsecId < 0 || vsecId > 0xffff || revision < 0 || revision > 0xf) {
    throw new RangeError(`VSEC: id ${vsecId} and revision ${revision}; the header has 16 and 4 bits for them`);
  }
  if (writable !== undefined && writable.length !== data.length) {
    throw new RangeError(
      `VSEC: writable has ${writable.length} bytes, data ${data.length}; give one mask byte per data byte`,
    );
  }
  const lengthBytes = HEADERS_BYTES + data.length;
  const layout = new CapabilityLayout(lengthBytes);
  layout.u32(4, (vsecId | (revision << 16) | (lengthBytes << 20)) >>> 0);
  layout.data(HEADERS_BYTES, data, writable);
  return {
    name: 'Vendor-Specific Extended',
    id: VENDOR_SPECIFIC_EXTENDED_ID,
    extended: true,
    version: 1,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
  };
}
