/**
 * BAR2 and the configuration space in it: pages with behaviour trap into their block, everything else is plain memory
 * that the guest maps. The device's own engines reach the same registers through {@link ConfigWindow.read32} and {@link
 * ConfigWindow.write32}.
 */
import type { BarMemory, BarRegisters, MemoryRegion, RegisterHandler } from 'ghostbus';
import { BAR2_BYTES, CFG_BYTES, CFG_IN_BAR2, PAGE_BYTES } from './address-map.js';

interface Block {
  readonly cfgOffset: number;
  readonly sizeBytes: number;
  readonly registers: RegisterHandler;
}

export class ConfigWindow {
  readonly memory: MemoryRegion;
  readonly #blocks: Block[] = [];
  readonly #blockOfPage = new Map<number, Block>();

  /** Plain registers are zero at power-on. */
  constructor(memory: MemoryRegion) {
    this.memory = memory;
    memory.fill(CFG_IN_BAR2, 0, CFG_BYTES);
  }

  /** Lets whole pages at `cfgOffset` trap into `registers`. */
  add(cfgOffset: number, sizeBytes: number, registers: RegisterHandler): void {
    const block = { cfgOffset, sizeBytes, registers };
    this.#blocks.push(block);
    for (let offset = 0; offset < sizeBytes; offset += PAGE_BYTES) {
      const page = (cfgOffset + offset) / PAGE_BYTES;
      if (!Number.isInteger(page) || this.#blockOfPage.has(page)) {
        throw new Error(`configuration page 0x${(cfgOffset + offset).toString(16)} is misaligned or taken twice`);
      }
      this.#blockOfPage.set(page, block);
    }
  }

  /** Parts of BAR2, in order. */
  parts(): (BarMemory | BarRegisters)[] {
    const parts: (BarMemory | BarRegisters)[] = [];
    let end = 0;
    const fill = (until: number): void => {
      if (until > end) parts.push({ offset: end, sizeBytes: until - end, memory: this.memory });
    };
    for (const { cfgOffset, sizeBytes, registers } of this.#blocks.toSorted((a, b) => a.cfgOffset - b.cfgOffset)) {
      fill(CFG_IN_BAR2 + cfgOffset);
      parts.push({ offset: CFG_IN_BAR2 + cfgOffset, sizeBytes, registers });
      end = CFG_IN_BAR2 + cfgOffset + sizeBytes;
    }
    fill(BAR2_BYTES);
    return parts;
  }

  /** A register as the device's engines read it. `cfgOffset` is a multiple of 4 inside the configuration space. */
  read32(cfgOffset: number): number {
    const block = this.#blockOfPage.get(Math.floor(cfgOffset / PAGE_BYTES));
    if (block === undefined) return this.memory.readU32(CFG_IN_BAR2 + cfgOffset);
    return block.registers.read(cfgOffset - block.cfgOffset, 4);
  }

  /** A register as the device's engines write it, with all its side effects. */
  write32(cfgOffset: number, value: number): void {
    const block = this.#blockOfPage.get(Math.floor(cfgOffset / PAGE_BYTES));
    if (block === undefined) this.memory.writeU32(CFG_IN_BAR2 + cfgOffset, value >>> 0);
    else block.registers.write(cfgOffset - block.cfgOffset, 4, value >>> 0);
  }
}
