/**
 * The device's interconnect: takes an engine's access to wherever its address leads, be it HBM, SRAM, registers, the
 * host, or first through the MMU. All addresses come from the guest and are checked here.
 */
import { DmaError, type FunctionPort, type MemoryRegion, PortClosedError } from 'ghostbus';
import { BitFields32 } from 'ghostbus/kit';
import type { CardMemories } from '../card.js';
import {
  ADDRESS_END,
  BAR2_BASE,
  CFG_BASE,
  CFG_BYTES,
  HBM_BYTES,
  HOST_BASE,
  SRAM_BASE,
  SRAM_BYTES,
  VIRTUAL_BASE,
} from './address-map.js';
import type { ConfigWindow } from './config-window.js';
import { type AccessDirection, DeviceFault } from './device-fault.js';
import type { Mmu } from './mmu.js';

/** With which identity an engine's request meets the MMU. */
export interface Requester {
  readonly asid: number;
  /** MMBP: virtual addresses are not translated, so they lead nowhere. */
  readonly bypassMmu: boolean;
}

/** SECURE_PROPS, NON_SECURE_PROPS of DMA cores and queue managers (dma0_core_masks.h, dma0_qm_masks.h). */
const PROPERTIES = new BitFields32({ asid: [0, 10], mmuBypass: [10, 1] });

export function requesterOf(properties: number): Requester {
  return { asid: PROPERTIES.get(properties, 'asid'), bypassMmu: PROPERTIES.has(properties, 'mmuBypass') };
}

/** ASID 0 belongs to the driver; its engines use physical addresses only. */
export const PHYSICAL: Requester = { asid: 0, bypassMmu: true };

/** A stretch of one kind: memory of the device, registers, or the host. */
type Span =
  | { readonly kind: 'memory'; readonly memory: MemoryRegion; readonly offset: number; readonly lengthBytes: number }
  | { readonly kind: 'registers'; readonly offset: number; readonly lengthBytes: number }
  | { readonly kind: 'host'; readonly offset: number; readonly lengthBytes: number };

/** A copy into registers is one register write per word; more of them per call would hold up the bus. */
const MAX_REGISTER_BYTES = 4096;
/** Pages merged into one stretch, at most; a slice moves no more. */
const MAX_MERGED_BYTES = 4 * 1024 * 1024;
/** Pattern fills and register copies go through buffers of this size. */
const BUFFER_BYTES = 64 * 1024;

export class Interconnect {
  readonly #hbm: MemoryRegion;
  readonly #sram: MemoryRegion;
  readonly #config: ConfigWindow;
  readonly #mmu: Mmu;
  readonly #port: FunctionPort;
  #isOff = false;

  constructor(parts: { port: FunctionPort; memories: CardMemories; config: ConfigWindow; mmu: Mmu }) {
    this.#port = parts.port;
    this.#hbm = parts.memories.hbm;
    this.#sram = parts.memories.sram;
    this.#config = parts.config;
    this.#mmu = parts.mmu;
  }

  /** The device is reset: from here on every access of its engines ends the work that made it, with PortClosedError. */
  powerOff(): void {
    this.#isOff = true;
  }

  /** A 32-bit word, the way firmware reads it. @throws DeviceFault */
  read32(address: number, requester: Requester): number {
    const bytes = new Uint8Array(4);
    this.read(address, bytes, requester);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  /** A register by its offset in the configuration space, a multiple of 4, with all its side effects. */
  writeRegister(cfgOffset: number, value: number): void {
    this.#checkPower();
    this.#config.write32(cfgOffset, value);
  }

  /** @throws DeviceFault */
  read(address: number, target: Uint8Array, requester: Requester): void {
    for (let done = 0; done < target.length; ) {
      const span = this.#span(address + done, target.length - done, requester, 'read');
      const piece = target.subarray(done, done + span.lengthBytes);
      this.#onHost('read', address + done, () => this.#readSpan(span, piece));
      done += piece.length;
    }
  }

  /** @throws DeviceFault */
  write(address: number, source: Uint8Array, requester: Requester): void {
    for (let done = 0; done < source.length; ) {
      const span = this.#span(address + done, source.length - done, requester, 'write');
      const piece = source.subarray(done, done + span.lengthBytes);
      this.#onHost('write', address + done, () => this.#writeSpan(span, piece));
      done += piece.length;
    }
  }

  /** One 32-bit message, the way engines write registers, sync objects and completion entries. @throws DeviceFault */
  write32(address: number, value: number, requester: Requester): void {
    const offset = address - CFG_BASE;
    if (offset >= 0 && offset < CFG_BYTES) {
      if (offset % 4 !== 0) throw new DeviceFault('decode', 'write', address, 'misaligned register');
      this.writeRegister(offset, value);
      return;
    }
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value >>> 0, true);
    this.write(address, bytes, requester);
  }

  /**
   * Copies from address to address, at most `lengthBytes`; registers end a piece early. Returns the bytes copied.
   * @throws DeviceFault
   */
  copy(destination: number, source: number, lengthBytes: number, requester: Requester): number {
    const from = this.#span(source, lengthBytes, requester, 'read');
    const to = this.#span(destination, from.lengthBytes, requester, 'write');
    const piece = { from, to, lengthBytes: to.lengthBytes };
    if (from.kind === 'host') this.#onHost('read', source, () => this.#copyFromHost(piece.from, to, piece.lengthBytes));
    else this.#onHost('write', destination, () => this.#copyFromDevice(from, to, piece.lengthBytes));
    return piece.lengthBytes;
  }

  /**
   * Fills with a 64-bit pattern that starts `phase` bytes into itself, at most `lengthBytes`. Returns the bytes filled.
   * @throws DeviceFault
   */
  fill(destination: number, pattern: Uint8Array, phase: number, lengthBytes: number, requester: Requester): number {
    const span = this.#span(destination, lengthBytes, requester, 'write');
    const byte = pattern[0]!;
    const isOneByte = pattern.every((other) => other === byte);
    if (isOneByte && span.kind === 'memory') {
      span.memory.fill(span.offset, byte, span.lengthBytes);
      return span.lengthBytes;
    }
    const buffer = new Uint8Array(Math.min(span.lengthBytes, BUFFER_BYTES));
    for (let index = 0; index < buffer.length; index++) buffer[index] = pattern[(phase + index) & 7]!;
    const first: Span = { ...span, lengthBytes: buffer.length };
    this.#onHost('write', destination, () => this.#writeSpan(first, buffer));
    return buffer.length;
  }

  /** The first stretch of an access, translated; as long as one kind of target lasts. */
  #span(address: number, lengthBytes: number, requester: Requester, direction: AccessDirection): Span {
    this.#checkPower();
    if (!(address >= 0 && address < ADDRESS_END)) throw new DeviceFault('decode', direction, address);
    if (address < VIRTUAL_BASE) return this.#physicalSpan(address, lengthBytes, direction, address);
    if (requester.bypassMmu) throw new DeviceFault('decode', direction, address, 'the MMU is bypassed');
    const { physical, lengthBytes: mapped } = this.#translate(address, lengthBytes, requester.asid, direction);
    return this.#physicalSpan(physical, Math.min(mapped, lengthBytes), direction, address);
  }

  /** Neighbouring pages that are neighbours in physical space too become one stretch. */
  #translate(address: number, lengthBytes: number, asid: number, direction: AccessDirection) {
    const first = this.#mmu.translate(address, asid, direction);
    let mapped = first.lengthBytes;
    while (mapped < Math.min(lengthBytes, MAX_MERGED_BYTES) && address + mapped < ADDRESS_END) {
      const next = this.#mmu.find(address + mapped, asid);
      if (next?.physical !== first.physical + mapped) break;
      mapped += next.lengthBytes;
    }
    return { physical: first.physical, lengthBytes: mapped };
  }

  #physicalSpan(address: number, lengthBytes: number, direction: AccessDirection, issued: number): Span {
    const memory = (region: MemoryRegion, offset: number, end: number): Span => {
      return { kind: 'memory', memory: region, offset, lengthBytes: Math.min(lengthBytes, end - offset) };
    };
    if (address < HBM_BYTES) {
      if (address < this.#hbm.sizeBytes) return memory(this.#hbm, address, this.#hbm.sizeBytes);
    } else if (address >= HOST_BASE && address < VIRTUAL_BASE) {
      const offset = address - HOST_BASE;
      return { kind: 'host', offset, lengthBytes: Math.min(lengthBytes, VIRTUAL_BASE - address) };
    } else if (address >= CFG_BASE && address < CFG_BASE + CFG_BYTES) {
      const offset = address - CFG_BASE;
      const length = Math.min(lengthBytes, CFG_BYTES - offset, MAX_REGISTER_BYTES);
      if (offset % 4 === 0 && length % 4 === 0) return { kind: 'registers', offset, lengthBytes: length };
    } else if (address >= SRAM_BASE && address < SRAM_BASE + SRAM_BYTES) {
      return memory(this.#sram, address - SRAM_BASE, SRAM_BYTES);
    } else if (address >= BAR2_BASE && address < CFG_BASE) {
      return memory(this.#config.memory, address - BAR2_BASE, CFG_BASE - BAR2_BASE);
    }
    throw new DeviceFault('decode', direction, issued);
  }

  #readSpan(span: Span, target: Uint8Array): void {
    if (span.kind === 'memory') span.memory.read(span.offset, target);
    else if (span.kind === 'host') this.#dma.read(span.offset, target);
    else {
      const view = new DataView(target.buffer, target.byteOffset, target.length);
      for (let at = 0; at < target.length; at += 4) view.setUint32(at, this.#config.read32(span.offset + at), true);
    }
  }

  #writeSpan(span: Span, source: Uint8Array): void {
    if (span.kind === 'memory') span.memory.write(span.offset, source);
    else if (span.kind === 'host') this.#dma.write(span.offset, source);
    else {
      const view = new DataView(source.buffer, source.byteOffset, source.length);
      for (let at = 0; at < source.length; at += 4) this.#config.write32(span.offset + at, view.getUint32(at, true));
    }
  }

  #copyFromHost(from: Span, to: Span, lengthBytes: number): void {
    if (to.kind === 'host') this.#dma.copy(to.offset, from.offset, lengthBytes);
    else if (to.kind === 'memory') this.#dma.readInto(from.offset, to.memory, to.offset, lengthBytes);
    else this.#copyThroughBuffer(from, to, lengthBytes);
  }

  #copyFromDevice(from: Span, to: Span, lengthBytes: number): void {
    if (from.kind !== 'memory' || to.kind === 'registers') this.#copyThroughBuffer(from, to, lengthBytes);
    else if (to.kind === 'host') this.#dma.writeFrom(to.offset, from.memory, from.offset, lengthBytes);
    else if (to.memory === from.memory) to.memory.copy(to.offset, from.offset, lengthBytes);
    else {
      from.memory.forEachSpan(from.offset, lengthBytes, (bytes, at) => {
        to.memory.write(to.offset + at, bytes);
      });
    }
  }

  /** One end is registers, so the piece is short. */
  #copyThroughBuffer(from: Span, to: Span, lengthBytes: number): void {
    const buffer = new Uint8Array(lengthBytes);
    this.#readSpan(from, buffer);
    this.#writeSpan(to, buffer);
  }

  /** A request that the bus refuses is the engine's fault to report, not an error of the emulator. */
  #onHost(direction: AccessDirection, address: number, access: () => void): void {
    try {
      access();
    } catch (error) {
      if (error instanceof DmaError) throw new DeviceFault('bus', direction, address, error.message);
      throw error;
    }
  }

  #checkPower(): void {
    if (this.#isOff) throw new PortClosedError(this.#port.name, 'the device was reset');
  }

  get #dma() {
    return this.#port.dma;
  }
}
