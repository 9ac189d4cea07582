import {
  type Capability,
  type CreateContext,
  deviceSerialNumber,
  type FunctionPort,
  type Identity,
  type LegacyBar,
  type LegacyFunction,
  type MemoryRegion,
  msi,
  pciExpress,
  powerManagement,
  type RegisterHandler,
  type ResetKind,
  vendorSpecificExtended,
} from 'ghostbus';
import { FloodGuard } from 'ghostbus/kit';
import { DOORBELL_BYTES } from './bus/doorbells.js';
import { MMIO_BYTES } from './bus/registers.js';
import { parseCommand } from './commands.js';
import { FrameBuffer, type Hive } from './memory/frame-buffer.js';
import { parseHive } from './memory/hive.js';
import { DISCOVERY_OFFSET_FROM_END, discoveryTable } from './product/discovery.js';
import { PRODUCTS, type Product, type ProductId } from './product/product.js';
import { vbios } from './product/vbios.js';
import { Soc } from './soc.js';

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
    // Not on Aldebaran: its driver makes the file serial_number in sysfs itself (amdgpu_fru_eeprom.c), as 7.3's PCI core does.
    ...(aldebaran ? [] : [deviceSerialNumber({ serialNumber: SERIAL_NUMBER_BASE + BigInt(instance) })]),
  ];
}

/** The GPU as a PCIe function: VRAM, doorbells, registers, ROM. */
export class Gpu implements LegacyFunction {
  readonly identity: Identity;
  readonly bars: readonly LegacyBar[];
  readonly capabilities: readonly Capability[];
  readonly rom: Uint8Array;
  readonly linkMemory?: MemoryRegion;
  readonly #product: Product;
  readonly #hive: Hive | undefined;
  readonly #vram: MemoryRegion;
  #port: FunctionPort | undefined;
  #soc: Soc | undefined;
  #log: FloodGuard | undefined;
  #resets = 0;

  constructor(context: CreateContext, { id, vram: vramBytes, bar: barBytes = vramBytes, hive }: GpuOptions) {
    if (barBytes > vramBytes) throw new Error(`gpu: bar=${barBytes} is more than the VRAM, ${vramBytes}`);
    this.#product = PRODUCTS[id];
    this.identity = this.#product.identity;
    if (hive !== undefined && !this.#product.aldebaran)
      throw new Error(`gpu: hive=${hive}: the driver looks for a hive only where id=740f`);
    this.#hive = hive === undefined ? undefined : parseHive(hive, context.name);
    this.#vram = context.createMemory('vram', vramBytes);
    if (this.#hive !== undefined) this.linkMemory = this.#vram;
    this.capabilities = capabilities(context.instance, this.#product);
    this.rom = new Uint8Array(ROM_BYTES).fill(0xff);
    this.rom.set(vbios(this.identity));
    const registers = delegate(() => this.#current().mmio);
    const doorbells = delegate(() => this.#current().doorbells);
    this.bars = [
      {
        index: 0,
        kind: 'memory64',
        prefetchable: true,
        sizeBytes: barBytes,
        parts: [{ offset: 0, sizeBytes: barBytes, memory: this.#vram }],
      },
      {
        index: 2,
        kind: 'memory64',
        prefetchable: true,
        sizeBytes: DOORBELL_BYTES,
        parts: [{ offset: 0, sizeBytes: DOORBELL_BYTES, registers: doorbells }],
      },
      {
        index: 5,
        kind: 'memory32',
        sizeBytes: MMIO_BYTES,
        parts: [{ offset: 0, sizeBytes: MMIO_BYTES, registers }],
      },
    ];
  }

  attach(port: FunctionPort): void {
    this.#port = port;
    this.#log = new FloodGuard(port.log, port.clock, SHOWN_PER_KIND);
    this.#powerOn();
  }

  /** VRAM keeps its contents, as it does on a card whose bus is reset; the discovery table is written anew. */
  reset(_kind: ResetKind): void {
    this.#checkHive();
    this.#powerOn();
  }

  /** Segments have one size, so all members must; when they were made the others were not there yet. */
  #checkHive(): void {
    for (const name of this.#hive?.nodes ?? []) {
      const member = this.#port?.sibling(name);
      const same =
        member instanceof Gpu &&
        member.#hive?.nodes.join() === this.#hive?.nodes.join() &&
        member.#vram.sizeBytes === this.#vram.sizeBytes;
      if (!same) throw new Error(`hive: ${name} must be a GPU with the same hive and as much VRAM`);
    }
  }

  #powerOn(): void {
    if (this.#port === undefined || this.#log === undefined) throw new Error('the GPU is used before it is attached');
    this.#soc?.stop();
    this.#vram.write(this.#vram.sizeBytes - DISCOVERY_OFFSET_FROM_END, discoveryTable(this.#product.blocks));
    const frameBuffer = new FrameBuffer(this.#port, this.#vram, this.#hive);
    const parts = { port: this.#port, product: this.#product, frameBuffer, log: this.#log };
    this.#soc = new Soc(parts, () => {
      this.#resets++;
      this.#port?.log.info('MODE1 reset requested by the driver');
      this.#powerOn();
    });
  }

  #current(): Soc {
    if (this.#soc === undefined) throw new Error('the GPU is accessed before it is attached');
    return this.#soc;
  }

  inspect(): unknown {
    return {
      vramBytes: this.#vram.sizeBytes,
      visibleBytes: this.bars[0]?.sizeBytes,
      hive: this.#hive,
      mode1Resets: this.#resets,
      complaints: this.#log?.counts(),
      ...this.#soc?.inspect(),
    };
  }

  control(command: string, args: Readonly<Record<string, unknown>>): unknown {
    const parsed = parseCommand(command, args);
    if (parsed.command !== 'remove') return this.#current().control(parsed);
    this.#soc?.stop();
    this.#port?.vanish();
    return 'gone';
  }

  detach(): void {
    this.#soc?.stop();
  }
}

/** BARs outlive the SoC behind them: a reset makes a new one. */
function delegate(target: () => RegisterHandler): RegisterHandler {
  return {
    read: (offset, sizeBytes) => target().read(offset, sizeBytes),
    write: (offset, sizeBytes, value) => target().write(offset, sizeBytes, value),
    read64(offset) {
      const handler = target();
      if (handler.read64) return handler.read64(offset);
      return BigInt(handler.read(offset, 4) >>> 0) | (BigInt(handler.read(offset + 4, 4) >>> 0) << 32n);
    },
    write64(offset, value) {
      const handler = target();
      if (handler.write64) handler.write64(offset, value);
      else {
        handler.write(offset, 4, Number(value & 0xffff_ffffn));
        handler.write(offset + 4, 4, Number((value >> 32n) & 0xffff_ffffn));
      }
    },
  };
}
