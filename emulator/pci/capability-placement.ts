import type { Capability } from './capability.js';
import { putLittleEndian } from './capability-layout.js';
import { PCI_EXPRESS_ID } from './pci-express.js';
import { VENDOR_SPECIFIC_ID } from './vendor-specific.js';
import { VENDOR_SPECIFIC_EXTENDED_ID } from './vendor-specific-extended.js';

/** linux/pci_regs.h PCI_EXT_CAP_ID_DVSEC. */
const DESIGNATED_VENDOR_SPECIFIC_ID = 0x0023;

/** A capability, where it lies, and the header that names it and points to the next. */
export interface PlacedCapability {
  readonly capability: Capability;
  readonly offset: number;
  readonly header: Uint8Array;
}

interface List {
  readonly name: string;
  /** linux/pci_regs.h PCI_STD_HEADER_SIZEOF and PCI_CFG_SPACE_SIZE: where each list's space begins. */
  readonly start: number;
  readonly end: number;
  readonly headerBytes: number;
  /** QEMU aborts on an extended capability with less than 8 bytes to the next (hw/vfio/pci.c vfio_add_ext_cap). */
  readonly minBytes: number;
  readonly maxId: number;
  /** Capabilities that a function may have several of. */
  readonly repeatable: readonly number[];
}

const STANDARD: List = {
  name: 'standard',
  start: 0x40,
  end: 0x100,
  headerBytes: 2,
  minBytes: 4,
  maxId: 0xff,
  repeatable: [VENDOR_SPECIFIC_ID],
};
const EXTENDED: List = {
  name: 'extended',
  start: 0x100,
  end: 0x1000,
  headerBytes: 4,
  minBytes: 8,
  maxId: 0xffff,
  repeatable: [VENDOR_SPECIFIC_EXTENDED_ID, DESIGNATED_VENDOR_SPECIFIC_ID],
};

/**
 * Gives every capability its place and its header. Both lists keep the order given; fixed offsets are
 * honoured, the others get the lowest free dwords. The lists cannot loop, overlap or leave their
 * space: that throws an Error naming the capability.
 */
export function placeCapabilities(capabilities: readonly Capability[]): readonly PlacedCapability[] {
  const standard = place(
    STANDARD,
    capabilities.filter(({ extended }) => !extended),
  );
  const extended = place(
    EXTENDED,
    capabilities.filter((capability) => capability.extended),
  );
  const [firstExtended] = extended;
  if (firstExtended !== undefined) {
    if (firstExtended.offset !== EXTENDED.start) {
      throw new Error(
        `${firstExtended.capability.name} is the first extended capability and must be at 0x100, not at 0x${firstExtended.offset.toString(16)}`,
      );
    }
    if (!standard.some(({ capability }) => capability.id === PCI_EXPRESS_ID)) {
      throw new Error(
        `${firstExtended.capability.name} is an extended capability: the function needs the PCI Express capability too`,
      );
    }
  }
  return [...standard, ...extended];
}

function place(list: List, capabilities: readonly Capability[]): PlacedCapability[] {
  const owners = new Array<Capability | undefined>((list.end - list.start) / 4).fill(undefined);
  checkRepeats(list, capabilities);
  for (const capability of capabilities) {
    checkShape(list, capability);
    if (capability.offset !== undefined) claim(list, owners, capability, capability.offset);
  }
  const offsets = capabilities.map((capability) => {
    if (capability.offset !== undefined) return capability.offset;
    const offset = firstFree(list, owners, capability);
    claim(list, owners, capability, offset);
    return offset;
  });
  return capabilities.map((capability, position) => ({
    capability,
    offset: offsets[position]!,
    header: headerOf(capability, offsets[position + 1] ?? 0),
  }));
}

function headerOf(capability: Capability, nextOffset: number): Uint8Array {
  if (!capability.extended) return Uint8Array.of(capability.id, nextOffset);
  const header = new Uint8Array(EXTENDED.headerBytes);
  // PCIe 6.0 §7.6.3: id 15:0, version 19:16, next 31:20.
  putLittleEndian(header, 0, 4, capability.id | ((capability.version ?? 1) << 16) | (nextOffset << 20));
  return header;
}

function checkRepeats(list: List, capabilities: readonly Capability[]): void {
  const seen = new Set<number>();
  for (const { id, name } of capabilities) {
    if (seen.has(id) && !list.repeatable.includes(id)) throw new Error(`${name} is listed twice; a function has one`);
    seen.add(id);
  }
}

function checkShape(list: List, capability: Capability): void {
  const { name, id, bytes, version = 1 } = capability;
  if (!Number.isInteger(id) || id <= 0 || id > list.maxId) {
    throw new Error(`${name}: id ${id} is not one of the ${list.name} list (1 to ${list.maxId})`);
  }
  if (!Number.isInteger(version) || version < 0 || version > 0xf)
    throw new Error(`${name}: version ${version} has 4 bits`);
  if (bytes.length < list.headerBytes) {
    throw new Error(`${name}: ${bytes.length} bytes cannot hold the ${list.headerBytes}-byte header`);
  }
  for (const mask of ['writable', 'writeOneToClear', 'sticky'] as const) {
    const length = capability[mask]?.length ?? bytes.length;
    if (length !== bytes.length) throw new Error(`${name}: ${mask} has ${length} bytes, bytes has ${bytes.length}`);
  }
}

function reservedBytes(list: List, capability: Capability): number {
  return Math.max(list.minBytes, Math.ceil(capability.bytes.length / 4) * 4);
}

function claim(list: List, owners: (Capability | undefined)[], capability: Capability, offset: number): void {
  const at = `${capability.name} at 0x${offset.toString(16)}`;
  if (!Number.isInteger(offset) || offset % 4 !== 0) throw new Error(`${at}: the offset must be a multiple of 4`);
  const end = offset + reservedBytes(list, capability);
  if (offset < list.start || end > list.end) {
    throw new Error(
      `${at} ends at 0x${end.toString(16)}: the ${list.name} list has 0x${list.start.toString(16)} to 0x${list.end.toString(16)}`,
    );
  }
  for (let dword = (offset - list.start) / 4; dword < (end - list.start) / 4; dword++) {
    const owner = owners[dword];
    if (owner !== undefined) {
      throw new Error(
        owner === capability ? `${at} is listed twice` : `${at} overlaps ${owner.name}; move one of them`,
      );
    }
    owners[dword] = capability;
  }
}

function firstFree(list: List, owners: readonly (Capability | undefined)[], capability: Capability): number {
  const dwords = reservedBytes(list, capability) / 4;
  let free = 0;
  for (let dword = 0; dword < owners.length; dword++) {
    free = owners[dword] === undefined ? free + 1 : 0;
    if (free === dwords) return list.start + 4 * (dword + 1 - dwords);
  }
  throw new Error(
    `${capability.name}: no ${4 * dwords} free bytes are left in the ${list.name} list; move or drop a capability`,
  );
}
