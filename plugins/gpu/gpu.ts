/** The GPU as a card: what the guest finds on the bus, and what outlives a reset. All else is in the model. */
import {
  type BarShape,
  type Capability,
  type CreateContext,
  deviceSerialNumber,
  type FunctionPort,
  type Identity,
  type MemoryRegion,
  msi,
  type PcieFunction,
  type PowerOnCause,
  pciExpress,
  powerManagement,
  vendorSpecificExtended,
} from 'ghostbus';
import { FloodGuard, ImageBuilder } from 'ghostbus/kit';
import { DOORBELL_BYTES } from './bus/doorbells.js';
import { MMIO_BYTES } from './bus/registers.js';
import { FrameBuffer, type Hive } from './memory/frame-buffer.js';
import { parseHive } from './memory/hive.js';
import { BAR, GpuModel } from './model.js';
import { DISCOVERY_OFFSET_FROM_END, discoveryTable } from './product/discovery.js';
import { PRODUCTS, type Product, type ProductId } from './product/product.js';
import { vbios } from './product/vbios.js';

export interface GpuOptions {
  readonly id: ProductId;
  readonly vram: number;
  /** BAR0's size: VRAM beyond it is reached by the engines and other nodes of the hive only. Default: all VRAM. */
  readonly bar?: number | undefined;
  /** Names of the hive's members, joined by `+`. */
  readonly hive?: string | undefined;
}

/** The ROM BAR's size; the image fills its first 4 KiB. */
const ROM_BYTES = 64 * 1024;

/** A guest must not be able to fill the host's disk with what it does wrong. */
const SHOWN_PER_KIND = { records: 10, periodMs: Number.POSITIVE_INFINITY };

/** Our own EUI-64 range: locally administered. */
const SERIAL_NUMBER_BASE = 0x0200_67ff_fe00_0000n;

function capabilities(instance: number, { aldebaran }: Product): readonly Capability[] {
  return [
    powerManagement(),
    msi({ vectors: 1 }),
    pciExpress({ functionLevelReset: true }),
    // Makes extended configuration space visible, as the driver checks (amdgpu_device.c); the contents mean nothing.
    vendorSpecificExtended({ vsecId: 1, revision: 1, data: new Uint8Array(8) }),
    // Not on Aldebaran: its driver makes the file serial_number in sysfs itself (amdgpu_fru_eeprom.c), as 7.3's PCI
    // core does.
    ...(aldebaran ? [] : [deviceSerialNumber({ serialNumber: SERIAL_NUMBER_BASE + BigInt(instance) })]),
  ];
}

/** VRAM, doorbells, registers, ROM. VRAM keeps its contents over resets, as it does on a card whose bus is reset. */
export class Gpu implements PcieFunction<GpuModel> {
  readonly identity: Identity;
  readonly bars: readonly BarShape[];
  readonly capabilities: readonly Capability[];
  readonly rom: Uint8Array;
  readonly linkMemory?: MemoryRegion;
  readonly #product: Product;
  readonly #hive: Hive | undefined;
  readonly #vram: MemoryRegion;
  readonly #visibleBytes: number;
  #log: FloodGuard | undefined;
  #mode1Resets = 0;

  constructor(context: CreateContext, { id, vram: vramBytes, bar: barBytes = vramBytes, hive }: GpuOptions) {
    if (barBytes > vramBytes) throw new Error(`gpu: bar=${barBytes} is more than the VRAM, ${vramBytes}`);
    this.#product = PRODUCTS[id];
    this.identity = this.#product.identity;
    if (hive !== undefined && !this.#product.aldebaran)
      throw new Error(`gpu: hive=${hive}: the driver looks for a hive only where id=740f`);
    this.#hive = hive === undefined ? undefined : parseHive(hive, context.name);
    this.#vram = context.createMemory('vram', vramBytes);
    this.#visibleBytes = barBytes;
    if (this.#hive !== undefined) this.linkMemory = this.#vram;
    this.capabilities = capabilities(context.instance, this.#product);
    this.rom = new ImageBuilder({ sizeBytes: ROM_BYTES, padding: 0xff }).put(0, vbios(this.identity)).bytes;
    this.bars = [
      { index: BAR.VRAM, kind: 'memory64', prefetchable: true, sizeBytes: barBytes },
      { index: BAR.DOORBELLS, kind: 'memory64', prefetchable: true, sizeBytes: DOORBELL_BYTES },
      { index: BAR.REGISTERS, kind: 'memory32', sizeBytes: MMIO_BYTES },
    ];
  }

  powerOn(port: FunctionPort, cause: PowerOnCause): GpuModel {
    if (cause === 'self') this.#mode1Resets++;
    else if (cause !== 'attach') this.#checkHive(port);
    this.#log ??= new FloodGuard(port.log, undefined, SHOWN_PER_KIND);
    this.#log.attach(port.clock);
    this.#vram.write(this.#vram.sizeBytes - DISCOVERY_OFFSET_FROM_END, discoveryTable(this.#product.blocks));
    return new GpuModel({
      port,
      product: this.#product,
      frameBuffer: new FrameBuffer(port, this.#vram, this.#hive),
      visibleBytes: this.#visibleBytes,
      log: this.#log,
      mode1Resets: this.#mode1Resets,
    });
  }

  /** Segments have one size, so all members must; when this GPU was attached the others were not there yet. */
  #checkHive(port: FunctionPort): void {
    for (const name of this.#hive?.nodes ?? []) {
      const member = port.sibling(name);
      const same =
        member instanceof Gpu &&
        member.#hive?.nodes.join() === this.#hive?.nodes.join() &&
        member.#vram.sizeBytes === this.#vram.sizeBytes;
      if (!same) throw new Error(`hive: ${name} must be a GPU with the same hive and as much VRAM`);
    }
  }
}
