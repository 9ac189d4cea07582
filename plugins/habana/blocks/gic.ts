/**
 * The doorbell of the device's management processor: a write to SETSPI raises one of its interrupts. The driver rings
 * for the CPU queue, for a halt and to ask for events; engines ring to report errors.
 *
 * Source: gaudi_reg_map.h mmGIC_DISTRIBUTOR__5_GICD_SETSPI_NSR; numbers: gaudi_async_ids_map_extended.h `cpu_id`.
 */
import { type Log, RegisterBlock } from 'ghostbus';
import { PAGE_BYTES } from '../interconnect/address-map.js';

/** cpu_id of GAUDI_EVENT_PI_UPDATE, _HALT_MACHINE, _INTS_REGISTER. */
export const INTERRUPT = { queueUpdate: 484, halt: 485, eventsWanted: 486 } as const;

/** Interrupt identifiers have ten bits (GICv3 GICD_SETSPI_NSR.INTID). */
export const INTERRUPT_ID = 0x3ff;

export function gicRegisters(raise: (interrupt: number) => void, log: Log) {
  return new RegisterBlock(
    { name: 'GIC_DISTRIBUTOR__5', sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      GICD_SETSPI_NSR: {
        offset: 0x40,
        onWrite: (value): number => {
          raise(value);
          return 0;
        },
      },
    },
  );
}
