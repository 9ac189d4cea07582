import type { Clock } from 'ghostbus';

/** 100 MHz, as our VBIOS says (product/vbios.ts, core_refclk_10khz). */
const NS_PER_TICK = 10n;

/** The free-running reference counter, 64 bits. */
export function referenceTicks(clock: Clock): bigint {
  return clock.nowNs() / NS_PER_TICK;
}
