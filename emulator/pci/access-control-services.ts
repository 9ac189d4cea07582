import type { Capability } from './capability.js';
import { CapabilityLayout, type CapabilityPlacement, placement } from './capability-layout.js';

/** Extended capability id, linux/pci_regs.h PCI_EXT_CAP_ID_ACS. */
const ACCESS_CONTROL_SERVICES_ID = 0x000d;

/** linux/pci_regs.h PCI_ACS_RR, PCI_ACS_CR, PCI_ACS_DT: the services that a function other than a port can have. */
const REQUEST_REDIRECT = 0x04;
const COMPLETION_REDIRECT = 0x08;
const DIRECT_TRANSLATED = 0x40;

export interface AccessControlServicesOptions extends CapabilityPlacement {
  /** P2P Request Redirect. Default true. */
  readonly requestRedirect?: boolean;
  /** P2P Completion Redirect. Default true. */
  readonly completionRedirect?: boolean;
  /** Direct Translated P2P. Default false. */
  readonly directTranslated?: boolean;
}

/**
 * Access Control Services of a function (PCIe 6.0 §7.7.11). Control starts at zero; every service
 * offered can be enabled, and Linux' p2pdma then no longer sends peers' traffic directly
 * (drivers/pci/p2pdma.c pci_bridge_has_acs_redir).
 */
export function accessControlServices(options: AccessControlServicesOptions = {}): Capability {
  const { requestRedirect = true, completionRedirect = true, directTranslated = false } = options;
  const services =
    (requestRedirect ? REQUEST_REDIRECT : 0) |
    (completionRedirect ? COMPLETION_REDIRECT : 0) |
    (directTranslated ? DIRECT_TRANSLATED : 0);
  const layout = new CapabilityLayout(8);
  layout.u16(4, services);
  layout.u16(6, 0, { writable: services });
  return {
    name: 'Access Control Services',
    id: ACCESS_CONTROL_SERVICES_ID,
    extended: true,
    version: 1,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
  };
}
