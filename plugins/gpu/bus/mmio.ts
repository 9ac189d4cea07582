import { type Log, RegisterBlock, type RegisterDeclaration, type RegisterHandler } from 'ghostbus';
import { hex, MMIO_BYTES, type StorageRange } from './registers.js';

/** Registers of one block: name to declaration; `dw` is the dword number in BAR5. */
interface DwordDeclaration extends Omit<RegisterDeclaration, 'offset' | 'strideBytes'> {
  readonly dw: number;
  /** Distance between array elements in dwords. Default 1. */
  readonly strideDwords?: number;
}

/** The whole address space of the registers; a block costs only what it declares. */
const BLOCK_BYTES = 2 ** 32;

/** Registers outside the aperture that are remembered by number; a guest could name 2^30. */
const MOST_OUTSIDE = 256;

interface Owner {
  readonly name: string;
  readonly handler: RegisterHandler;
}

/**
 * The register aperture, BAR5. Every block declares its registers here; the packets of the rings (SRBM_WRITE,
 * WRITE_DATA, SET_UCONFIG_REG, …) reach registers through the same {@link readDword} and {@link writeDword} as the CPU.
 */
export class Mmio implements RegisterHandler {
  readonly #log: Log;
  readonly #owners: Owner[] = [];
  /** Index into owners + 1 per dword; 0 = nobody. */
  readonly #ownerOf = new Uint16Array(MMIO_BYTES / 4);
  readonly #storage: { readonly name: string; readonly block: RegisterBlock }[] = [];
  readonly #loud: RegisterBlock;
  readonly #outside = new Map<number, number>();
  /** Registers beyond the aperture, which only PCIE_INDEX2 and packets reach, by dword. */
  readonly #beyond = new Map<number, RegisterHandler>();

  /** `storage`: what only remembers, unless a block declares it. */
  constructor(log: Log, storage: readonly StorageRange[]) {
    this.#log = log;
    this.#loud = new RegisterBlock({ name: 'unknown register', sizeBytes: MMIO_BYTES, log, undeclared: 'loud' }, {});
    for (const range of storage) {
      const block = new RegisterBlock({ name: range.name, sizeBytes: MMIO_BYTES, undeclared: 'storage' }, {});
      this.#storage.push({ name: range.name, block });
      this.claim(range.name, range.firstDword, range.lastDword - range.firstDword + 1, block);
    }
  }

  /** Declares a block's registers; they answer from now on. */
  declare<Names extends string>(
    name: string,
    registers: Readonly<Record<Names, DwordDeclaration>>,
  ): RegisterBlock<Names> {
    const declared: Record<string, RegisterDeclaration> = {};
    for (const [key, { dw, strideDwords, ...rest }] of Object.entries<DwordDeclaration>(registers)) {
      declared[key] = { ...rest, offset: dw * 4, strideBytes: (strideDwords ?? 1) * 4 };
    }
    const block = new RegisterBlock<Names>(
      { name, sizeBytes: BLOCK_BYTES, log: this.#log, undeclared: 'loud' },
      declared as Record<Names, RegisterDeclaration>,
    );
    const owner = this.#owners.push({ name, handler: block });
    for (const { dw, count = 1, strideDwords = 1 } of Object.values<DwordDeclaration>(registers)) {
      for (let index = 0; index < count; index++) {
        const place = dw + index * strideDwords;
        if (place < MMIO_BYTES / 4) this.#ownerOf[place] = owner;
        else this.#beyond.set(place, block);
      }
    }
    return block;
  }

  /** Gives a range to a handler, which sees BAR5 byte offsets. */
  claim(name: string, firstDword: number, count: number, handler: RegisterHandler): void {
    const owner = this.#owners.push({ name, handler });
    this.#ownerOf.fill(owner, firstDword, firstDword + count);
  }

  read(offset: number, sizeBytes: number): number {
    return this.#handler(offset).read(offset, sizeBytes);
  }

  write(offset: number, sizeBytes: number, value: number): void {
    this.#handler(offset).write(offset, sizeBytes, value);
  }

  /** A register as a ring's packet reads it. Outside the aperture, and nobody's: counted, warned once, zero. */
  readDword(dw: number): number {
    const beyond = this.#beyond.get(dw);
    if (beyond !== undefined) return beyond.read(dw * 4, 4) >>> 0;
    if (!this.#inside(dw, 'read')) return 0;
    return this.read(dw * 4, 4) >>> 0;
  }

  writeDword(dw: number, value: number): void {
    const beyond = this.#beyond.get(dw);
    if (beyond !== undefined) beyond.write(dw * 4, 4, value >>> 0);
    else if (this.#inside(dw, 'write')) this.write(dw * 4, 4, value >>> 0);
  }

  #handler(offset: number): RegisterHandler {
    const owner = this.#ownerOf[offset >>> 2]!;
    return owner === 0 ? this.#loud : this.#owners[owner - 1]!.handler;
  }

  #inside(dw: number, direction: string): boolean {
    if (dw >= 0 && dw < MMIO_BYTES / 4) return true;
    const seen = this.#outside.get(dw) ?? 0;
    if (seen === 0 && this.#outside.size >= MOST_OUTSIDE) return false;
    this.#outside.set(dw, seen + 1);
    if (seen === 0) this.#log.warn(`${direction} of register dw ${hex(dw)} outside the aperture: not implemented`);
    return false;
  }

  /** What the driver touched that has no behaviour here. */
  inspect(): unknown {
    const named = (block: RegisterBlock) =>
      block.unimplemented().map(({ offset, reads, writes }) => ({ dw: hex(offset / 4), reads, writes }));
    return {
      unknown: named(this.#loud),
      outsideAperture: [...this.#outside].map(([dw, accesses]) => ({ dw: hex(dw), accesses })),
      storage: Object.fromEntries(this.#storage.map(({ name, block }) => [name, named(block)])),
    };
  }
}
