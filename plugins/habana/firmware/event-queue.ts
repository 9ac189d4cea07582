/**
 * The event queue (EQ): a ring of 64-byte entries in the driver's memory into which the firmware reports what happened.
 * Source: include/linux/habanalabs/cpucp_if.h struct hl_eq_entry, EQ_CTL_*; common/irq.c hl_irq_handler_eq.
 */
import { DmaError, type FunctionPort } from 'ghostbus';

export const EVENT_ENTRY_BYTES = 64;
export const EVENT_DATA_BYTES = 56;
const EVENT_DATA_OFFSET = 8;
const CONTROL_OFFSET = 4;
const READY = 0x80000000;
/** Events that wait for room; more are lost, as in a real firmware's queue. */
const MAX_WAITING = 256;
/** While the driver has not made room, look again. */
const RETRY_MS = 1;

export interface EventRing {
  /** Bus address of the first entry. */
  readonly address: number;
  readonly entries: number;
}

export interface FirmwareEvent {
  /** enum gaudi_async_event_id. */
  readonly type: number;
  readonly data: Uint8Array;
}

export class EventQueue {
  #port: FunctionPort | undefined;
  #ring: EventRing | undefined;
  #isWanted = false;
  /** Running number of the next entry, from 1; the driver sees its lower 16 bits. */
  #index = 1;
  #producer = 0;
  #waiting: FirmwareEvent[] = [];
  #isRetrying = false;
  readonly counters = { sent: 0, lost: 0 };

  attach(port: FunctionPort): void {
    this.#port = port;
  }

  reset(): void {
    this.#ring = undefined;
    this.#isWanted = false;
    this.#index = 1;
    this.#producer = 0;
    this.#waiting = [];
    this.#isRetrying = false;
  }

  /** The driver has told where the ring is. */
  open(ring: EventRing): void {
    this.#ring = ring;
    this.#producer = 0;
    this.#index = 1;
  }

  /** The driver is ready to take events (GIC interrupt INTS_REGISTER). */
  start(): void {
    this.#isWanted = true;
    this.flush();
  }

  get isOpen(): boolean {
    return this.#isWanted && this.#ring !== undefined;
  }

  /** Queues an event; it is written from posted work, never inside a register handler. */
  send(event: FirmwareEvent): void {
    if (this.#waiting.length >= MAX_WAITING) {
      this.counters.lost++;
      this.#port?.log.warn('the event queue is full: an event is lost', { type: event.type });
      return;
    }
    this.#waiting.push(event);
    this.#port?.post(() => this.flush());
  }

  /** Writes what fits. */
  flush(): void {
    const port = this.#port;
    const ring = this.#ring;
    if (port === undefined || ring === undefined || !this.#isWanted) return;
    try {
      for (let event = this.#waiting[0]; event !== undefined; event = this.#waiting[0]) {
        const address = ring.address + EVENT_ENTRY_BYTES * (this.#producer % ring.entries);
        if ((port.dma.readU32(address + CONTROL_OFFSET) & READY) !== 0) {
          this.#retry(port);
          return;
        }
        if (this.#ring !== ring || this.#waiting[0] !== event) return;
        this.#waiting.shift();
        this.#write(port, address, event);
      }
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      port.log.warn(`the event queue cannot be reached: ${error.message}`);
      this.counters.lost += this.#waiting.length;
      this.#waiting = [];
    }
  }

  /** The control word last: it makes the entry valid. Then the interrupt. */
  #write(port: FunctionPort, address: number, event: FirmwareEvent): void {
    const control = (READY | ((event.type & 0xfff) << 16) | (this.#index & 0xffff)) >>> 0;
    this.#index++;
    this.#producer++;
    port.dma.write(address + EVENT_DATA_OFFSET, event.data);
    port.dma.writeU32(address + CONTROL_OFFSET, control);
    this.counters.sent++;
    port.interrupt(0);
  }

  #retry(port: FunctionPort): void {
    if (this.#isRetrying) return;
    this.#isRetrying = true;
    port.clock.after(RETRY_MS, () => {
      this.#isRetrying = false;
      this.flush();
    });
  }
}
