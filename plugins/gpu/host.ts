import type { FunctionPort, MemoryRegion } from '../../emulator/plugin.js';

/** What every block of the GPU shares: the machine, the VRAM, the time. */
export interface GpuHost {
  readonly port: FunctionPort;
  readonly vram: MemoryRegion;
}

/** The free-running reference counter, 100 MHz (smu_info.core_refclk_10khz = 10000 in our VBIOS), 64 bits. */
export function referenceTicks(host: GpuHost): bigint {
  return host.port.clock.nowNs() / 10n;
}
