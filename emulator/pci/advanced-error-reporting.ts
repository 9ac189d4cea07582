import type { Capability } from './capability.js';
import { CapabilityLayout, type CapabilityPlacement, placement } from './capability-layout.js';

/** Extended capability id, linux/pci_regs.h PCI_EXT_CAP_ID_ERR. */
const ADVANCED_ERROR_REPORTING_ID = 0x0001;

/**
 * Register offsets, linux/pci_regs.h PCI_ERR_*. Header and prefix logs stay zero: nothing ever goes wrong on this link.
 */
const UNCORRECTABLE_STATUS = 0x04;
const UNCORRECTABLE_MASK = 0x08;
const UNCORRECTABLE_SEVERITY = 0x0c;
const CORRECTABLE_STATUS = 0x10;
const CORRECTABLE_MASK = 0x14;
const LENGTH_BYTES = 0x48;

/**
 * Data link protocol, surprise down, and all from poisoned TLP to TLP prefix blocked; linux/pci_regs.h PCI_ERR_UNC_*.
 */
const UNCORRECTABLE_DEFINED = 0x03fff030;
/**
 * PCIe 6.0 §7.8.4.4 defaults: link protocol, surprise down, flow control, overflow, malformed TLP, internal are fatal.
 */
const UNCORRECTABLE_FATAL = 0x00462030;
/** linux/pci_regs.h PCI_ERR_UNC_INTN: masked at power-on (PCIe 6.0 §7.8.4.3). */
const UNCORRECTABLE_INTERNAL = 0x00400000;
/** linux/pci_regs.h PCI_ERR_COR_*: receiver, bad TLP, bad DLLP, rollover, timer, advisory, internal, log overflow. */
const CORRECTABLE_DEFINED = 0xf1c1;
/** linux/pci_regs.h PCI_ERR_COR_ADV_NFAT: masked at power-on (PCIe 6.0 §7.8.4.6). */
const CORRECTABLE_ADVISORY = 0x2000;

/** Advanced Error Reporting, version 2 (PCIe 6.0 §7.8.4). Every register is sticky. */
export function advancedErrorReporting(options: CapabilityPlacement = {}): Capability {
  const layout = new CapabilityLayout(LENGTH_BYTES);
  const uncorrectable = { writable: UNCORRECTABLE_DEFINED, sticky: UNCORRECTABLE_DEFINED };
  layout.u32(UNCORRECTABLE_STATUS, 0, { writeOneToClear: UNCORRECTABLE_DEFINED, sticky: UNCORRECTABLE_DEFINED });
  layout.u32(UNCORRECTABLE_MASK, UNCORRECTABLE_INTERNAL, uncorrectable);
  layout.u32(UNCORRECTABLE_SEVERITY, UNCORRECTABLE_FATAL, uncorrectable);
  layout.u32(CORRECTABLE_STATUS, 0, { writeOneToClear: CORRECTABLE_DEFINED, sticky: CORRECTABLE_DEFINED });
  layout.u32(CORRECTABLE_MASK, CORRECTABLE_ADVISORY, { writable: CORRECTABLE_DEFINED, sticky: CORRECTABLE_DEFINED });
  return {
    name: 'Advanced Error Reporting',
    id: ADVANCED_ERROR_REPORTING_ID,
    extended: true,
    version: 2,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
    writeOneToClear: layout.writeOneToClear,
    sticky: layout.sticky,
  };
}
