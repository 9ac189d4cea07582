/** Commands that start and stop the adapter as a whole, and say what it is. */

import { queryAdapterOut, queryIssiOut } from '../layouts/commands.js';
import { queryAdapterParamBlock } from '../layouts/contexts.js';
import { bytesOf, subview } from '../layouts/layout.js';
import type { CommandTable } from './command.js';

/** Interface step sequence id: only 1 is offered, as a bit set (core/main.c `mlx5_core_set_issi`). */
const SUPPORTED_ISSI = 1 << 1;
/** IEEE organizationally unique identifier of the vendor of the card. */
const IEEE_VENDOR_ID = 0x0002c9;
/** A board id of ours: 16 characters; no sold board has it. */
const BOARD_ID = 'GHB0000000001';

export function controlCommands(): CommandTable {
  const nothingToDo = (): void => {};
  return {
    ENABLE_HCA: nothingToDo,
    DISABLE_HCA: nothingToDo,
    INIT_HCA: nothingToDo,
    TEARDOWN_HCA: nothingToDo,
    NOP: nothingToDo,
    SET_DRIVER_VERSION: nothingToDo,
    SET_ISSI: nothingToDo,
    QUERY_ISSI: (call) => queryIssiOut.set(call.output, 'supported_issi_dw0', SUPPORTED_ISSI),
    QUERY_ADAPTER: (call) => {
      const start = queryAdapterOut.byteOf('query_adapter_struct');
      const block = subview(call.output, start, queryAdapterParamBlock.sizeBytes);
      queryAdapterParamBlock.set(block, 'ieee_vendor_id', IEEE_VENDOR_ID);
      bytesOf(block).set(new TextEncoder().encode(BOARD_ID), queryAdapterParamBlock.byteOf('vsd_contd_psid'));
    },
  };
}
