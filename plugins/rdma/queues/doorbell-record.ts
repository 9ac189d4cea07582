/** Where software leaves the counters of a ring. */
import { CommandError, STATUS } from '../firmware/command.js';

/** Bus address of a doorbell record. Throws {@link CommandError} beyond 2^53. */
export function doorbellAddress(address: bigint): number {
  if (address >= 1n << 53n) throw new CommandError(STATUS.BAD_PARAMETER, `a doorbell record at ${address}`);
  return Number(address);
}
