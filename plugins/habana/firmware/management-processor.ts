/** The card's management processor: its mailboxes, its queue and its events, and what its interrupts lead to. */
import type { FunctionPort, Timer } from 'ghostbus';
import type { Scheduler } from 'ghostbus/kit';
import { INTERRUPT, INTERRUPT_ID } from '../blocks/gic.js';
import { Psoc } from '../blocks/psoc.js';
import type { Card } from '../card.js';
import { type Interconnect, PHYSICAL } from '../interconnect/interconnect.js';
import { CpuQueue } from './cpu-queue.js';
import { Cpucp } from './cpucp.js';
import { EventMask } from './event-mask.js';
import { EventQueue, eventOf, type FirmwareEvent } from './event-queue.js';
import { eventOfInterrupt, isFatal } from './events.js';

/**
 * How long the firmware of a secured card lets the driver look at a fatal event; the driver gives it 2 s
 * (GAUDI_RESET_TIMEOUT_MSEC).
 */
const RESET_AFTER_EVENT_MS = 200;

interface ProcessorSurroundings {
  readonly port: FunctionPort;
  readonly card: Card;
  readonly scheduler: Scheduler;
  readonly interconnect: Interconnect;
  /** Contents of the monitors of all sync managers. */
  monitorDump(): Uint8Array;
}

export class ManagementProcessor {
  readonly psoc: Psoc;
  readonly cpucp: Cpucp;
  readonly cpuQueue: CpuQueue;
  readonly #port: FunctionPort;
  readonly #card: Card;
  readonly #events: EventQueue;
  readonly #mask: EventMask;
  /** The reset that the firmware of a secured card is about to make. */
  #ownReset: Timer | undefined;

  constructor({ port, card, scheduler, interconnect, monitorDump }: ProcessorSurroundings) {
    this.#port = port;
    this.#card = card;
    this.#events = new EventQueue(port, scheduler, card);
    this.#mask = new EventMask((event) => this.#events.send(event), card.statistics);
    this.cpucp = new Cpucp(card, { unmask: (types) => this.#mask.unmask(types), monitorDump });
    this.cpuQueue = new CpuQueue({ port, scheduler, card, cpucp: this.cpucp, events: this.#events });
    this.psoc = new Psoc(card, {
      resetRequested: () => port.restart(),
      stageChanged: (stage) => card.log.info(`firmware stage: ${stage}`),
      interruptPolled: (interrupt) => this.interrupt(interrupt),
      store: (address, bytes) => interconnect.write(address, bytes, PHYSICAL),
      load32: (address) => interconnect.read32(address, PHYSICAL),
    });
  }

  /** Somebody raised an interrupt of the processor: the driver, or an engine that reports an error. */
  interrupt(value: number): void {
    const interrupt = value & INTERRUPT_ID;
    if (interrupt === INTERRUPT.queueUpdate) this.cpuQueue.doorbell();
    else if (interrupt === INTERRUPT.halt) this.#halt();
    else if (interrupt === INTERRUPT.eventsWanted) this.#events.start();
    else this.#engineReported(interrupt);
  }

  /** Reports what an engine met, unless the driver has yet to deal with the last such event. */
  report(event: FirmwareEvent): void {
    this.#mask.report(event);
  }

  /** Reports an event whatever is masked. A fatal one makes the firmware of a secured card reset it. */
  send(event: FirmwareEvent): void {
    this.#events.send(event);
    if (this.#card.isSecured && isFatal(event.type)) {
      this.#ownReset ??= this.#port.clock.after(RESET_AFTER_EVENT_MS, () => this.#port.restart());
    }
  }

  inspect() {
    return {
      firmware: this.psoc.stage,
      events: { ...this.#events.counters, ...this.#mask.counters },
      cpuPackets: this.cpuQueue.counters.packets,
      leds: this.cpucp.leds,
      cpuTests: this.cpucp.counters.tests,
    };
  }

  /** The firmware of a secured card makes the reset for which the driver has it halt. */
  #halt(): void {
    if (this.#card.isSecured) this.#port.restart();
    else this.psoc.halt();
  }

  #engineReported(interrupt: number): void {
    const type = eventOfInterrupt(interrupt);
    if (type !== undefined) this.report(eventOf(type));
    else this.#card.log.warn('an interrupt that no engine raises was written to the GIC', { interrupt });
  }
}
