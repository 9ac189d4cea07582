/**
 * The event queue (EQ): a ring of 64-byte entries in the driver's memory into which the firmware reports what happened.
 * Source: include/linux/habanalabs/cpucp_if.h struct hl_eq_entry, EQ_CTL_*; common/irq.c hl_irq_handler_eq.
 */
import { DmaError, type FunctionPort, type Log } from 'ghostbus';
import {
  BitFields32,
  COST,
  ImageBuilder,
  Ring,
  type Runnable,
  type Scheduler,
  type TurnResult,
  type WorkBudget,
} from 'ghostbus/kit';
import type { Card } from '../card.js';

export const EVENT_ENTRY_BYTES = 64;
export const EVENT_DATA_BYTES = 56;
const EVENT_DATA_OFFSET = 8;
const CONTROL_OFFSET = 4;
/** EQ_CTL_*. */
const CONTROL = new BitFields32({ index: [0, 16], type: [16, 12], ready: [31, 1] });
/** Events that wait for room; more are lost, as in a real firmware's queue. */
const MAX_WAITING = 256;

interface EventRing {
  /** Bus address of the first entry. */
  readonly address: number;
  readonly entries: number;
}

export interface FirmwareEvent {
  /** enum gaudi_async_event_id. */
  readonly type: number;
  readonly data: Uint8Array;
}

/** An event that carries nothing but these words, or nothing at all. */
export function eventOf(type: number, ...words: readonly number[]): FirmwareEvent {
  return { type, data: new ImageBuilder({ sizeBytes: EVENT_DATA_BYTES }).u32(0, ...words).bytes };
}

export class EventQueue implements Runnable {
  readonly #port: FunctionPort;
  readonly #scheduler: Scheduler;
  readonly #log: Log;
  #place: EventRing | undefined;
  #ring = new Ring({ entries: 1 });
  #isWanted = false;
  /** Running number of the next entry, from 1; the driver sees its lower 16 bits. */
  #index = 1;
  #producer = 0;
  #waiting: FirmwareEvent[] = [];
  readonly counters: Record<'sent' | 'lost', number>;

  constructor(port: FunctionPort, scheduler: Scheduler, { statistics, log }: Card) {
    this.#port = port;
    this.#scheduler = scheduler;
    this.#log = log;
    this.counters = statistics.of('event queue', 'sent', 'lost');
  }

  /** The driver has told where the ring is. */
  open(place: EventRing): void {
    this.#place = place;
    this.#ring = new Ring({ entries: place.entries });
    this.#producer = 0;
    this.#index = 1;
  }

  /** The driver is ready to take events (GIC interrupt INTS_REGISTER). */
  start(): void {
    this.#isWanted = true;
    this.#scheduler.wake(this);
  }

  /** Queues an event; it is written in a turn, never inside a register handler. */
  send(event: FirmwareEvent): void {
    if (this.#waiting.length >= MAX_WAITING) {
      this.counters.lost++;
      this.#log.warn('the event queue is full: an event is lost', { type: event.type });
      return;
    }
    this.#waiting.push(event);
    this.#scheduler.wake(this);
  }

  /** Writes what fits. While the driver has not made room, it looks again. */
  turn(budget: WorkBudget): TurnResult {
    const place = this.#place;
    if (place === undefined || !this.#isWanted) return 'idle';
    try {
      for (let event = this.#waiting[0]; event !== undefined; event = this.#waiting[0]) {
        if (budget.isSpent) return 'ready';
        budget.charge(COST.fetch);
        const address = place.address + EVENT_ENTRY_BYTES * this.#ring.slot(this.#producer);
        if (CONTROL.has(this.#port.dma.readU32(address + CONTROL_OFFSET), 'ready')) return 'poll';
        // DMA by message serves registers meanwhile: the driver may have opened another ring.
        if (this.#place !== place || this.#waiting[0] !== event) return 'ready';
        this.#waiting.shift();
        this.#write(address, event);
      }
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#log.warn(`the event queue cannot be reached: ${error.message}`);
      this.counters.lost += this.#waiting.length;
      this.#waiting = [];
    }
    return 'idle';
  }

  /** The control word last: it makes the entry valid. Then the interrupt. */
  #write(address: number, event: FirmwareEvent): void {
    const control = CONTROL.pack({ ready: 1, type: event.type, index: this.#index });
    this.#index++;
    this.#producer = this.#ring.advance(this.#producer);
    this.#port.dma.write(address + EVENT_DATA_OFFSET, event.data);
    this.#port.dma.writeU32(address + CONTROL_OFFSET, control);
    this.counters.sent++;
    this.#port.interrupt(0);
  }
}
