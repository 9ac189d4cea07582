/**
 * Memory on the adapter itself (MEMIC): the driver lets processes map pages of it out of BAR 0, and keys of that mode reach it
 * without the bus. Source: drivers/infiniband/hw/mlx5/dm.c.
 */
import type { Dma, MemoryRegion } from 'ghostbus';
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { allocMemicIn, allocMemicOut, deallocMemicIn } from '../layouts/commands.js';

/** The driver's bitmap has 256 pages (include/linux/mlx5/mlx5_ib.h MLX5_MAX_MEMIC_PAGES). */
export const DEVICE_MEMORY_BYTES = 2 ** 20;
/** device_mem_cap.max_memic_size: what one process may get. */
export const MAX_ALLOCATION_BYTES = 2 ** 17;
/** device_mem_cap.log_min_memic_alloc_size. */
export const LOG_UNIT_BYTES = 6;

/** Physical addresses have at most 52 bits; extents from here on are places in BAR 0. */
export const DEVICE_MEMORY_BASE = 2 ** 52;

/** What memory keys lead to: the bus, and from {@link DEVICE_MEMORY_BASE} on the adapter's own memory. */
export type KeyedMemory = Pick<Dma, 'read' | 'write' | 'fill' | 'readU64' | 'writeU64'>;

export class DeviceMemory implements KeyedMemory {
  readonly #bus: Dma;
  readonly #memory: MemoryRegion;
  /** Where it starts in BAR 0: the driver names places in it that way. */
  readonly #barOffset: number;
  /** Size by offset. */
  readonly #allocated = new Map<number, number>();

  constructor(bus: Dma, memory: MemoryRegion, barOffset: number) {
    this.#bus = bus;
    this.#memory = memory;
    this.#barOffset = barOffset;
  }

  get commands(): CommandTable {
    return {
      ALLOC_MEMIC: (call) => this.#allocate(call),
      DEALLOC_MEMIC: (call) => {
        const offset = Number(deallocMemicIn.get64(call.input, 'memic_start_addr')) - this.#barOffset;
        if (!this.#allocated.delete(offset)) throw new CommandError(STATUS.BAD_RESOURCE, `nothing begins at ${offset}`);
      },
    };
  }

  get allocations(): number {
    return this.#allocated.size;
  }

  /** The address of bytes that a key names by their place in BAR 0; undefined unless all of them were allocated as one. */
  addressOf(barAddress: bigint, lengthBytes: number): number | undefined {
    const offset = barAddress - BigInt(this.#barOffset);
    for (const [start, sizeBytes] of this.#allocated) {
      if (offset >= start && offset + BigInt(lengthBytes) <= start + sizeBytes)
        return DEVICE_MEMORY_BASE + Number(barAddress);
    }
    return undefined;
  }

  read(address: number, target: Uint8Array): void {
    if (address < DEVICE_MEMORY_BASE) this.#bus.read(address, target);
    else this.#memory.read(address - DEVICE_MEMORY_BASE, target);
  }

  write(address: number, source: Uint8Array): void {
    if (address < DEVICE_MEMORY_BASE) this.#bus.write(address, source);
    else this.#memory.write(address - DEVICE_MEMORY_BASE, source);
  }

  fill(address: number, value: number, lengthBytes: number): void {
    if (address < DEVICE_MEMORY_BASE) this.#bus.fill(address, value, lengthBytes);
    else this.#memory.fill(address - DEVICE_MEMORY_BASE, value, lengthBytes);
  }

  readU64(address: number): bigint {
    return address < DEVICE_MEMORY_BASE
      ? this.#bus.readU64(address)
      : this.#memory.readU64(address - DEVICE_MEMORY_BASE);
  }

  writeU64(address: number, value: bigint): void {
    if (address < DEVICE_MEMORY_BASE) this.#bus.writeU64(address, value);
    else this.#memory.writeU64(address - DEVICE_MEMORY_BASE, value);
  }

  /** The driver chooses pages that it has not handed out, and says how much of them it wants; it gets their beginning. */
  #allocate(call: CommandCall): void {
    const start = allocMemicIn.get64(call.input, 'range_start_addr');
    const sizeBytes = allocMemicIn.get(call.input, 'memic_size');
    const offset = Number(start) - this.#barOffset;
    const isInside = offset >= 0 && offset % 4096 === 0 && offset + sizeBytes <= DEVICE_MEMORY_BYTES;
    if (!isInside || sizeBytes === 0 || sizeBytes > allocMemicIn.get(call.input, 'range_size')) {
      throw new CommandError(STATUS.BAD_PARAMETER, `${sizeBytes} bytes of device memory at ${offset}`);
    }
    if (sizeBytes > MAX_ALLOCATION_BYTES) throw new CommandError(STATUS.LIMIT_EXCEEDED, `${sizeBytes} bytes at once`);
    for (const [other, otherBytes] of this.#allocated) {
      if (other < offset + sizeBytes && offset < other + otherBytes) {
        throw new CommandError(STATUS.BAD_RESOURCE, `device memory at ${offset} is in use`);
      }
    }
    // Another process may have had it.
    this.#memory.fill(Number(start), 0, sizeBytes);
    this.#allocated.set(offset, sizeBytes);
    allocMemicOut.set64(call.output, 'memic_start_addr', start);
  }
}
