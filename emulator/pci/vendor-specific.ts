import type { Capability } from './capability.js';
import { CapabilityLayout, type CapabilityPlacement, placement } from './capability-layout.js';

/** Capability id, linux/pci_regs.h PCI_CAP_ID_VNDR. */
export const VENDOR_SPECIFIC_ID = 0x09;

export interface VendorSpecificOptions extends CapabilityPlacement {
  /** What follows the length byte, 1 to 189 bytes. */
  readonly data: Uint8Array;
  /** Bits of `data` that software can write, same length. Default none. */
  readonly writable?: Uint8Array;
}

/** Vendor-specific capability (PCI Local Bus 3.0 Appendix H): id, next, length of the whole capability, data. */
export function vendorSpecific(options: VendorSpecificOptions): Capability {
  const { data, writable } = options;
  // 0x40 to 0xff is all that a standard capability can have.
  if (data.length < 1 || data.length > 189) {
    throw new RangeError(`vendor-specific capability: ${data.length} bytes of data; 1 to 189 fit`);
  }
  if (writable !== undefined && writable.length !== data.length) {
    throw new RangeError(
      `vendor-specific capability: writable has ${writable.length} bytes, data ${data.length}; give one mask byte per data byte`,
    );
  }
  const layout = new CapabilityLayout(3 + data.length);
  layout.bytes[2] = 3 + data.length;
  layout.data(3, data, writable);
  return {
    name: 'Vendor-Specific',
    id: VENDOR_SPECIFIC_ID,
    extended: false,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
  };
}
