/** Every row of the checklist, in its groups. */
import type { Row } from './row.js';
import { CONFIG_SPACE_ROWS } from './rows/config-space.js';
import { DMA_MAP_ROWS } from './rows/dma-maps.js';
import { DMA_MESSAGE_ROWS } from './rows/dma-messages.js';
import { FRAMING_ROWS } from './rows/framing.js';
import { INFORMATION_ROWS, IO_FDS_ROWS } from './rows/information.js';
import { INTERRUPT_ROWS } from './rows/interrupts.js';
import { FEATURE_ROWS, REGION_ACCESS_ROWS } from './rows/region-access.js';
import { VERSION_ROWS } from './rows/version.js';

export const GROUPS: Readonly<Record<string, readonly Row[]>> = {
  'header and framing': FRAMING_ROWS,
  VERSION: VERSION_ROWS,
  'device, region and irq information': INFORMATION_ROWS,
  'region io fds': IO_FDS_ROWS,
  SET_IRQS: INTERRUPT_ROWS,
  'DMA_MAP and DMA_UNMAP': DMA_MAP_ROWS,
  'region access': REGION_ACCESS_ROWS,
  'configuration space': CONFIG_SPACE_ROWS,
  'device features': FEATURE_ROWS,
  'DMA messages': DMA_MESSAGE_ROWS,
};
