import type { Capability } from './capability.js';
import { CapabilityLayout, type CapabilityPlacement, placement } from './capability-layout.js';

/** Extended capability id, linux/pci_regs.h PCI_EXT_CAP_ID_REBAR. */
const RESIZABLE_BAR_ID = 0x0015;

/** linux/pci_regs.h PCI_REBAR_CAP: bit 4 is 1 MiB, bit 31 is 128 TiB. */
const SIZES_SHIFT = 4;
const MAX_SIZE_ENCODING = 27;
/** linux/pci_regs.h PCI_REBAR_CTRL_NBAR_SHIFT and PCI_REBAR_CTRL_BAR_SHIFT; the BAR index is in bits 2:0. */
const CONTROL_COUNT_SHIFT = 5;
const CONTROL_SIZE_SHIFT = 8;

export interface ResizableBarOptions extends CapabilityPlacement {
  readonly bars: readonly {
    readonly index: number;
    /** The size that the BAR has; a power of two from 1 MiB to 128 TiB. */
    readonly sizeBytes: number;
    /** Sizes to advertise beside it, powers of two. Default none. */
    readonly otherSizesBytes?: readonly number[];
  }[];
}

/**
 * Resizable BAR (PCIe 6.0 §7.8.6). The size is read-only: a vfio-user client asks for region sizes once, so a BAR
 * cannot change later, and QEMU shows the guest the present size only. Drivers find their BAR at its full size already.
 */
export function resizableBar(options: ResizableBarOptions): Capability {
  const { bars } = options;
  if (bars.length < 1 || bars.length > 6) throw new RangeError(`resizable BAR: ${bars.length} BARs; list 1 to 6`);
  const layout = new CapabilityLayout(4 + 8 * bars.length);
  bars.forEach(({ index, sizeBytes, otherSizesBytes = [] }, position) => {
    const size = sizeEncoding(index, sizeBytes);
    const sizes = [size, ...otherSizesBytes.map((other) => sizeEncoding(index, other))];
    const supported = sizes.reduce((bits, encoding) => bits | (1 << (SIZES_SHIFT + encoding)), 0);
    layout.u32(4 + 8 * position, supported >>> 0);
    const count = position === 0 ? bars.length : 0;
    layout.u32(8 + 8 * position, index | (count << CONTROL_COUNT_SHIFT) | (size << CONTROL_SIZE_SHIFT));
  });
  return {
    name: 'Resizable BAR',
    id: RESIZABLE_BAR_ID,
    extended: true,
    version: 1,
    ...placement(options),
    bytes: layout.bytes,
    writable: layout.writable,
  };
}

function sizeEncoding(bar: number, sizeBytes: number): number {
  const encoding = Math.log2(sizeBytes) - 20;
  if (!Number.isInteger(encoding) || encoding < 0 || encoding > MAX_SIZE_ENCODING) {
    throw new RangeError(`resizable BAR ${bar}: size ${sizeBytes}; use a power of two from 1 MiB to 128 TiB`);
  }
  return encoding;
}
