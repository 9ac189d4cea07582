import type { Capability } from './capability.js';
import {
  CapabilityLayout,
  type CapabilityPlacement,
  placement,
  putLittleEndian,
  readU16,
} from './capability-layout.js';

/** Capability id, linux/pci_regs.h PCI_CAP_ID_MSI. */
export const MSI_ID = 0x05;

/** linux/pci_regs.h PCI_MSI_FLAGS and its bits. */
const CONTROL = 2;
const CONTROL_ENABLE = 0x0001;
const CONTROL_CAPABLE_SHIFT = 1;
const CONTROL_ENABLED_MASK = 0x0070;
const CONTROL_ENABLED_SHIFT = 4;
const CONTROL_ADDRESS64 = 0x0080;
const CONTROL_PER_VECTOR_MASK = 0x0100;

export interface MsiOptions extends CapabilityPlacement {
  /** Messages the function can send: a power of two, 1 to 32. */
  readonly vectors: number;
  /** 64-bit message address. Default true. */
  readonly address64?: boolean;
  /** Mask and pending bits per vector. Default false. */
  readonly perVectorMask?: boolean;
}

/**
 * MSI capability (PCI Local Bus 3.0 §6.8.1). Multiple Message Enable never exceeds what the function offers: a
 * larger value is stored as the largest one offered.
 */
export function msi(options: MsiOptions): Capability {
  const { vectors, address64 = true, perVectorMask = false } = options;
  const capable = Math.log2(vectors);
  if (!Number.isInteger(capable) || capable < 0 || capable > 5) {
    throw new RangeError(`MSI: vectors is ${vectors}; make it a power of two from 1 to 32`);
  }
  const dataOffset = address64 ? 12 : 8;
  const maskOffset = dataOffset + 4;
  const layout = new CapabilityLayout(perVectorMask ? maskOffset + 8 : dataOffset + 2);
  const control =
    (capable << CONTROL_CAPABLE_SHIFT) |
    (address64 ? CONTROL_ADDRESS64 : 0) |
    (perVectorMask ? CONTROL_PER_VECTOR_MASK : 0);
  layout.u16(CONTROL, control, { writable: CONTROL_ENABLE | CONTROL_ENABLED_MASK });
  layout.u32(4, 0, { writable: 0xfffffffc });
  if (address64) layout.u32(8, 0, { writable: 0xffffffff });
  layout.u16(dataOffset, 0, { writable: 0xffff });
  if (perVectorMask) layout.u32(maskOffset, 0, { writable: 2 ** vectors - 1 });
  return {
    name: 'MSI',
    id: MSI_ID,
    extended: false,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
    interrupts: { kind: 'msi', vectors },
    afterWrite: (current) => clampEnabledVectors(current, capable),
  };
}

function clampEnabledVectors(current: Uint8Array, capable: number): undefined {
  const control = readU16(current, CONTROL);
  const enabled = (control & CONTROL_ENABLED_MASK) >> CONTROL_ENABLED_SHIFT;
  if (enabled > capable) {
    putLittleEndian(current, CONTROL, 2, (control & ~CONTROL_ENABLED_MASK) | (capable << CONTROL_ENABLED_SHIFT));
  }
}
