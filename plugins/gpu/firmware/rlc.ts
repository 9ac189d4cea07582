import type { Clock, RegisterBlock } from 'ghostbus';
import type { Mmio } from '../bus/mmio.js';
import { referenceTicks } from '../bus/reference-clock.js';

/**
 * Run list controller: the few registers that the driver polls. Numbers: asic_reg/gc/gc_9_0_offset.h on segment 0xa000.
 */
export function declareRlc(clock: Clock, mmio: Mmio): void {
  let captured = 0n;
  const registers: RegisterBlock<'RLC_GPU_CLOCK_COUNT'> = mmio.declare('rlc', {
    RLC_CNTL: { dw: 0xec00 },
    // CMD b0: the request to enter safe mode is done at once (gfx_v9_0_set_safe_mode polls it clear).
    RLC_SAFE_MODE: { dw: 0xec05, onWrite: (value) => value & ~1 },
    RLC_GPU_CLOCK_COUNT: { dw: 0xec24, count: 2, writable: 0 },
    RLC_CAPTURE_GPU_CLOCK_COUNT: {
      dw: 0xec26,
      onWrite: () => {
        captured = referenceTicks(clock);
        registers.set('RLC_GPU_CLOCK_COUNT', Number(captured & 0xffff_ffffn), 0);
        registers.set('RLC_GPU_CLOCK_COUNT', Number((captured >> 32n) & 0xffff_ffffn), 1);
        return undefined;
      },
    },
    RLC_SERDES_CU_MASTER_BUSY: { dw: 0xec61, writable: 0 },
    RLC_SERDES_NONCU_MASTER_BUSY: { dw: 0xec62, writable: 0 },
  });
}
