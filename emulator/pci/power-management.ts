import type { Capability } from './capability.js';
import { CapabilityLayout, type CapabilityPlacement, placement } from './capability-layout.js';

/** Capability id, linux/pci_regs.h PCI_CAP_ID_PM. */
export const POWER_MANAGEMENT_ID = 0x01;
/** Offset of PMCSR inside the capability, linux/pci_regs.h PCI_PM_CTRL. */
export const PMCSR = 4;
/** linux/pci_regs.h PCI_PM_CTRL_STATE_MASK: 0 is D0, 3 is D3hot. */
export const PMCSR_STATE_MASK = 0x3;

/** linux/pci_regs.h PCI_PM_PMC, PCI_PM_CAP_VER_MASK: version 3 (PCI Power Management 1.2). No D1, no D2, no PME. */
const PMC = 2;
const PMC_VERSION_3 = 3;
/** linux/pci_regs.h PCI_PM_CTRL_NO_SOFT_RESET: going from D3hot to D0 keeps the function's state. */
const NO_SOFT_RESET = 0x8;

/**
 * Power Management capability (PCI Power Management 1.2 §3.2): D0 and D3hot, no PME, state kept across D3hot.
 */
export function powerManagement(options: CapabilityPlacement = {}): Capability {
  const layout = new CapabilityLayout(8);
  layout.u16(PMC, PMC_VERSION_3);
  layout.u16(PMCSR, NO_SOFT_RESET, { writable: PMCSR_STATE_MASK });
  return {
    name: 'Power Management',
    id: POWER_MANAGEMENT_ID,
    extended: false,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
    afterWrite: keepLegalState,
  };
}

/**
 * A write of a state that the function lacks (D1, D2) completes and changes nothing (§3.2.4), as
 * QEMU's pci_pm_update has it.
 */
function keepLegalState(current: Uint8Array, _written: Uint8Array, previous: Uint8Array): undefined {
  const state = current[PMCSR]! & PMCSR_STATE_MASK;
  if (state === 1 || state === 2) {
    current[PMCSR] = (current[PMCSR]! & ~PMCSR_STATE_MASK) | (previous[PMCSR]! & PMCSR_STATE_MASK);
  }
}
