/** The adapter as the bus sees it: identity, BAR, doorbells; behind them an {@link Adapter} per reset. */
import {
  type Capability,
  type CreateContext,
  type FunctionPort,
  type Identity,
  type LegacyBar,
  type LegacyFunction,
  type MemoryRegion,
  msix,
  pciExpress,
  powerManagement,
  vendorSpecific,
} from 'ghostbus';
import { Adapter } from './adapter.js';
import { control } from './control.js';
import { INIT_SEGMENT_BYTES, InitSegment, NIC_STATE } from './firmware/init-segment.js';
import { DEVICE_MEMORY_BYTES } from './memory/device-memory.js';
import { formatGuid, formatMac } from './port/addresses.js';
import type { Link, Profile } from './port/profile.js';
import { type Doorbells, namedAccesses, UAR_PAGE_BYTES, UarPages } from './queues/uar.js';
import { WireFaults } from './wire/faults.js';
import type { WireRecorder } from './wire/recorder.js';
import { type Station, Switch } from './wire/switch.js';

/** drivers/net/ethernet/mellanox/mlx5/core/main.c mlx5_core_pci_table: 0x1021 is ConnectX-7. Network or InfiniBand controller. */
export function identityOf(link: Link): Identity {
  return {
    vendorId: 0x15b3,
    deviceId: 0x1021,
    subsystemVendorId: 0x15b3,
    subsystemId: 0x0058,
    classCode: link === 'roce' ? 0x020000 : 0x020700,
    revisionId: 0,
  };
}

/** Like the card: table and pending bits right behind the two pages of the initialization segment. */
export const bar0 = {
  msixTableOffset: 0x2000,
  msixPendingOffset: 0x3000,
  /** Index of the first UAR: below it, a page number would meet the initialization segment or the MSI-X table. */
  firstUar: 16,
  sizeBytes: 32 * 2 ** 20,
  /** The adapter's own memory, at the end. */
  memoryOffset: 32 * 2 ** 20 - DEVICE_MEMORY_BYTES,
} as const;

export const MSIX_VECTORS = 16;

/** Until the machine has a service for it: one switch for the process, on which the port tells who is of its own machine. */
const ports = new WeakMap<Station, FunctionPort>();
const theSwitch = new Switch((own, other) => {
  const sibling = ports.get(own)?.sibling(ports.get(other)?.name ?? '');
  return sibling instanceof RdmaFunction && sibling.adapter?.cable === other;
});

export class RdmaFunction implements LegacyFunction {
  readonly nameSuffix?: string;
  readonly identity: Identity;
  readonly bars: readonly LegacyBar[];
  readonly capabilities: readonly Capability[];
  readonly profile: Profile;
  readonly initSegment: InitSegment;
  readonly wireFaults = new WireFaults();
  readonly #uarPages: UarPages;
  readonly #memory: MemoryRegion;
  #port: FunctionPort | undefined;
  #adapter: Adapter | undefined;

  readonly #recorder: WireRecorder | undefined;

  constructor(context: CreateContext, profile: Profile, nameSuffix?: string, recorder?: WireRecorder) {
    this.#recorder = recorder;
    if (nameSuffix !== undefined) this.nameSuffix = nameSuffix;
    this.identity = identityOf(profile.link);
    this.profile = profile;
    this.initSegment = new InitSegment(context.log, () => this.#port?.clock, {
      commandDoorbell: (slots, address) => this.#adapter?.commandInterface.ring(slots, address),
      interfaceState: (state) => this.#interfaceState(state),
    });
    this.#uarPages = new UarPages(context.log, this.#doorbells());
    this.#memory = context.createMemory(`${context.name}${nameSuffix ?? ''}-memic`, bar0.sizeBytes);
    const uarOffset = bar0.firstUar * UAR_PAGE_BYTES;
    this.bars = [
      {
        index: 0,
        kind: 'memory64',
        prefetchable: true,
        sizeBytes: bar0.sizeBytes,
        parts: [
          { offset: 0, sizeBytes: INIT_SEGMENT_BYTES, registers: this.initSegment },
          { offset: uarOffset, sizeBytes: bar0.memoryOffset - uarOffset, registers: this.#uarPages },
          { offset: bar0.memoryOffset, sizeBytes: DEVICE_MEMORY_BYTES, memory: this.#memory },
        ],
      },
    ];
    this.capabilities = capabilities();
  }

  /** The adapter since the last reset; undefined before the function is attached. */
  get adapter(): Adapter | undefined {
    return this.#adapter;
  }

  attach(port: FunctionPort): void {
    this.#port = port;
    this.#start(port);
  }

  reset(): void {
    this.initSegment.restart();
    this.#uarPages.reset();
    this.#restart();
  }

  detach(): void {
    this.#adapter?.stop();
    this.#adapter = undefined;
  }

  control(command: string, args: Readonly<Record<string, unknown>>): unknown {
    return control(this, command, args);
  }

  inspect(): unknown {
    return {
      mac: formatMac(this.profile.mac),
      nodeGuid: formatGuid(this.profile.guid),
      ...(this.#adapter?.inspect() as object | undefined),
      unimplemented: [...namedAccesses(this.initSegment), ...this.#uarPages.unimplemented()],
    };
  }

  #start(port: FunctionPort): void {
    this.#adapter = new Adapter(port, this.profile, {
      vectors: MSIX_VECTORS,
      faults: this.wireFaults,
      recorder: this.#recorder,
      firstUar: bar0.firstUar,
      lastUar: bar0.memoryOffset / UAR_PAGE_BYTES - 1,
      memory: this.#memory,
      memoryOffset: bar0.memoryOffset,
      switch: theSwitch,
    });
    ports.set(this.#adapter.cable, port);
  }

  #restart(): void {
    this.#adapter?.stop();
    if (this.#port !== undefined) this.#start(this.#port);
  }

  /**
   * The driver takes the interface away (state 1), resets the adapter (state 7) when it recovers from a failure, and gives the
   * command queue a new place (state 0). A reset ends in state 1 and waits for that.
   */
  #interfaceState(state: number): boolean {
    if (state !== NIC_STATE.SW_RESET) return true;
    this.#port?.post(() => {
      this.initSegment.restart();
      this.#restart();
      this.initSegment.setInterfaceState(NIC_STATE.DISABLED);
    });
    return false;
  }

  #doorbells(): Doorbells {
    // Doorbells are answered at once: what they cause runs after requests that already wait at other functions (bus order).
    return {
      armCompletionQueue: (number, consumer, solicitedOnly) =>
        this.#post((adapter) => adapter.completionQueues.find(number)?.arm(consumer, solicitedOnly)),
      updateEventQueue: (number, consumer, arm) =>
        this.#post((adapter) => adapter.eventQueues.find(number)?.update(consumer, arm)),
      ringSendQueue: (number) => this.#post((adapter) => adapter.workQueues.find(number)?.ring()),
    };
  }

  #post(work: (adapter: Adapter) => void): void {
    const adapter = this.#adapter;
    if (adapter === undefined) return;
    this.#port?.post(() => {
      if (this.#adapter === adapter) work(adapter);
    });
  }
}

function capabilities(): readonly Capability[] {
  return [
    powerManagement({ offset: 0x40 }),
    pciExpress({ offset: 0x60 }),
    msix({
      offset: 0x9c,
      vectors: MSIX_VECTORS,
      tableBar: 0,
      tableOffset: bar0.msixTableOffset,
      pendingBar: 0,
      pendingOffset: bar0.msixPendingOffset,
    }),
    vendorSpecific({ offset: 0xc0, ...emptyGateway() }),
  ];
}

/**
 * The gateway to the card's internal address spaces (core/lib/pci_vsc.c): a control register, a counter, a semaphore, address and
 * data. Its status bits stay 0: it has no space of the kind that the driver asks for.
 */
function emptyGateway(): { data: Uint8Array; writable: Uint8Array } {
  const lengthBytes = 0x18;
  // Data starts behind the three bytes of the capability's header.
  const at = (register: number): number => register - 3;
  const data = new Uint8Array(lengthBytes - 3);
  const writable = new Uint8Array(lengthBytes - 3);
  const [control, counter, semaphore] = [at(0x4), at(0x8), at(0xc)];
  writable.fill(0xff, control, control + 2);
  data[counter] = 1;
  writable.fill(0xff, semaphore, semaphore + 4);
  return { data, writable };
}
