/**
 * The function that the rows expect behind the socket. Regions: BAR1 is 4 KiB of trapped storage, BAR2 32 KiB with two
 * mappable areas, BAR3 64 KiB with nine, BAR4 holds the MSI-X table, configuration space lies in region 7. Shapes that
 * real functions rarely have (2048 vectors, INTx and REQ), so that every field of the protocol is used.
 */

export interface MappableArea {
  /** From the start of the region; a multiple of 4 KiB, as is `sizeBytes`. */
  readonly offset: number;
  readonly sizeBytes: number;
}

export const PAGE = 0x1000;

export const IDENTITY = {
  vendorId: 0x1234,
  deviceId: 0x5678,
  subsystemVendorId: 0x1234,
  subsystemId: 1,
  classCode: 0x120000,
  revisionId: 2,
} as const;

/** Storage: what was written reads back; all zeros at first. */
export const BAR1_BYTES = 0x1000;
export const BAR2_BYTES = 0x8000;
/** Where in the file of BAR2 region offset 0 lies. */
export const BAR2_FD_OFFSET = 0x8000;
export const BAR2_AREAS: readonly MappableArea[] = [
  { offset: 0x2000, sizeBytes: 0x1000 },
  { offset: 0x4000, sizeBytes: 0x2000 },
];
export const BAR3_BYTES = 0x10000;
export const BAR3_FD_OFFSET = 0x10000;
export const BAR3_AREAS: readonly MappableArea[] = [0, 2, 4, 6, 8, 10, 12, 14, 15].map((page) => ({
  offset: page * PAGE,
  sizeBytes: PAGE,
}));
export const BAR4_BYTES = 0x10000;
export const MSIX_VECTORS = 2048;
export const MSIX_PENDING_OFFSET = 0x8000;
export const MSI_VECTORS = 4;
export const ROM_BYTES = 0x10000;
/** What every byte of the ROM is. */
export const ROM_BYTE = 0x55;
export const DMA_MAP_LIMIT = 64;
export const SERIAL_NUMBER = 0x1122334455667788n;
/** The vendor-specific capability, behind its length. */
export const VENDOR_DATA = Uint8Array.of(0xaa, 0xbb, 0xcc, 0xdd);

/**
 * Registers of BAR1 that do not behave: the first has a bug, the second refuses with EPERM. Rows
 * with `inside` use them.
 */
export const THROWING_REGISTER = 0x800;
export const REFUSING_REGISTER = 0x808;

/** In what a row's function differs from the usual one. */
export interface Variant {
  /** An expansion ROM; without it region 6 has no size. Default false. */
  readonly rom?: boolean;
  /** PCI Express says that it can be reset by function-level reset. Default true. */
  readonly functionLevelReset?: boolean;
  /** BAR2 of 4 GiB and BAR4 of 8 GiB, 64-bit and prefetchable, nothing mappable. Default false. */
  readonly largeBars?: boolean;
}
