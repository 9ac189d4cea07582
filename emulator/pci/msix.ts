import type { Capability } from './capability.js';
import { CapabilityLayout, type CapabilityPlacement, placement } from './capability-layout.js';

/** Capability id, linux/pci_regs.h PCI_CAP_ID_MSIX. */
export const MSIX_ID = 0x11;
/**
 * Bytes of one table entry: address, data, vector control (PCI Local Bus 3.0 §6.8.2;
 * linux/pci_regs.h PCI_MSIX_ENTRY_SIZE).
 */
export const MSIX_ENTRY_BYTES = 16;

/** linux/pci_regs.h PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_MASKALL and PCI_MSIX_FLAGS_ENABLE. */
const CONTROL = 2;
const CONTROL_MASKALL = 0x4000;
const CONTROL_ENABLE = 0x8000;
/** linux/pci_regs.h PCI_MSIX_TABLE and PCI_MSIX_PBA: BAR index in bits 2:0, offset in the rest. */
const TABLE = 4;
const PENDING = 8;
/** linux/pci_regs.h PCI_MSIX_FLAGS_QSIZE holds vectors - 1 in 11 bits. */
const MAX_VECTORS = 2048;

export interface MsixOptions extends CapabilityPlacement {
  /** Table entries, 1 to 2048. */
  readonly vectors: number;
  readonly tableBar: number;
  /** Multiple of 8. Give table and pending bits pages of their own: QEMU lays its own table over them. */
  readonly tableOffset: number;
  readonly pendingBar: number;
  /** Multiple of 8. */
  readonly pendingOffset: number;
}

/** Bytes of the Pending Bit Array: one bit per vector in 64-bit words (PCI Local Bus 3.0 §6.8.2.10). */
export function pendingBytes(vectors: number): number {
  return Math.ceil(vectors / 64) * 8;
}

/** MSI-X capability (PCI Local Bus 3.0 §6.8.2). The table itself never reaches the emulator: QEMU keeps it. */
export function msix(options: MsixOptions): Capability {
  const { vectors, tableBar, tableOffset, pendingBar, pendingOffset } = options;
  if (!Number.isInteger(vectors) || vectors < 1 || vectors > MAX_VECTORS) {
    throw new RangeError(`MSI-X: vectors is ${vectors}; the table has 1 to ${MAX_VECTORS} entries`);
  }
  const layout = new CapabilityLayout(12);
  layout.u16(CONTROL, vectors - 1, { writable: CONTROL_MASKALL | CONTROL_ENABLE });
  layout.u32(TABLE, location('table', tableBar, tableOffset));
  layout.u32(PENDING, location('pending bits', pendingBar, pendingOffset));
  return {
    name: 'MSI-X',
    id: MSIX_ID,
    extended: false,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
    interrupts: { kind: 'msix', vectors, tableBar, tableOffset, pendingBar, pendingOffset },
  };
}

function location(what: string, bar: number, offset: number): number {
  if (!Number.isInteger(bar) || bar < 0 || bar > 5)
    throw new RangeError(`MSI-X: ${what} in BAR ${bar}; a function has BARs 0 to 5`);
  if (!Number.isInteger(offset) || offset < 0 || offset > 0xffffffff || offset % 8 !== 0) {
    throw new RangeError(`MSI-X: ${what} at offset ${offset}; it must be a multiple of 8 below 4 GiB`);
  }
  return offset + bar;
}
