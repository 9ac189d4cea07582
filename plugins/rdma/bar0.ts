/** The one BAR, as on the card: what lies where. */
import { INIT_SEGMENT_BYTES } from './firmware/init-segment.js';
import { DEVICE_MEMORY_BYTES } from './memory/device-memory.js';
import { UAR_PAGE_BYTES } from './queues/uar.js';

/** Index of the first UAR: below it, a page number would meet the initialization segment or the MSI-X table. */
const FIRST_UAR = 16;
const SIZE_BYTES = 32 * 2 ** 20;
/** The adapter's own memory, at the end. */
const MEMORY_OFFSET = SIZE_BYTES - DEVICE_MEMORY_BYTES;

export const BAR0 = {
  sizeBytes: SIZE_BYTES,
  initSegment: { offset: 0, sizeBytes: INIT_SEGMENT_BYTES },
  /** Table and pending bits right behind the two pages of the initialization segment. */
  msixTableOffset: 0x2000,
  msixPendingOffset: 0x3000,
  uars: { offset: FIRST_UAR * UAR_PAGE_BYTES, sizeBytes: MEMORY_OFFSET - FIRST_UAR * UAR_PAGE_BYTES },
  firstUar: FIRST_UAR,
  lastUar: MEMORY_OFFSET / UAR_PAGE_BYTES - 1,
  memory: { offset: MEMORY_OFFSET, sizeBytes: DEVICE_MEMORY_BYTES },
} as const;

export const MSIX_VECTORS = 16;
