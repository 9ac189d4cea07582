/**
 * The accelerator as the bus sees it: identity, BARs, capabilities, and what outlives a reset. What is behind them is
 * in `device.ts`.
 */
import {
  type BarShape,
  type Capability,
  type CreateContext,
  type FunctionPort,
  type Identity,
  msi,
  type PcieFunction,
  type PowerOnCause,
  pciExpress,
} from 'ghostbus';
import { FloodGuard } from 'ghostbus/kit';
import type { Card } from './card.js';
import { CFG_BAR, Device, HBM_BAR, SRAM_BAR } from './device.js';
import type { BootFailure } from './firmware/boot-failure.js';
import { Sensors } from './firmware/sensors.js';
import { BAR0_BYTES, BAR2_BYTES, SRAM_BYTES } from './interconnect/address-map.js';
import { ElbiMailbox } from './interconnect/elbi.js';
import { Statistics } from './statistics.js';

/** L/common/habanalabs_drv.c ids: PCI_VENDOR_ID_HABANALABS, PCI_IDS_GAUDI. Class: processing accelerator. */
const IDENTITY: Identity = {
  vendorId: 0x1da3,
  deviceId: 0x1000,
  subsystemVendorId: 0x1da3,
  subsystemId: 0x1000,
  classCode: 0x120000,
  revisionId: 1,
};

/** PCI_IDS_GAUDI_SEC of the same file. */
const SECURED_DEVICE_ID = 0x1010;

/** The card offers 32 messages; the driver asks for one (L/gaudi/gaudi.c gaudi_enable_msi). */
const MSI_VECTORS = 32;

export interface HabanaOptions {
  readonly hbm: number;
  readonly cardName: string;
  readonly cardLocation: number;
  readonly temperature: number;
  readonly power: number;
  readonly failBoot: BootFailure | 'none';
  readonly profile: 'open' | 'secured';
}

/** Serial number of the card, as its management processor reports it. Made up, and different for every instance. */
function serialNumber(instance: number): string {
  return `GB${String(instance).padStart(8, '0')}`;
}

export class HabanaFunction implements PcieFunction<Device> {
  readonly identity: Identity;
  readonly bars: readonly BarShape[];
  readonly capabilities: readonly Capability[];
  readonly #card: Card;
  readonly #log: FloodGuard;
  #elbi: ElbiMailbox | undefined;

  constructor(context: CreateContext, options: HabanaOptions) {
    const isSecured = options.profile === 'secured';
    this.identity = isSecured ? { ...IDENTITY, deviceId: SECURED_DEVICE_ID } : IDENTITY;
    this.bars = [barShape(SRAM_BAR, BAR0_BYTES), barShape(CFG_BAR, BAR2_BYTES), barShape(HBM_BAR, options.hbm)];
    this.capabilities = [
      msi({ offset: 0x50, vectors: MSI_VECTORS }),
      pciExpress({ offset: 0x70, functionLevelReset: true }),
    ];
    this.#log = new FloodGuard(context.log);
    this.#card = {
      label: {
        cardName: options.cardName,
        cardLocation: options.cardLocation,
        serialNumber: serialNumber(context.instance),
      },
      isSecured,
      memories: {
        sram: context.createMemory('sram', SRAM_BYTES),
        hbm: context.createMemory('hbm', options.hbm),
        registers: context.createMemory('registers', BAR2_BYTES),
      },
      sensors: new Sensors({ temperatureCelsius: options.temperature, powerWatts: options.power }),
      statistics: new Statistics(),
      log: this.#log,
      bootFailure: options.failBoot === 'none' ? undefined : options.failBoot,
    };
  }

  /**
   * Memories keep their contents over a function-level reset and the device's own, as memory that is refreshed does.
   */
  powerOn(port: FunctionPort, cause: PowerOnCause): Device {
    const { sram, hbm } = this.#card.memories;
    this.#log.attach(port.clock);
    this.#card.sensors.countEnergyFrom(port.clock);
    if (cause === 'device') for (const memory of [sram, hbm]) memory.fill(0, 0, memory.sizeBytes);
    // The mailbox belongs to the PCIe core, which the device's own reset leaves alone: the driver
    // may be writing through it.
    if (this.#elbi === undefined || cause !== 'self') this.#elbi = new ElbiMailbox(this.#log);
    return new Device(port, cause, this.#card, this.#elbi);
  }
}

function barShape(index: BarShape['index'], sizeBytes: number): BarShape {
  return { index, kind: 'memory64', prefetchable: true, sizeBytes };
}
