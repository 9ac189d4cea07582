import { type BarShape, validateBarShapes } from './bar.js';
import type { Capability, CapabilityEffect, InterruptCapability } from './capability.js';
import { putLittleEndian, readU16, readU32 } from './capability-layout.js';
import { type PlacedCapability, placeCapabilities } from './capability-placement.js';
import type { Identity } from './identity.js';
import { PMCSR, PMCSR_STATE_MASK, POWER_MANAGEMENT_ID } from './power-management.js';

/** PCIe 6.0 §7.2.2: configuration space of one function. */
export const CONFIG_SPACE_BYTES = 4096;

/** Type 0 header, linux/pci_regs.h PCI_*. */
const COMMAND = 0x04;
const STATUS = 0x06;
const REVISION = 0x08;
const CACHE_LINE_SIZE = 0x0c;
const LATENCY_TIMER = 0x0d;
const BASE_ADDRESS_0 = 0x10;
const SUBSYSTEM_VENDOR_ID = 0x2c;
const ROM_ADDRESS = 0x30;
const CAPABILITY_LIST = 0x34;
const INTERRUPT_LINE = 0x3c;

/** linux/pci_regs.h PCI_COMMAND_IO, _MEMORY, _MASTER. */
const COMMAND_IO = 0x0001;
const COMMAND_MEMORY = 0x0002;
const COMMAND_MASTER = 0x0004;
/** The three above, parity response, SERR# and INTx disable; PCIe 6.0 §7.5.1.1.3 hardwires the rest to zero. */
const COMMAND_WRITABLE = 0x0547;
/** linux/pci_regs.h PCI_STATUS_CAP_LIST. */
const STATUS_CAP_LIST = 0x0010;
/**
 * linux/pci_regs.h PCI_STATUS_PARITY, SIG_TARGET_ABORT, REC_TARGET_ABORT, REC_MASTER_ABORT,
 * SIG_SYSTEM_ERROR, DETECTED_PARITY.
 */
const STATUS_WRITE_ONE_TO_CLEAR = 0xf900;

/** linux/pci_regs.h PCI_BASE_ADDRESS_SPACE_IO, PCI_BASE_ADDRESS_MEM_TYPE_64, PCI_BASE_ADDRESS_MEM_PREFETCH. */
const BAR_IO = 0x1;
const BAR_MEMORY_64 = 0x4;
const BAR_PREFETCHABLE = 0x8;
const BAR_MEMORY_ADDRESS_MASK = 0xfffffff0;
const BAR_IO_ADDRESS_MASK = 0xfffffffc;

/** linux/pci_regs.h PCI_ROM_ADDRESS_ENABLE, PCI_ROM_ADDRESS_MASK; the mask makes 2 KiB the smallest ROM. */
const ROM_ENABLE = 0x1;
const ROM_ADDRESS_MASK = 0xfffff800;
const MIN_ROM_BYTES = 2048;
const MAX_ROM_BYTES = 16 * 1024 * 1024;

/**
 * Why a function is reset. `device`: the machine or the bridge above reset it (vfio-user DEVICE_RESET). `flr`: the
 * guest wrote Initiate Function Level Reset (PCIe 6.0 §6.6.2).
 */
export type ResetKind = 'device' | 'flr';

export interface ConfigSpaceOptions {
  readonly identity: Identity;
  readonly bars: readonly BarShape[];
  readonly capabilities: readonly Capability[];
  /** Size of the ROM BAR, a power of two from 2 KiB to 16 MiB. Default: no ROM, the register is hardwired to zero. */
  readonly romSizeBytes?: number;
  /** No INTx: under TCG its first interrupt would switch off every BAR mapping in QEMU. */
  readonly interruptPin?: 0;
}

export interface ConfigWriteResult {
  /** What the guest asked for; the caller does it. A function-level reset ends with {@link ConfigSpace.reset}. */
  readonly effects: readonly CapabilityEffect[];
  /** A BAR is decoded elsewhere than before, or no longer, or anew; or Bus Master Enable changed. */
  readonly decodeChanged: boolean;
}

const NOTHING: ConfigWriteResult = { effects: [], decodeChanged: false };
const DECODE_CHANGED: ConfigWriteResult = { effects: [], decodeChanged: true };

/**
 * Configuration space of one endpoint: header type 0, capabilities placed and linked, write masks per bit. Reads and
 * writes have any width and alignment. It also answers what the function decodes, by the predicate that QEMU itself
 * uses (hw/pci/pci.c pci_bar_address), so that both agree at every moment.
 */
export class ConfigSpace {
  /** Every capability with the offset it got, in the order of its list. */
  readonly capabilities: readonly PlacedCapability[];
  /** How the function interrupts: MSI-X when it has it, else MSI, else undefined. */
  readonly interruptCapability: InterruptCapability | undefined;

  readonly #bars: readonly BarShape[];
  readonly #bytes = new Uint8Array(CONFIG_SPACE_BYTES);
  readonly #powerOn: Uint8Array;
  readonly #writable = new Uint8Array(CONFIG_SPACE_BYTES);
  readonly #writeOneToClear = new Uint8Array(CONFIG_SPACE_BYTES);
  readonly #sticky = new Uint8Array(CONFIG_SPACE_BYTES);
  readonly #powerManagementOffset: number | undefined;
  readonly #barAddresses: (number | undefined)[] = new Array(6).fill(undefined);
  #busMasterEnabled = false;

  /** Throws an Error that says which BAR or capability is wrong and what would be right. */
  constructor(options: ConfigSpaceOptions) {
    validateBarShapes(options.bars, options.capabilities);
    this.#bars = options.bars;
    this.capabilities = placeCapabilities(options.capabilities);
    this.interruptCapability = this.interruptCapabilityOf('msix') ?? this.interruptCapabilityOf('msi');
    this.#powerManagementOffset = this.find(POWER_MANAGEMENT_ID);
    this.#buildHeader(options);
    for (const bar of options.bars) this.#buildBar(bar);
    if (options.romSizeBytes !== undefined) this.#buildRom(options.romSizeBytes);
    for (const placed of this.capabilities) this.#buildCapability(placed);
    this.#powerOn = this.#bytes.slice();
  }

  /** Fills `target` from `offset` on. Throws RangeError outside the 4096 bytes. */
  read(offset: number, target: Uint8Array): void {
    checkRange('read', offset, target.length);
    target.set(this.#bytes.subarray(offset, offset + target.length));
  }

  /**
   * Merges `source` at `offset`; bits that software may not change keep their value. Throws
   * RangeError outside the 4096 bytes.
   */
  write(offset: number, source: Uint8Array): ConfigWriteResult {
    checkRange('write', offset, source.length);
    const end = offset + source.length;
    const touched = this.capabilities.filter(
      ({ offset: start, capability }) => start < end && offset < start + capability.bytes.length,
    );
    const previous = touched.map((placed) => this.#contents(placed).slice());
    for (let index = 0; index < source.length; index++) this.#mergeByte(offset + index, source[index]!);
    const effects: CapabilityEffect[] = [];
    touched.forEach((placed, index) => {
      const effect = this.#afterWrite(placed, offset, source, previous[index]!);
      if (effect !== undefined) effects.push(effect);
    });
    const decodeChanged = this.#updateDecode();
    if (effects.length > 0) return { effects, decodeChanged };
    return decodeChanged ? DECODE_CHANGED : NOTHING;
  }

  /**
   * Back to power-on: COMMAND, BARs and PMCSR zero, MSI and MSI-X off. A function-level reset
   * keeps sticky bits; a device reset keeps none.
   *
   * Against PCIe 6.0 §6.6.2 the BARs keep their addresses at a function-level reset. QEMU answers reads of
   * them from its own copy, which such a reset does not change, and Linux restores only what reads
   * differently (drivers/pci/pci.c pci_restore_config_dword): nobody would ever write them again. COMMAND
   * does read zero, so nothing decodes until then.
   */
  reset(kind: ResetKind): void {
    for (let index = 0; index < CONFIG_SPACE_BYTES; index++) {
      const kept = kind === 'flr' ? this.#sticky[index]! : 0;
      this.#bytes[index] = (this.#powerOn[index]! & ~kept) | (this.#bytes[index]! & kept);
    }
    this.#updateDecode();
  }

  /**
   * Sets status bits as the function's own hardware does: STATUS' received master abort, a bit of AER. Only bits that
   * software clears by writing one are touched. `bits` covers the dword at `offset`.
   */
  raise(offset: number, bits: number): void {
    checkRange('raise', offset, 4);
    for (let index = 0; index < 4; index++) {
      this.#bytes[offset + index]! |= (bits >>> (8 * index)) & this.#writeOneToClear[offset + index]!;
    }
  }

  /** Where BAR `index` answers now, or undefined: decode off, address zero or out of reach, or not in D0. */
  barAddress(index: number): number | undefined {
    return this.#barAddresses[index];
  }

  /** COMMAND.BME, in D0: the function may send requests. */
  get busMasterEnabled(): boolean {
    return this.#busMasterEnabled;
  }

  /** COMMAND.MEM, in D0: memory BARs answer. */
  get memoryEnabled(): boolean {
    return this.#commandInD0(COMMAND_MEMORY);
  }

  /** What one kind of interrupt capability declares, for a function that has both. */
  interruptCapabilityOf(kind: InterruptCapability['kind']): InterruptCapability | undefined {
    return this.capabilities.find(({ capability }) => capability.interrupts?.kind === kind)?.capability.interrupts;
  }

  /** Offset of the first capability with this id, or undefined. */
  find(id: number, list: 'standard' | 'extended' = 'standard'): number | undefined {
    return this.capabilities.find(
      ({ capability }) => capability.id === id && capability.extended === (list === 'extended'),
    )?.offset;
  }

  #buildHeader({ identity, interruptPin = 0 }: ConfigSpaceOptions): void {
    if (interruptPin !== 0) throw new Error(`interrupt pin ${interruptPin}: INTx is not emulated; use MSI or MSI-X`);
    for (const [name, bits, offset] of [
      ['vendorId', 16, 0x00],
      ['deviceId', 16, 0x02],
      ['revisionId', 8, REVISION],
      ['classCode', 24, REVISION + 1],
      ['subsystemVendorId', 16, SUBSYSTEM_VENDOR_ID],
      ['subsystemId', 16, SUBSYSTEM_VENDOR_ID + 2],
    ] as const) {
      const value = identity[name];
      if (!Number.isInteger(value) || value < 0 || value >= 2 ** bits) {
        throw new RangeError(`identity: ${name} is ${value}; it has ${bits} bits`);
      }
      putLittleEndian(this.#bytes, offset, bits / 8, value);
    }
    putLittleEndian(this.#writable, COMMAND, 2, COMMAND_WRITABLE);
    putLittleEndian(this.#writeOneToClear, STATUS, 2, STATUS_WRITE_ONE_TO_CLEAR);
    for (const offset of [CACHE_LINE_SIZE, LATENCY_TIMER, INTERRUPT_LINE]) this.#writable[offset] = 0xff;
    const first = this.capabilities.find(({ capability }) => !capability.extended);
    if (first !== undefined) {
      putLittleEndian(this.#bytes, STATUS, 2, STATUS_CAP_LIST);
      this.#bytes[CAPABILITY_LIST] = first.offset;
    }
  }

  #buildBar(bar: BarShape): void {
    const register = BASE_ADDRESS_0 + 4 * bar.index;
    const type =
      bar.kind === 'io'
        ? BAR_IO
        : (bar.kind === 'memory64' ? BAR_MEMORY_64 : 0) | (bar.prefetchable ? BAR_PREFETCHABLE : 0);
    putLittleEndian(this.#bytes, register, 4, type);
    const addressMask = bar.kind === 'io' ? BAR_IO_ADDRESS_MASK : BAR_MEMORY_ADDRESS_MASK;
    const lowMask = bar.sizeBytes >= 2 ** 32 ? 0 : ~(bar.sizeBytes - 1) & addressMask;
    putLittleEndian(this.#writable, register, 4, lowMask);
    if (bar.kind === 'memory64') {
      putLittleEndian(this.#writable, register + 4, 4, ~Math.floor((bar.sizeBytes - 1) / 2 ** 32));
    }
    const registerBytes = bar.kind === 'memory64' ? 8 : 4;
    for (let at = register; at < register + registerBytes; at++) this.#sticky[at] = this.#writable[at]!;
  }

  #buildRom(sizeBytes: number): void {
    const inRange = sizeBytes >= MIN_ROM_BYTES && sizeBytes <= MAX_ROM_BYTES;
    if (!inRange || !Number.isInteger(Math.log2(sizeBytes))) {
      throw new RangeError(
        `ROM BAR of ${sizeBytes} bytes: use a power of two from ${MIN_ROM_BYTES} to ${MAX_ROM_BYTES}`,
      );
    }
    putLittleEndian(this.#writable, ROM_ADDRESS, 4, (~(sizeBytes - 1) & ROM_ADDRESS_MASK) | ROM_ENABLE);
  }

  #buildCapability({ capability, offset, header }: PlacedCapability): void {
    this.#bytes.set(capability.bytes, offset);
    this.#bytes.set(header, offset);
    this.#writable.set(capability.writable, offset);
    if (capability.writeOneToClear !== undefined) this.#writeOneToClear.set(capability.writeOneToClear, offset);
    if (capability.sticky !== undefined) this.#sticky.set(capability.sticky, offset);
    for (const masks of [this.#writable, this.#writeOneToClear, this.#sticky]) {
      masks.fill(0, offset, offset + header.length);
    }
  }

  #contents({ capability, offset }: PlacedCapability): Uint8Array {
    return this.#bytes.subarray(offset, offset + capability.bytes.length);
  }

  #mergeByte(offset: number, written: number): void {
    const writable = this.#writable[offset]!;
    const merged = (this.#bytes[offset]! & ~writable) | (written & writable);
    this.#bytes[offset] = merged & ~(written & this.#writeOneToClear[offset]!);
  }

  #afterWrite(
    placed: PlacedCapability,
    offset: number,
    source: Uint8Array,
    previous: Uint8Array,
  ): CapabilityEffect | undefined {
    const { capability, offset: start, header } = placed;
    if (capability.afterWrite === undefined) return undefined;
    const written = new Uint8Array(capability.bytes.length);
    const from = Math.max(offset, start);
    const to = Math.min(offset + source.length, start + written.length);
    written.set(source.subarray(from - offset, to - offset), from - start);
    const effect = capability.afterWrite(this.#contents(placed), written, previous);
    this.#bytes.set(header, start);
    return effect;
  }

  #commandInD0(bit: number): boolean {
    const powerState =
      this.#powerManagementOffset === undefined
        ? 0
        : this.#bytes[this.#powerManagementOffset + PMCSR]! & PMCSR_STATE_MASK;
    return powerState === 0 && (readU16(this.#bytes, COMMAND) & bit) !== 0;
  }

  #updateDecode(): boolean {
    const busMasterEnabled = this.#commandInD0(COMMAND_MASTER);
    let changed = busMasterEnabled !== this.#busMasterEnabled;
    this.#busMasterEnabled = busMasterEnabled;
    for (const bar of this.#bars) {
      const address = this.#decode(bar);
      if (address === this.#barAddresses[bar.index]) continue;
      this.#barAddresses[bar.index] = address;
      changed = true;
    }
    return changed;
  }

  /**
   * hw/pci/pci.c pci_bar_address: enabled, not at zero, and the last byte neither wraps nor is the end of 32-bit space.
   */
  #decode(bar: BarShape): number | undefined {
    if (!this.#commandInD0(bar.kind === 'io' ? COMMAND_IO : COMMAND_MEMORY)) return undefined;
    const register = BASE_ADDRESS_0 + 4 * bar.index;
    const low = readU32(this.#bytes, register) & (bar.kind === 'io' ? BAR_IO_ADDRESS_MASK : BAR_MEMORY_ADDRESS_MASK);
    const high = bar.kind === 'memory64' ? readU32(this.#bytes, register + 4) : 0;
    const address = high * 2 ** 32 + (low >>> 0);
    const last = address + bar.sizeBytes - 1;
    const limit = bar.kind === 'memory64' ? Number.MAX_SAFE_INTEGER : 0xfffffffe;
    return address !== 0 && last <= limit ? address : undefined;
  }
}

function checkRange(action: string, offset: number, lengthBytes: number): void {
  if (!Number.isInteger(offset) || offset < 0 || offset + lengthBytes > CONFIG_SPACE_BYTES) {
    throw new RangeError(
      `configuration space ${action} of ${lengthBytes} bytes at ${offset}: outside its ${CONFIG_SPACE_BYTES} bytes`,
    );
  }
}
