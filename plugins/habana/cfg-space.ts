/**
 * The register space: every block, found by its offset from CFG_BASE. One object serves BAR2, the ELBI mailbox and (later)
 * the engines, which write each other's registers by device address.
 */
import { type BarRegisters, type Log, RegisterBlock } from '../../emulator/plugin.js';
import { CFG_BYTES, CFG_OFFSET_IN_BAR } from './address-map.js';
import type { BlockLayout } from './block.js';
import { managementProcessor } from './blocks/cpu-if.js';
import { dmaCores } from './blocks/dma-core.js';
import { matrixEngines } from './blocks/mme.js';
import { mmuBlocks } from './blocks/mmu.js';
import { pcieBlocks } from './blocks/pcie.js';
import { psocBlocks } from './blocks/psoc.js';
import { queueManagers } from './blocks/qman.js';
import { syncManagers } from './blocks/sync-manager.js';
import { tpcConfigurations } from './blocks/tpc-cfg.js';

/** Every declared block, by rising base. */
export const blockLayouts: readonly BlockLayout[] = [
  ...matrixEngines,
  ...managementProcessor,
  ...dmaCores,
  ...queueManagers,
  ...syncManagers,
  ...pcieBlocks,
  ...mmuBlocks,
  ...psocBlocks,
  ...tpcConfigurations,
].sort((a, b) => a.base - b.base);

interface PlacedBlock {
  readonly layout: BlockLayout;
  readonly registers: RegisterBlock;
}

export interface UnimplementedAccess {
  /** Block and register, for example `CPU_IF.QUEUE_INIT`. */
  readonly register: string;
  readonly reads: number;
  readonly writes: number;
}

export class CfgSpace {
  readonly #blocks: readonly PlacedBlock[];

  constructor(log: Log) {
    this.#blocks = blockLayouts.map((layout) => ({
      layout,
      registers: new RegisterBlock({ name: layout.name, sizeBytes: layout.sizeBytes, log }, layout.registers),
    }));
  }

  /** The parts of BAR2. Everything between them reads as zero and is counted by the emulator. */
  barParts(): BarRegisters[] {
    return this.#blocks.map(({ layout, registers }) => ({
      offset: CFG_OFFSET_IN_BAR + layout.base,
      sizeBytes: layout.sizeBytes,
      registers,
    }));
  }

  /** Reads 32 bits at an offset from CFG_BASE; undefined where there is no block or the offset is not a multiple of 4. */
  read(cfgOffset: number): number | undefined {
    const block = this.#at(cfgOffset);
    return block?.registers.read(cfgOffset - block.layout.base, 4);
  }

  /** Writes 32 bits at an offset from CFG_BASE; false where there is no block or the offset is not a multiple of 4. */
  write(cfgOffset: number, value: number): boolean {
    const block = this.#at(cfgOffset);
    block?.registers.write(cfgOffset - block.layout.base, 4, value);
    return block !== undefined;
  }

  reset(): void {
    for (const { registers } of this.#blocks) registers.reset();
  }

  /** Every register that was used without being implemented, most used first. */
  unimplemented(): UnimplementedAccess[] {
    return this.#blocks
      .flatMap(({ registers }) =>
        registers
          .unimplemented()
          .map(({ offset, reads, writes }) => ({ register: registers.nameAt(offset), reads, writes })),
      )
      .sort((a, b) => b.reads + b.writes - (a.reads + a.writes));
  }

  #at(cfgOffset: number): PlacedBlock | undefined {
    if (cfgOffset < 0 || cfgOffset >= CFG_BYTES || cfgOffset % 4 !== 0) return undefined;
    return this.#blocks.find(({ layout }) => cfgOffset >= layout.base && cfgOffset < layout.base + layout.sizeBytes);
  }
}
