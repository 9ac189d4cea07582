/**
 * Firmware stubs for the guest: files under the names that amdgpu asks for, with a correct header and nothing inside.
 * The driver checks only that the header's size is the file's (amdgpu_ucode.c amdgpu_ucode_validate) and hands the rest
 * to the PSP, which here reads none of it. No vendor's file is needed; if the guest has the vendor's files they work as
 * well.
 */
import type { GuestFile } from 'ghostbus';
import { ImageBuilder } from 'ghostbus/kit';
import { discoveryTable } from '../product/discovery.js';
import { PRODUCTS, type ProductId } from '../product/product.js';

const FOLDER = '/usr/lib/firmware/amdgpu';
const PAYLOAD_OFFSET = 256;
const PAYLOAD_BYTES = 256;
const COMMON_HEADER_BYTES = 32;

/** struct common_firmware_header (amdgpu_ucode.h): sizes, versions, where the payload is; `extension` follows it. */
function stub(
  headerVersion: readonly [number, number],
  extension: readonly number[],
  payloadBytes: number,
): Uint8Array {
  const sizeBytes = PAYLOAD_OFFSET + payloadBytes;
  const image = new ImageBuilder({ sizeBytes: sizeBytes });
  image.u32(0, sizeBytes, COMMON_HEADER_BYTES + 4 * extension.length).u16(8, ...headerVersion);
  image.u32(16, 1, payloadBytes, PAYLOAD_OFFSET, 0).u32(COMMON_HEADER_BYTES, ...extension);
  return image.bytes;
}

/** gfx_firmware_header_v1_0: feature version, jump table offset and size. */
const microEngine = () => stub([1, 0], [1, 0, 0], PAYLOAD_BYTES);

/**
 * rlc_firmware_header_v2_0: feature version, save/restore, clear state, avail scratch, mailbox, then the two register
 * lists as {format size, format offset, size, offset}; sizes are zero, offsets stay inside the file.
 */
function runListController(): Uint8Array {
  const extension = new Array<number>(18).fill(0);
  extension[0] = 1;
  for (const offset of [11, 13, 15, 17]) extension[offset] = PAYLOAD_OFFSET;
  return stub([2, 0], extension, PAYLOAD_BYTES);
}

/** sdma_firmware_header_v1_0: feature version, change version, jump table offset and size. */
const systemDma = () => stub([1, 0], [1, 0, 0, 0], PAYLOAD_BYTES);

/** psp_firmware_header_v1_0: the secure OS part {version, offset, size}. */
const asd = () => stub([1, 0], [1, 0, PAYLOAD_BYTES], PAYLOAD_BYTES);

/** ta_firmware_header_v1_0: five applications {version, offset, size}, all absent. */
const trustedApplications = () => stub([1, 0], new Array<number>(15).fill(0), 0);

/** By device id: what each requests beside the compute engine's files, which are those of GC 9.4.2. */
const FURTHER_FILES: Readonly<Record<ProductId, Readonly<Record<string, () => Uint8Array>>>> = {
  '7af0': {
    'green_sardine_sdma.bin': systemDma,
    'green_sardine_asd.bin': asd,
    'green_sardine_ta.bin': trustedApplications,
  },
  '740f': {
    'aldebaran_sdma.bin': systemDma,
    // Not firmware, but looked for beside it (amdgpu_discovery.c amdgpu_discovery_get_fw_name).
    'aldebaran_ip_discovery.bin': () => discoveryTable(PRODUCTS['740f'].blocks),
  },
};

/** The files amdgpu requests for a product (README, "Firmware"). */
export function firmwareFiles(id: ProductId): readonly GuestFile[] {
  const files: Readonly<Record<string, () => Uint8Array>> = {
    'aldebaran_rlc.bin': runListController,
    'aldebaran_mec.bin': microEngine,
    'aldebaran_mec2.bin': microEngine,
    ...FURTHER_FILES[id],
  };
  return Object.entries(files).map(([name, build]) => ({ path: `${FOLDER}/${name}`, contents: build() }));
}
