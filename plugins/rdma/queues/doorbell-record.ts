/** Where software leaves the counters of a ring. */
import { CommandError, STATUS } from '../firmware/command.js';

/** Counters of work queues have 16 bits. */
export const COUNTER_RANGE = 2 ** 16;
/** The send counter is the second dword of a record (include/linux/mlx5/qp.h `MLX5_SND_DBR`). */
export const SEND_RECORD_OFFSET = 4;

/** Bus address of a doorbell record. Throws {@link CommandError} beyond 2^53. */
export function doorbellAddress(address: bigint): number {
  if (address >= 1n << 53n) throw new CommandError(STATUS.BAD_PARAMETER, `a doorbell record at ${address}`);
  return Number(address);
}
