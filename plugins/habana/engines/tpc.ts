/**
 * The configuration page of one tensor processing core (TPC). Kernels are not executed: a start is logged once per job,
 * the core stays idle, and the sync object that the job names is written at once, so that the job completes.
 *
 * Source: tpc0_cfg_regs.h, tpc0_cfg_masks.h; gaudi.c _gaudi_init_tpc_mem, gaudi_run_tpc_kernel.
 */
import { type Log, RegisterBlock } from 'ghostbus';
import { PROTECTION_BITS } from '../blocks/protection-bits.js';
import { CFG_BASE, PAGE_BYTES } from '../interconnect/address-map.js';

/** TPC_IDLE_MASK (gaudi_masks.h). */
const STATUS_IDLE = 0xee;

export interface ComputeEvents {
  /** A job started that this device does not compute. */
  jobSkipped(engine: string): void;
  /** Writes the sync object that a job names. */
  signal(address: number, value: number): void;
}

export function tpcRegisters(index: number, events: ComputeEvents, log: Log) {
  const name = `TPC${index}`;
  const registers = new RegisterBlock(
    { name: `${name}_CFG`, sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      KERNEL_SYNC_OBJECT_MESSAGE: { offset: 0x780 },
      KERNEL_SYNC_OBJECT_ADDR: { offset: 0x784 },
      STATUS: { offset: 0x91c, writable: 0, reset: STATUS_IDLE },
      SM_BASE_ADDRESS_HIGH: { offset: 0x92c },
      TPC_CMD: { offset: 0x930 },
      TPC_EXECUTE: {
        offset: 0x938,
        onWrite: (value): number => {
          if ((value & 1) !== 0) start();
          return 0;
        },
      },
      TPC_STALL: { offset: 0x93c },
      ICACHE_BASE_ADDRESS_LOW: { offset: 0x940 },
      ICACHE_BASE_ADDRESS_HIGH: { offset: 0x944 },
      MSS_CONFIG: { offset: 0x954 },
      TPC_INTR_CAUSE: { offset: 0x958 },
      TPC_INTR_MASK: { offset: 0x95c },
      ARUSER_LO: { offset: 0x964 },
      AWUSER_LO: { offset: 0x96c },
      LUT_FUNC256_BASE_ADDR_LO: { offset: 0x990 },
      LUT_FUNC256_BASE_ADDR_HI: { offset: 0x994 },
      WQ_INFLIGHT_CNTR: { offset: 0x9b8, writable: 0 },
      QM_SYNC_OBJECT_MESSAGE: { offset: 0xd80 },
      QM_SYNC_OBJECT_ADDR: { offset: 0xd84 },
      QM_KERNEL_BASE_ADDRESS_LOW: { offset: 0xd88 },
      QM_KERNEL_BASE_ADDRESS_HIGH: { offset: 0xd8c },
      ...PROTECTION_BITS,
    },
  );
  const start = (): void => {
    events.jobSkipped(name);
    const message = registers.get('QM_SYNC_OBJECT_MESSAGE');
    const address = registers.get('QM_SYNC_OBJECT_ADDR');
    // Sync objects all lie in the configuration space: 32 bits of their address are enough for the hardware.
    if (message !== 0) events.signal(configAddress(address), message);
  };
  return registers;
}

/** The full address of a register from its lower half. */
function configAddress(low: number): number {
  return CFG_BASE - (CFG_BASE % 2 ** 32) + (low >>> 0);
}
