/**
 * The three files that the stock driver asks for. It checks sizes only (common/firmware_if.c hl_request_fw: not empty,
 * a multiple of 4 bytes, at most 20 MiB), copies them to the device and never looks inside; ours say what they are.
 */
import type { GuestFile } from 'ghostbus';

/**
 * gaudi.c GAUDI_BOOT_FIT_FILE, GAUDI_LINUX_FW_FILE, GAUDI_TPC_FW_FILE; the last is also run
 * through a DMA of 8 KiB steps.
 */
const files: readonly (readonly [string, number])[] = [
  ['gaudi-boot-fit.itb', 4096],
  ['gaudi-fit.itb', 8192],
  ['gaudi_tpc.bin', 8192],
];

export function firmwareStubs(): GuestFile[] {
  return files.map(([name, sizeBytes]) => {
    const contents = new Uint8Array(sizeBytes);
    contents.set(new TextEncoder().encode(`ghostbus stub for habanalabs/gaudi/${name}: no firmware inside\n`));
    return { path: `/lib/firmware/habanalabs/gaudi/${name}`, contents };
  });
}
