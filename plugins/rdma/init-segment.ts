import { type Log, RegisterBlock, type RegisterDeclaration } from '../../emulator/plugin.js';

/** Two pages at the start of BAR0; the third page of `struct mlx5_init_seg` lies under the MSI-X table, as on the card. */
export const INIT_SEGMENT_BYTES = 0x2000;

/**
 * include/linux/mlx5/device.h `struct mlx5_init_seg` and `struct health_buffer`. Every register is big-endian: what the driver
 * reads with ioread32be. Only the places are known so far; all read as zero, which no driver takes for a running adapter.
 */
const places = {
  FW_REV: 0x000,
  CMDIF_REV_FW_SUB: 0x004,
  CMDQ_ADDR_H: 0x010,
  CMDQ_ADDR_L_SZ: 0x014,
  CMD_DBELL: 0x018,
  INITIALIZING: 0x1fc,
  HEALTH_ASSERT_VAR: { offset: 0x200, count: 6 },
  HEALTH_ASSERT_EXIT_PTR: 0x220,
  HEALTH_ASSERT_CALLRA: 0x224,
  HEALTH_TIME: 0x22c,
  HEALTH_FW_VER: 0x230,
  HEALTH_HW_ID: 0x234,
  /** rfr_severity in the first byte. */
  HEALTH_RFR_SEVERITY: 0x238,
  /** irisc_index, synd and ext_synd. */
  HEALTH_SYNDROME: 0x23c,
  CMD_EXEC_TO: 0xff8,
  CMD_Q_INIT_TO: 0xffc,
  INTERNAL_TIMER_H: 0x1000,
  INTERNAL_TIMER_L: 0x1004,
  HEALTH_COUNTER: 0x1010,
  REAL_TIME_H: 0x1040,
  REAL_TIME_L: 0x1044,
} as const;

export type InitSegmentRegister = keyof typeof places;

export function createInitSegment(log: Log): RegisterBlock<InitSegmentRegister> {
  const registers = Object.fromEntries(
    Object.entries(places).map(([name, place]): [string, RegisterDeclaration] => [
      name,
      { ...(typeof place === 'number' ? { offset: place } : place), unimplemented: true },
    ]),
  ) as Record<InitSegmentRegister, RegisterDeclaration>;
  return new RegisterBlock({ name: 'init_seg', sizeBytes: INIT_SEGMENT_BYTES, log }, registers);
}
