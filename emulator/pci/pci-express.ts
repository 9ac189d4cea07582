import type { Capability, CapabilityEffect } from './capability.js';
import { CapabilityLayout, type CapabilityPlacement, placement, readU16 } from './capability-layout.js';

/** Capability id, linux/pci_regs.h PCI_CAP_ID_EXP. */
export const PCI_EXPRESS_ID = 0x10;

/** Register offsets, linux/pci_regs.h PCI_EXP_*. */
const FLAGS = 0x02;
const DEVCAP = 0x04;
const DEVCTL = 0x08;
const DEVSTA = 0x0a;
const LNKCAP = 0x0c;
const LNKCTL = 0x10;
const LNKSTA = 0x12;
const DEVCAP2 = 0x24;
const DEVCTL2 = 0x28;
const LNKCAP2 = 0x2c;
const LNKCTL2 = 0x30;
const LNKSTA2 = 0x32;
/**
 * linux/pci_regs.h PCI_CAP_EXP_ENDPOINT_SIZEOF_V2 covers the link registers; the slot registers
 * up to 0x3b read as zero.
 */
const LENGTH_BYTES = 0x3c;

/** linux/pci_regs.h PCI_EXP_FLAGS_VERS 2, PCI_EXP_TYPE_ENDPOINT 0. */
const FLAGS_VERSION_2_ENDPOINT = 0x0002;

/** linux/pci_regs.h PCI_EXP_DEVCAP_EXT_TAG, PCI_EXP_DEVCAP_RBER, PCI_EXP_DEVCAP_FLR. */
const DEVCAP_EXTENDED_TAG = 0x20;
const DEVCAP_ROLE_BASED_ERRORS = 0x8000;
const DEVCAP_FLR = 0x10000000;

/** PCIe 6.0 §7.5.3.4 defaults: relaxed ordering and no-snoop on, Max_Read_Request_Size 512 bytes. */
const DEVCTL_RELAXED_ORDERING = 0x0010;
const DEVCTL_PAYLOAD_MASK = 0x00e0;
const DEVCTL_NO_SNOOP = 0x0800;
const DEVCTL_READ_REQUEST_512 = 0x2000;
/** Error reporting enables, relaxed ordering, payload, extended tag, no-snoop, read request size. */
const DEVCTL_WRITABLE = 0x79ff;
/** linux/pci_regs.h PCI_EXP_DEVCTL_BCR_FLR. */
const DEVCTL_INITIATE_FLR = 0x8000;
/** linux/pci_regs.h PCI_EXP_DEVSTA_CED, NFED, FED, URD. */
const DEVSTA_DETECTED = 0x000f;

/** PCIe 6.0 §7.5.3.6: a component that leaves ASPM out says so by this bit. linux/pci_regs.h has no name for it. */
const LNKCAP_ASPM_OPTIONALITY = 0x00400000;
/** linux/pci_regs.h PCI_EXP_LNKCTL_ASPMC, RCB, CCC, ES. */
const LNKCTL_WRITABLE = 0x00cb;
/** linux/pci_regs.h PCI_EXP_LNKSTA_SLC: reference clock from the slot. */
const LNKSTA_SLOT_CLOCK = 0x1000;
const LINK_WIDTH_SHIFT = 4;

/** Completion timeout range B and its disable (PCIe 6.0 §7.5.3.15); linux/pci_regs.h PCI_EXP_DEVCAP2_COMP_TMOUT_DIS. */
const DEVCAP2_TIMEOUT_RANGE_B_AND_DISABLE = 0x12;
/** PCIe 6.0 §7.5.3.20: equalisation of all three phases has succeeded; of 8 GT/s links and faster. */
const LNKSTA2_EQUALIZED = 0x001e;

/** Link speeds in GT/s; position + 1 is the encoding of linux/pci_regs.h PCI_EXP_LNKCAP_SLS_*. */
const LINK_SPEEDS = [2.5, 5, 8, 16, 32] as const;
const LINK_WIDTHS = [1, 2, 4, 8, 12, 16, 32] as const;
const PAYLOADS = [128, 256, 512, 1024, 2048, 4096] as const;

export interface PciExpressOptions extends CapabilityPlacement {
  /** The guest may reset the function through Device Control (PCIe 6.0 §6.6.2). Default true. */
  readonly functionLevelReset?: boolean;
  /** Max_Payload_Size Supported. Default 256. */
  readonly maxPayloadBytes?: (typeof PAYLOADS)[number];
  /** In GT/s, the fastest the link can and the speed it has. Default 16. */
  readonly linkSpeed?: (typeof LINK_SPEEDS)[number];
  /** Lanes. Default 16. */
  readonly linkWidth?: (typeof LINK_WIDTHS)[number];
  /** 8-bit tags. Default true. */
  readonly extendedTag?: boolean;
}

/**
 * PCI Express capability, version 2, of an endpoint (PCIe 6.0 §7.5.3) whose link is up at full
 * speed and width and has no ASPM. Initiate Function Level Reset reads as zero and asks for the
 * reset when the function has it, else is ignored.
 */
export function pciExpress(options: PciExpressOptions = {}): Capability {
  const { functionLevelReset = true, maxPayloadBytes = 256, extendedTag = true } = options;
  const layout = new CapabilityLayout(LENGTH_BYTES);
  layout.u16(FLAGS, FLAGS_VERSION_2_ENDPOINT);
  const deviceCapabilities =
    encoding('maxPayloadBytes', PAYLOADS, maxPayloadBytes) |
    DEVCAP_ROLE_BASED_ERRORS |
    (extendedTag ? DEVCAP_EXTENDED_TAG : 0) |
    (functionLevelReset ? DEVCAP_FLR : 0);
  layout.u32(DEVCAP, deviceCapabilities);
  // §6.6.2: a function-level reset keeps Max_Payload_Size and what belongs to the link.
  layout.u16(DEVCTL, DEVCTL_RELAXED_ORDERING | DEVCTL_NO_SNOOP | DEVCTL_READ_REQUEST_512, {
    writable: DEVCTL_WRITABLE,
    sticky: DEVCTL_PAYLOAD_MASK,
  });
  layout.u16(DEVSTA, 0, { writeOneToClear: DEVSTA_DETECTED });
  layout.u32(DEVCAP2, DEVCAP2_TIMEOUT_RANGE_B_AND_DISABLE);
  layout.u16(DEVCTL2, 0, { writable: 0xffff });
  placeLink(layout, options);
  return {
    name: 'PCI Express',
    id: PCI_EXPRESS_ID,
    extended: false,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
    writeOneToClear: layout.writeOneToClear,
    sticky: layout.sticky,
    afterWrite: (_current, written) => (functionLevelReset ? initiatedReset(written) : undefined),
  };
}

function placeLink(layout: CapabilityLayout, options: PciExpressOptions): void {
  const { linkSpeed = 16, linkWidth = 16 } = options;
  if (!LINK_WIDTHS.includes(linkWidth)) {
    throw new RangeError(`PCI Express: linkWidth is ${linkWidth}; use one of ${LINK_WIDTHS.join(', ')}`);
  }
  const speed = encoding('linkSpeed', LINK_SPEEDS, linkSpeed) + 1;
  const speedAndWidth = speed | (linkWidth << LINK_WIDTH_SHIFT);
  layout.u32(LNKCAP, speedAndWidth | LNKCAP_ASPM_OPTIONALITY);
  layout.u16(LNKCTL, 0, { writable: LNKCTL_WRITABLE, sticky: LNKCTL_WRITABLE });
  layout.u16(LNKSTA, speedAndWidth | LNKSTA_SLOT_CLOCK);
  // Supported Link Speeds Vector: bit 1 is 2.5 GT/s, and so on up to the fastest.
  layout.u32(LNKCAP2, (1 << (speed + 1)) - 2);
  layout.u16(LNKCTL2, speed, { writable: 0xffff, sticky: 0xffff });
  layout.u16(LNKSTA2, linkSpeed >= 8 ? LNKSTA2_EQUALIZED : 0);
}

function encoding(option: string, values: readonly number[], value: number): number {
  const index = values.indexOf(value);
  if (index < 0) throw new RangeError(`PCI Express: ${option} is ${value}; use one of ${values.join(', ')}`);
  return index;
}

function initiatedReset(written: Uint8Array): CapabilityEffect | undefined {
  return (readU16(written, DEVCTL) & DEVCTL_INITIATE_FLR) !== 0 ? 'function-level-reset' : undefined;
}
