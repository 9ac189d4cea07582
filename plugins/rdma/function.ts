/** The card: what the guest finds on the bus, and what outlives a reset. Behind it a {@link RdmaModel} per reset. */
import {
  type BarShape,
  type Capability,
  type CreateContext,
  type FunctionPort,
  type Identity,
  type MemoryRegion,
  msix,
  type PcieFunction,
  type PowerOnCause,
  pciExpress,
  powerManagement,
  vendorSpecific,
} from 'ghostbus';
import { FloodGuard, type FloodLimit } from 'ghostbus/kit';
import { BAR0, MSIX_VECTORS } from './bar0.js';
import { RdmaModel } from './model.js';
import type { Link, Profile } from './port/profile.js';
import { WireFaults } from './wire/faults.js';
import type { WireRecorder } from './wire/recorder.js';
import { Switch } from './wire/switch.js';

/**
 * drivers/net/ethernet/mellanox/mlx5/core/main.c mlx5_core_pci_table: 0x1021 is ConnectX-7. The class is that of a
 * network or an InfiniBand controller (PCI code and ID assignment).
 */
function identityOf(link: Link): Identity {
  return {
    vendorId: 0x15b3,
    deviceId: 0x1021,
    subsystemVendorId: 0x15b3,
    subsystemId: 0x0058,
    classCode: link === 'roce' ? 0x020000 : 0x020700,
    revisionId: 0,
  };
}

/** A driver that probes, or a test of hundreds of errors, says more in a second than the kit's standard lets pass. */
const LOG_LIMIT: FloodLimit = { records: 200 };

export class RdmaFunction implements PcieFunction<RdmaModel> {
  readonly nameSuffix?: string;
  readonly identity: Identity;
  readonly bars: readonly BarShape[] = [{ index: 0, kind: 'memory64', prefetchable: true, sizeBytes: BAR0.sizeBytes }];
  readonly capabilities = capabilities();
  readonly profile: Profile;
  /** Weather stays until somebody asks for other weather: a driver's reset does not repair a cable. */
  readonly wireFaults = new WireFaults();
  readonly #memory: MemoryRegion;
  readonly #switch: Switch;
  readonly #recorder: WireRecorder | undefined;
  #log: FloodGuard | undefined;

  constructor(context: CreateContext, profile: Profile, nameSuffix?: string, recorder?: WireRecorder) {
    if (nameSuffix !== undefined) this.nameSuffix = nameSuffix;
    this.identity = identityOf(profile.link);
    this.profile = profile;
    this.#memory = context.createMemory(`${context.name}${nameSuffix ?? ''}-memic`, BAR0.sizeBytes);
    this.#switch = context.machineService('rdma-switch', () => new Switch());
    this.#recorder = recorder;
  }

  powerOn(port: FunctionPort, cause: PowerOnCause): RdmaModel {
    if (this.#log === undefined) this.#log = new FloodGuard(port.log, port.clock, LOG_LIMIT);
    else this.#log.attach(port.clock);
    return new RdmaModel(port, cause, {
      log: this.#log,
      profile: this.profile,
      memory: this.#memory,
      switch: this.#switch,
      faults: this.wireFaults,
      recorder: this.#recorder,
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
      tableOffset: BAR0.msixTableOffset,
      pendingBar: 0,
      pendingOffset: BAR0.msixPendingOffset,
    }),
    vendorSpecific({ offset: 0xc0, ...emptyGateway() }),
  ];
}

/** Registers of the gateway capability, from its start (core/lib/pci_vsc.h `VSC_*_OFFSET`). */
const GATEWAY = { CONTROL: 0x4, COUNTER: 0x8, SEMAPHORE: 0xc, BYTES: 0x18 } as const;
/** Data of a vendor-specific capability starts behind its id, next pointer and length. */
const CAPABILITY_HEADER_BYTES = 3;

/**
 * The gateway to the card's internal address spaces (core/lib/pci_vsc.c): a control register, a counter, a semaphore,
 * address and data. Its status bits stay 0: it has no space of the kind that the driver asks for.
 */
function emptyGateway(): { data: Uint8Array; writable: Uint8Array } {
  const at = (register: number): number => register - CAPABILITY_HEADER_BYTES;
  const data = new Uint8Array(at(GATEWAY.BYTES));
  const writable = new Uint8Array(at(GATEWAY.BYTES));
  writable.fill(0xff, at(GATEWAY.CONTROL), at(GATEWAY.CONTROL) + 2);
  data[at(GATEWAY.COUNTER)] = 1;
  writable.fill(0xff, at(GATEWAY.SEMAPHORE), at(GATEWAY.SEMAPHORE) + 4);
  return { data, writable };
}
