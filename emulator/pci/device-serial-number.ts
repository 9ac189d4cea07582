import type { Capability } from './capability.js';
import { CapabilityLayout, type CapabilityPlacement, placement } from './capability-layout.js';

/** Extended capability id, linux/pci_regs.h PCI_EXT_CAP_ID_DSN. */
export const DEVICE_SERIAL_NUMBER_ID = 0x0003;

export interface DeviceSerialNumberOptions extends CapabilityPlacement {
  /** EUI-64. */
  readonly serialNumber: bigint;
}

/** Device Serial Number (PCIe 6.0 §7.9.3): read-only, low half first. */
export function deviceSerialNumber(options: DeviceSerialNumberOptions): Capability {
  const { serialNumber } = options;
  if (BigInt.asUintN(64, serialNumber) !== serialNumber) {
    throw new RangeError(`device serial number ${serialNumber} does not fit in 64 bits`);
  }
  const layout = new CapabilityLayout(12);
  layout.u32(4, Number(serialNumber & 0xffffffffn));
  layout.u32(8, Number(serialNumber >> 32n));
  return {
    name: 'Device Serial Number',
    id: DEVICE_SERIAL_NUMBER_ID,
    extended: true,
    version: 1,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
  };
}
