/**
 * The IP discovery table: what blocks this ASIC has, in which versions, at which register bases. Written to VRAM for
 * the driver to find. Layouts: include/discovery.h; reader: amdgpu/amdgpu_discovery.c.
 *
 * What the synthetic ASIC lists, and why: product.ts and README, "The synthetic ASIC".
 */
import { ImageBuilder } from 'ghostbus/kit';
import { COMPUTE_SHAPE } from './compute-shape.js';
import type { IpEntry } from './product.js';

/** The table lies this far below the end of VRAM (amdgpu_discovery.h DISCOVERY_TMR_OFFSET). */
export const DISCOVERY_OFFSET_FROM_END = 64 * 1024;

const BINARY_SIGNATURE = 0x2821_1407;
/** "IPDS" and "GC" as dwords (discovery.h DISCOVERY_TABLE_SIGNATURE, GC_TABLE_ID). */
const IP_TABLE_SIGNATURE = 0x5344_5049;
const GC_TABLE_ID = 0x4347;

const BINARY_HEADER_BYTES = 60;
const IP_HEADER_BYTES = 80;
const DIE_HEADER_BYTES = 4;
const IP_ENTRY_BYTES = 8;
const GC_INFO_BYTES = 80;
/** The binary's checksum covers everything after its own field. */
const CHECKSUM_FROM = 0x0a;

/** Builds the table of an ASIC with these blocks. */
export function discoveryTable(blocks: readonly IpEntry[]): Uint8Array {
  const ipBytes = blocks.reduce((sum, { bases }) => sum + IP_ENTRY_BYTES + 4 * bases.length, DIE_HEADER_BYTES);
  const ipTableBytes = IP_HEADER_BYTES + ipBytes;
  const gcTable = BINARY_HEADER_BYTES + ipTableBytes;
  const total = gcTable + GC_INFO_BYTES;
  const image = new ImageBuilder({ sizeBytes: total });
  writeIpTable(image, BINARY_HEADER_BYTES, ipTableBytes, blocks);
  writeGcInfo(image, gcTable);
  image.u32(0, BINARY_SIGNATURE).u16(4, 1, 0).u16(CHECKSUM_FROM, total);
  // Table list: offset, checksum, size, padding; index 0 is the IP table, 1 the GC information.
  image.u16(12, BINARY_HEADER_BYTES, image.sum16(BINARY_HEADER_BYTES, gcTable), ipTableBytes, 0);
  image.u16(20, gcTable, image.sum16(gcTable, total), GC_INFO_BYTES, 0);
  image.u16(8, image.sum16(CHECKSUM_FROM, total));
  return image.bytes;
}

/** struct ip_discovery_header, die_header and the ip entries of one die. */
function writeIpTable(image: ImageBuilder, at: number, sizeBytes: number, blocks: readonly IpEntry[]): void {
  const die = at + IP_HEADER_BYTES;
  image.u32(at, IP_TABLE_SIGNATURE).u16(at + 4, 1, sizeBytes);
  // One die; die_info[0] = { die_id 0, offset from the start of the binary }.
  image.u16(at + 12, 1, 0, die);
  image.u16(die, 0, blocks.length);
  let entry = die + DIE_HEADER_BYTES;
  for (const { hardwareId, instance = 0, version, bases } of blocks) {
    image.u16(entry, hardwareId).u8(entry + 2, instance, bases.length, ...version);
    image.u32(entry + IP_ENTRY_BYTES, ...bases);
    entry += IP_ENTRY_BYTES + 4 * bases.length;
  }
}

/** struct gc_info_v2_0. */
function writeGcInfo(image: ImageBuilder, at: number): void {
  const shape = COMPUTE_SHAPE;
  image
    .u32(at, GC_TABLE_ID)
    .u16(at + 4, 2, 0)
    .u32(at + 8, GC_INFO_BYTES);
  image.u32(
    at + 12,
    shape.shaderEngines,
    shape.computeUnitsPerArray,
    shape.arraysPerEngine,
    shape.renderBackendsPerEngine,
    shape.textureChannelCaches,
    shape.registersPerUnit,
    shape.maxGsThreads,
    shape.gsTableDepth,
    0, // GS primitive buffer
    0, // parameter cache
    0, // double LDS
    shape.waveSize,
    shape.wavesPerUnit,
    shape.scratchSlotsPerUnit,
    shape.localDataShare,
    8, // scan converters per shader engine
    2, // packers per scan converter
  );
}
