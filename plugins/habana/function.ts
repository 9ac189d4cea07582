/** The accelerator as the bus sees it: identity, BARs, capabilities. What is behind them is in `device.ts`. */
import {
  type Capability,
  type CreateContext,
  type FunctionPort,
  type Identity,
  type LegacyBar,
  type LegacyFunction,
  type MemoryRegion,
  msi,
  pciExpress,
  type ResetKind,
} from 'ghostbus';
import { FloodGuard } from 'ghostbus/kit';
import type { BootFailure } from './blocks/psoc.js';
import { control } from './commands.js';
import { Device } from './device.js';
import { BAR0_BYTES, BAR2_BYTES, SRAM_BYTES } from './interconnect/address-map.js';
import { ElbiMailbox } from './interconnect/elbi.js';

/** L/common/habanalabs_drv.c ids: PCI_VENDOR_ID_HABANALABS, PCI_IDS_GAUDI. Class: processing accelerator. */
export const identity: Identity = {
  vendorId: 0x1da3,
  deviceId: 0x1000,
  subsystemVendorId: 0x1da3,
  subsystemId: 0x1000,
  classCode: 0x120000,
  revisionId: 1,
};

/** PCI_IDS_GAUDI_SEC of the same file. */
const SECURED_DEVICE_ID = 0x1010;

export const SRAM_BAR = 0;
export const CFG_BAR = 2;
export const HBM_BAR = 4;

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
export function serialNumber(instance: number): string {
  return `GB${String(instance).padStart(8, '0')}`;
}

export class HabanaFunction implements LegacyFunction {
  readonly identity: Identity;
  readonly bars: readonly LegacyBar[];
  readonly capabilities: readonly Capability[];
  readonly configRegisters: NonNullable<LegacyFunction['configRegisters']>;
  readonly device: Device;
  readonly #serialNumber: string;
  readonly #sram: MemoryRegion;
  readonly #hbm: MemoryRegion;
  readonly #elbi: ElbiMailbox;
  readonly #log: FloodGuard;

  constructor(context: CreateContext, options: HabanaOptions) {
    const isSecured = options.profile === 'secured';
    this.identity = isSecured ? { ...identity, deviceId: SECURED_DEVICE_ID } : identity;
    this.#serialNumber = serialNumber(context.instance);
    this.#log = new FloodGuard(context.log);
    this.#sram = context.createMemory('sram', SRAM_BYTES);
    this.#hbm = context.createMemory('hbm', options.hbm);
    const registers = context.createMemory('registers', BAR2_BYTES);
    this.device = new Device(
      { sram: this.#sram, hbm: this.#hbm, registers },
      {
        cardName: options.cardName,
        cardLocation: options.cardLocation,
        serialNumber: this.#serialNumber,
        hbmBytes: options.hbm,
        temperatureCelsius: options.temperature,
        powerWatts: options.power,
        isSecured,
        bootFailure: options.failBoot === 'none' ? undefined : options.failBoot,
      },
      this.#log,
    );
    this.#elbi = new ElbiMailbox(this.device.config, this.#log);
    this.configRegisters = [this.#elbi.configRegisters];
    this.bars = [
      memoryBar(SRAM_BAR, BAR0_BYTES, this.#sram),
      { ...barShape(CFG_BAR, BAR2_BYTES), parts: this.device.config.parts() },
      memoryBar(HBM_BAR, options.hbm, this.#hbm),
    ];
    this.capabilities = [
      msi({ offset: 0x50, vectors: MSI_VECTORS }),
      pciExpress({ offset: 0x70, functionLevelReset: true }),
    ];
  }

  attach(port: FunctionPort): void {
    this.#log.attach(port.clock);
    this.device.attach(port);
  }

  /** Memories keep their contents over a function-level reset, as memory that is refreshed does. */
  reset(kind: ResetKind): void {
    if (kind === 'device') {
      this.#sram.fill(0, 0, this.#sram.sizeBytes);
      this.#hbm.fill(0, 0, this.#hbm.sizeBytes);
    }
    this.#elbi.reset();
    this.device.reset();
  }

  control(command: string, args: Readonly<Record<string, unknown>>): unknown {
    return control(this.device, command, args);
  }

  inspect(): unknown {
    const { device } = this;
    const busy = device.qmans.filter((qman) => !qman.isIdle || qman.counters.doorbells > 0);
    return {
      serialNumber: this.#serialNumber,
      firmware: device.psoc.stage,
      ...device.counters,
      events: { ...device.events.counters, ...device.mask.counters },
      cpuPackets: device.cpuQueue.counters.packets,
      leds: device.cpucp.leds,
      cpuTests: device.cpucp.counters.tests,
      mmu: device.mmu.counters,
      payloads: device.syncManagers.counters.payloads,
      slices: device.scheduler.counters.slices,
      queues: Object.fromEntries(busy.map((qman) => [qman.instance.name, qman.inspect()])),
      dma: Object.fromEntries(
        device.cores.map((core) => [`DMA${core.index}`, { busy: core.isBusy, ...core.counters }]),
      ),
      hbmAllocatedBytes: this.#hbm.allocatedBytes(),
      sramAllocatedBytes: this.#sram.allocatedBytes(),
      unimplemented: device.unimplemented(),
    };
  }
}

function barShape(index: 0 | 2 | 4, sizeBytes: number) {
  return { index, kind: 'memory64', prefetchable: true, sizeBytes } as const;
}

/** The memory may be smaller than its BAR; the rest reads zero. */
function memoryBar(index: 0 | 4, barBytes: number, memory: MemoryRegion): LegacyBar {
  return { ...barShape(index, barBytes), parts: [{ offset: 0, sizeBytes: memory.sizeBytes, memory }] };
}
