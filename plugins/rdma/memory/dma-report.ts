/** How a failed DMA request of an adapter is told. */
import type { DmaError, Log } from 'ghostbus';

/**
 * Logs it: loudly, unless the guest has just taken bus mastering away, which every unbind and reboot does while queues
 * may still have something to write.
 */
export function reportDmaError(
  log: Log,
  message: string,
  fields: Readonly<Record<string, unknown>>,
  error: DmaError,
): void {
  const record = { ...fields, reason: error.message };
  if (error.failure === 'bus-master-disabled') log.debug(message, record);
  else log.warn(message, record);
}
