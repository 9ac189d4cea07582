/**
 * Which events may be reported. After an engine's error has been reported, the firmware keeps quiet about it until the
 * driver unmasks it (CPUCP_PACKET_UNMASK_RAZWI_IRQ); what happened meanwhile is reported then, once.
 */
import type { Statistics } from '../statistics.js';
import type { FirmwareEvent } from './event-queue.js';

export class EventMask {
  readonly #send: (event: FirmwareEvent) => void;
  /** How often the driver unmasked an event, whether it was masked or not. */
  readonly counters: Record<'unmasked', number>;
  readonly #masked = new Map<number, FirmwareEvent | undefined>();

  constructor(send: (event: FirmwareEvent) => void, statistics: Statistics) {
    this.#send = send;
    this.counters = statistics.of('event mask', 'unmasked');
  }

  report(event: FirmwareEvent): void {
    if (this.#masked.has(event.type)) {
      this.#masked.set(event.type, event);
      return;
    }
    this.#masked.set(event.type, undefined);
    this.#send(event);
  }

  unmask(types: readonly number[]): void {
    for (const type of types) {
      this.counters.unmasked++;
      const missed = this.#masked.get(type);
      this.#masked.delete(type);
      if (missed !== undefined) this.report(missed);
    }
  }
}
