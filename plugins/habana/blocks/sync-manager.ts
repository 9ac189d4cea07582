import { type BlockLayout, PAGE_BYTES, unimplemented } from '../block.js';

/** L/include/gaudi/asic_reg/gaudi_regs.h mmSYNC_MNGR_E_N_SYNC_MNGR_OBJS_*: 2048 sync objects, 512 monitors. */
const registers = unimplemented({
  SOB_OBJ: { offset: 0x0000, count: 2048 },
  MON_PAY_ADDRL: { offset: 0x2000, count: 512 },
  MON_PAY_ADDRH: { offset: 0x2800, count: 512 },
  MON_PAY_DATA: { offset: 0x3000, count: 512 },
  MON_ARM: { offset: 0x3800, count: 512 },
  MON_STATUS: { offset: 0x4000, count: 512 },
});

/** L/include/gaudi/asic_reg/gaudi_regs.h mmSYNC_MNGR_{W_S,E_S,W_N,E_N}_SYNC_MNGR_OBJS_SOB_OBJ_0. */
const places = { W_S: 0x492000, E_S: 0x4b2000, W_N: 0x4d2000, E_N: 0x4f2000 } as const;

export const syncManagers: readonly BlockLayout[] = Object.entries(places).map(([corner, base]) => ({
  name: `SYNC_MNGR_${corner}`,
  base,
  sizeBytes: 5 * PAGE_BYTES,
  registers,
}));
