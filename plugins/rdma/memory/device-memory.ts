/**
 * Memory on the adapter itself (MEMIC): the driver lets processes map pages of it out of BAR 0, and keys of that mode
 * reach it without the bus. Source: drivers/infiniband/hw/mlx5/dm.c.
 */
import type { MemoryRegion } from 'ghostbus';
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { allocMemicIn, allocMemicOut, deallocMemicIn } from '../layouts/commands.js';

/** The driver's bitmap has 256 pages (include/linux/mlx5/mlx5_ib.h MLX5_MAX_MEMIC_PAGES). */
export const DEVICE_MEMORY_BYTES = 2 ** 20;
/** device_mem_cap.max_memic_size: what one process may get. */
export const MAX_ALLOCATION_BYTES = 2 ** 17;
/** device_mem_cap.log_min_memic_alloc_size. */
export const LOG_UNIT_BYTES = 6;
/** The driver allocates by pages of 4 KiB (dm.c `mlx5_cmd_alloc_memic`). */
const PAGE_BYTES = 4096;

export class DeviceMemory {
  readonly #memory: MemoryRegion;
  /** Where it starts in BAR 0: the driver names places in it that way. */
  readonly #barOffset: number;
  /** Size by offset. */
  readonly #allocated = new Map<number, number>();

  constructor(memory: MemoryRegion, barOffset: number) {
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

  /** Whether these bytes of BAR 0 were all allocated as one. */
  isDeviceMemory(barAddress: bigint, lengthBytes: number): boolean {
    const offset = barAddress - BigInt(this.#barOffset);
    for (const [start, sizeBytes] of this.#allocated) {
      if (offset >= start && offset + BigInt(lengthBytes) <= start + sizeBytes) return true;
    }
    return false;
  }

  /**
   * The driver chooses pages that it has not handed out, and says how much of them it wants; it gets their beginning.
   */
  #allocate(call: CommandCall): void {
    const start = allocMemicIn.get64(call.input, 'range_start_addr');
    const sizeBytes = allocMemicIn.get(call.input, 'memic_size');
    const offset = Number(start) - this.#barOffset;
    const isInside = offset >= 0 && offset % PAGE_BYTES === 0 && offset + sizeBytes <= DEVICE_MEMORY_BYTES;
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
