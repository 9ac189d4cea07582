/**
 * User Access Regions: 4 KiB pages of doorbells, one or more per process. They always trap. So far doorbells are only named:
 * ringing one is counted and warned about once, all pages together.
 */
import { type Log, RegisterBlock, type RegisterDeclaration, type RegisterHandler } from '../../emulator/plugin.js';

/** include/linux/mlx5/device.h MLX5_ADAPTER_PAGE_SIZE: the size of a page with `uar_4k` clear on amd64. */
export const UAR_PAGE_BYTES = 0x1000;

/** include/linux/mlx5/doorbell.h MLX5_CQ_DOORBELL. */
const CQ_DOORBELL = 0x20;
/** drivers/net/ethernet/mellanox/mlx5/core/eq.c MLX5_EQ_DOORBEL_OFFSET: consumer index and arm; 8 further on, no arm. */
const EQ_DOORBELL = 0x40;
/** include/linux/mlx5/doorbell.h MLX5_BF_OFFSET; drivers/infiniband/hw/mlx5 and libmlx5 alternate between two halves. */
const SEND_DOORBELL = 0x800;
const SEND_DOORBELL_HALVES = 8;
const SEND_DOORBELL_HALF_BYTES = 0x100;

/** Doorbells of 8 bytes appear as two registers: what to do, and for which object. */
const registers: Readonly<Record<string, RegisterDeclaration>> = {
  CQ_ARM_INDEX: { offset: CQ_DOORBELL, unimplemented: true },
  CQ_ARM_NUMBER: { offset: CQ_DOORBELL + 4, unimplemented: true },
  EQ_UPDATE_AND_ARM: { offset: EQ_DOORBELL, unimplemented: true },
  EQ_UPDATE: { offset: EQ_DOORBELL + 8, unimplemented: true },
  SEND_OPCODE: {
    offset: SEND_DOORBELL,
    count: SEND_DOORBELL_HALVES,
    strideBytes: SEND_DOORBELL_HALF_BYTES,
    unimplemented: true,
  },
  SEND_QUEUE: {
    offset: SEND_DOORBELL + 4,
    count: SEND_DOORBELL_HALVES,
    strideBytes: SEND_DOORBELL_HALF_BYTES,
    unimplemented: true,
  },
};

export class UarPages implements RegisterHandler {
  readonly #page: RegisterBlock;

  constructor(log: Log) {
    this.#page = new RegisterBlock({ name: 'UAR', sizeBytes: UAR_PAGE_BYTES, log }, registers);
  }

  read(offset: number, sizeBytes: number): number {
    return this.#page.read(offset % UAR_PAGE_BYTES, sizeBytes);
  }

  write(offset: number, sizeBytes: number, value: number): void {
    this.#page.write(offset % UAR_PAGE_BYTES, sizeBytes, value);
  }

  reset(): void {
    this.#page.reset();
  }

  unimplemented(): { register: string; reads: number; writes: number }[] {
    return namedAccesses(this.#page);
  }
}

/** The accesses that a block did not implement, by name. */
export function namedAccesses(block: RegisterBlock): { register: string; reads: number; writes: number }[] {
  return block.unimplemented().map(({ offset, reads, writes }) => ({ register: block.nameAt(offset), reads, writes }));
}
