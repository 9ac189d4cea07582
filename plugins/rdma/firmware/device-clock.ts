/** The adapter's free-running clock. */
import type { Clock } from 'ghostbus';

/** cmd_hca_cap.device_frequency_khz: the clock behind the internal timer and behind completions' timestamps. */
export const DEVICE_FREQUENCY_KHZ = 156_250;

const NANOSECONDS_PER_MILLISECOND = 1_000_000n;

export function deviceTicks(clock: Clock): bigint {
  return (clock.nowNs() * BigInt(DEVICE_FREQUENCY_KHZ)) / NANOSECONDS_PER_MILLISECOND;
}
