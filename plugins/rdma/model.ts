/** What lies behind the BAR from one reset to the next: the initialization segment, doorbells, and the adapter. */
import type { FunctionModel, FunctionPort, Log, PowerOnCause } from 'ghostbus';
import { Adapter, type AdapterPlace } from './adapter.js';
import { BAR0 } from './bar0.js';
import { InitSegment, NIC_STATE } from './firmware/init-segment.js';
import { formatGuid, formatMac } from './port/addresses.js';
import type { Profile } from './port/profile.js';
import { type Doorbells, namedAccesses, UarPages } from './queues/uar.js';
import type { WireFaults } from './wire/faults.js';

/** What the card keeps and lends to each of its models. */
interface ModelPlace extends AdapterPlace {
  readonly log: Log;
  readonly profile: Profile;
}

export class RdmaModel implements FunctionModel {
  readonly adapter: Adapter;
  readonly initSegment: InitSegment;
  readonly wireFaults: WireFaults;
  readonly bars: FunctionModel['bars'];
  readonly #port: FunctionPort;
  readonly #profile: Profile;
  readonly #uarPages: UarPages;

  constructor(port: FunctionPort, cause: PowerOnCause, place: ModelPlace) {
    const { log, profile } = place;
    this.#port = port;
    this.#profile = profile;
    this.wireFaults = place.faults;
    this.adapter = new Adapter(
      {
        dma: port.dma,
        clock: port.clock,
        log,
        interrupt: (vector) => port.interrupt(vector),
        post: (work) => port.post(work),
      },
      profile,
      place,
    );
    // The driver that asked for a reset waits until the interface is disabled (core/health.c `mlx5_error_sw_reset`).
    const state = cause === 'self' ? NIC_STATE.DISABLED : NIC_STATE.FULL;
    this.initSegment = new InitSegment(log, port.clock, state, {
      commandDoorbell: (slots, address) => this.adapter.commandInterface.ring(slots, address),
      interfaceState: (wanted) => this.#interfaceState(wanted),
    });
    this.#uarPages = new UarPages(log, this.#doorbells());
    this.bars = {
      0: [
        { ...BAR0.initSegment, registers: this.initSegment },
        { ...BAR0.uars, registers: this.#uarPages },
        { ...BAR0.memory, memory: place.memory },
      ],
    };
  }

  powerOff(): void {
    this.adapter.stop();
  }

  inspect(): unknown {
    return {
      mac: formatMac(this.#profile.mac),
      nodeGuid: formatGuid(this.#profile.guid),
      ...this.adapter.inspect(),
      unimplemented: [...namedAccesses(this.initSegment), ...this.#uarPages.unimplemented()],
    };
  }

  /**
   * The driver takes the interface away (state 1), resets the adapter (state 7) when it recovers from a failure, and
   * gives the command queue a new place (state 0). A reset ends in state 1 and waits for that.
   */
  #interfaceState(wanted: number): boolean {
    if (wanted !== NIC_STATE.SW_RESET) return true;
    this.#port.post(() => this.#port.restart());
    return false;
  }

  /**
   * Doorbells are answered at once: what they cause runs after requests that already wait at other functions (bus
   * order).
   */
  #doorbells(): Doorbells {
    const { completionQueues, eventQueues, workQueues } = this.adapter;
    return {
      armCompletionQueue: (number, consumer, solicitedOnly) =>
        this.#port.post(() => completionQueues.find(number)?.arm(consumer, solicitedOnly)),
      updateEventQueue: (number, consumer, arm) =>
        this.#port.post(() => eventQueues.find(number)?.update(consumer, arm)),
      ringSendQueue: (number) => this.#port.post(() => workQueues.find(number)?.ring()),
    };
  }
}
