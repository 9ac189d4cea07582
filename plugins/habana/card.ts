/**
 * What a reset of the device does not touch: it belongs to the card, and every device that is made behind the bus gets
 * it.
 */
import type { Log, MemoryRegion } from 'ghostbus';
import type { BootFailure } from './firmware/boot-failure.js';
import type { Sensors } from './firmware/sensors.js';
import type { Statistics } from './statistics.js';

export interface CardMemories {
  readonly hbm: MemoryRegion;
  readonly sram: MemoryRegion;
  /** Behind BAR2: what does not trap. */
  readonly registers: MemoryRegion;
}

/** How the card calls itself. */
interface CardLabel {
  readonly cardName: string;
  readonly cardLocation: number;
  readonly serialNumber: string;
}

export interface Card {
  readonly label: CardLabel;
  /** Its firmware keeps the host out of what concerns security (1da3:1010). */
  readonly isSecured: boolean;
  readonly memories: CardMemories;
  readonly sensors: Sensors;
  readonly statistics: Statistics;
  readonly log: Log;
  /** Where boots fail: a broken card stays broken until it is told otherwise. */
  bootFailure: BootFailure | undefined;
}
