/**
 * BAR0 as the data book of this engine would print it: two pages of registers declared as data. Behaviour comes in
 * through {@link RegisterHooks}, so that this file can be read as a map.
 */
import { type Log, RegisterBlock } from 'ghostbus';

/** Layout of BAR0; each page traps separately or belongs to MSI-X (QEMU serves table and pending bits itself). */
export const bar0 = {
  registersOffset: 0x0000,
  doorbellOffset: 0x1000,
  msixTableOffset: 0x2000,
  msixPendingOffset: 0x3000,
  pageBytes: 0x1000,
  sizeBytes: 0x4000,
} as const;

/** Device memory is behind this BAR. */
export const MEMORY_BAR = 2;

/** MSI-X vectors. */
export const vectors = { completion: 0, halt: 1 } as const;

/** "GBEX" in ASCII, first letter in the highest byte: a driver checks that it talks to what it thinks. */
export const ID_VALUE = 0x47424558;
/** Major version in the high half: a driver refuses an unknown one. */
export const VERSION_VALUE = 0x00010000;

export const control = { enable: 1 << 0, reset: 1 << 1 } as const;
export const statusBits = { running: 1 << 0, busy: 1 << 1, halted: 1 << 2 } as const;
export const cause = { completion: 1 << 0, halt: 1 << 1 } as const;

/** log2 of the smallest and the largest ring. */
export const ringLog2 = { min: 1, max: 16 } as const;

export interface RegisterHooks {
  control(value: number): number;
  status(): number;
  head(): number;
  tail(): number;
  doorbell(tail: number): void;
}

export type EngineRegisters = ReturnType<typeof createRegisters>;

export function createRegisters(log: Log, hooks: RegisterHooks) {
  return new RegisterBlock(
    { name: 'registers', sizeBytes: bar0.pageBytes, log },
    {
      ID: { offset: 0x00, reset: ID_VALUE, writable: 0 },
      VERSION: { offset: 0x04, reset: VERSION_VALUE, writable: 0 },
      CONTROL: {
        offset: 0x08,
        writable: control.enable | control.reset,
        fields: { ENABLE: { low: 0, high: 0 }, RESET: { low: 1, high: 1 } },
        onWrite: hooks.control,
      },
      STATUS: {
        offset: 0x0c,
        writable: 0,
        fields: { RUNNING: { low: 0, high: 0 }, BUSY: { low: 1, high: 1 }, HALTED: { low: 2, high: 2 } },
        onRead: hooks.status,
      },
      RING_BASE_LO: { offset: 0x20, writable: 0xffffffe0 },
      RING_BASE_HI: { offset: 0x24 },
      RING_SIZE: { offset: 0x28, writable: 0x1f, fields: { LOG2_ENTRIES: { low: 0, high: 4 } } },
      HEAD: { offset: 0x2c, writable: 0, onRead: hooks.head },
      TAIL: { offset: 0x30, writable: 0, onRead: hooks.tail },
      INTERRUPT_STATUS: {
        offset: 0x40,
        writable: 0,
        writeOneToClear: cause.completion | cause.halt,
        fields: { COMPLETION: { low: 0, high: 0 }, HALT: { low: 1, high: 1 } },
      },
      INTERRUPT_ENABLE: { offset: 0x44, writable: cause.completion | cause.halt },
      ERROR: { offset: 0x48, writable: 0 },
    },
  );
}

/**
 * The doorbell has a page of its own, so that a driver can hand it to a peer or to user space and nothing else with it.
 */
export function createDoorbellPage(log: Log, hooks: RegisterHooks) {
  return new RegisterBlock(
    { name: 'doorbell', sizeBytes: bar0.pageBytes, log },
    {
      DOORBELL: {
        offset: 0x00,
        onRead: () => 0,
        onWrite: (tail) => {
          hooks.doorbell(tail);
          return undefined;
        },
      },
    },
  );
}
