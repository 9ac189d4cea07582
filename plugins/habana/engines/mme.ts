/**
 * The control page of one matrix engine (MME). As with the TPCs nothing is computed; a command is logged and its sync
 * object written at once. Source: mme0_ctrl_regs.h, gaudi_masks.h MME_ARCH_IDLE_MASK.
 */
import { type Log, RegisterBlock } from 'ghostbus';
import { PROTECTION_BITS } from '../blocks/protection-bits.js';
import { addressOf, PAGE_BYTES } from '../interconnect/address-map.js';
import type { ComputeEvents } from './tpc.js';

const ARCH_STATUS_IDLE = 0x1180;

export function mmeRegisters(index: number, events: ComputeEvents, log: Log) {
  const name = `MME${index}`;
  const registers = new RegisterBlock(
    { name: `${name}_CTRL`, sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      ARCH_STATUS: { offset: 0x000, writable: 0, reset: ARCH_STATUS_IDLE },
      SYNC_OBJECT_ADDR_LOW_LOCAL: { offset: 0x1dc },
      SYNC_OBJECT_ADDR_HIGH: { offset: 0x1e4 },
      SYNC_OBJECT_DATA: { offset: 0x1e8 },
      CMD: { offset: 0x280, onWrite: () => start() },
      RESET: { offset: 0x288 },
      QM_STALL: { offset: 0x28c },
      EUS_ROLLUP_CNT_ADD: { offset: 0x294 },
      ...PROTECTION_BITS,
    },
  );
  const start = (): void => {
    events.jobSkipped(name);
    const data = registers.get('SYNC_OBJECT_DATA');
    const address = addressOf(registers.get('SYNC_OBJECT_ADDR_LOW_LOCAL'), registers.get('SYNC_OBJECT_ADDR_HIGH'));
    if (data !== 0) events.signal(address, data);
  };
  return registers;
}
