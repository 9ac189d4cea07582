/** A function's vfio regions: six BARs, the ROM, configuration space. */
import { requireBacked } from './memory/region.js';
import type { MemoryPart } from './memory/windows.js';
import type { BarShape } from './pci/bar.js';
import { memoryOffsetOf } from './pci/bar-parts.js';
import { CONFIG_SPACE_BYTES } from './pci/config-space.js';
import { REGION, type RegionInfo } from './vfio-user/device.js';

const PAGE_BYTES = 4096;
/** Larger ROMs would need several messages (vfio-user.md §2.7). */
const MAX_ROM_BYTES = 1024 * 1024;

/** The image as its BAR shows it: a power of two, the rest all ones. Empty without an image. */
export function padRom(rom: Uint8Array | undefined): Uint8Array {
  if (rom === undefined || rom.length === 0) return new Uint8Array(0);
  if (rom.length > MAX_ROM_BYTES)
    throw new Error(`the ROM has ${rom.length} bytes; at most ${MAX_ROM_BYTES} are served`);
  const padded = new Uint8Array(Math.max(PAGE_BYTES, 2 ** Math.ceil(Math.log2(rom.length)))).fill(0xff);
  padded.set(rom);
  return padded;
}

/** Indices as in linux/vfio.h VFIO_PCI_*_REGION_INDEX. */
export function describeRegions(
  bars: readonly BarShape[],
  memoryPartsOf: (bar: BarShape) => readonly MemoryPart[],
  romBytes: number,
): RegionInfo[] {
  const absent: RegionInfo = { sizeBytes: 0, readable: false, writable: false };
  const regions = new Array<RegionInfo>(REGION.COUNT).fill(absent);
  for (const bar of bars) {
    const memoryParts = memoryPartsOf(bar);
    const first = memoryParts[0];
    regions[bar.index] = {
      sizeBytes: bar.sizeBytes,
      readable: true,
      writable: true,
      ...(first && {
        mappable: {
          fd: requireBacked(first.memory, `memory of BAR${bar.index}`).fd,
          fdOffset: memoryOffsetOf(first) - first.offset,
          areas: memoryParts.map(({ offset, sizeBytes }) => ({ offset, sizeBytes })),
        },
      }),
    };
  }
  if (romBytes > 0) regions[REGION.ROM] = { sizeBytes: romBytes, readable: true, writable: false };
  regions[REGION.CONFIG] = { sizeBytes: CONFIG_SPACE_BYTES, readable: true, writable: true };
  return regions;
}
