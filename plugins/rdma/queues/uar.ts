/**
 * User Access Regions: 4 KiB pages of doorbells, one or more per process. They always trap. Every doorbell is
 * big-endian; one of eight bytes may also come as two halves, and then the second one rings.
 */
import { type Log, RegisterBlock, type RegisterDeclaration, type RegisterHandler } from 'ghostbus';
import { swap32 } from '../layouts/byte-order.js';

/** include/linux/mlx5/device.h MLX5_ADAPTER_PAGE_SIZE: the size of a page with `uar_4k` clear on amd64. */
export const UAR_PAGE_BYTES = 0x1000;

/** include/linux/mlx5/doorbell.h MLX5_CQ_DOORBELL. */
const CQ_DOORBELL = 0x20;
/**
 * drivers/net/ethernet/mellanox/mlx5/core/eq.c MLX5_EQ_DOORBEL_OFFSET: consumer index and arm; 8 further on, no arm.
 */
const EQ_DOORBELL = 0x40;
/**
 * include/linux/mlx5/doorbell.h MLX5_BF_OFFSET; drivers/infiniband/hw/mlx5 and libmlx5 alternate between two halves.
 */
const SEND_DOORBELL = 0x800;
const SEND_DOORBELL_HALVES = 8;
const SEND_DOORBELL_HALF_BYTES = 0x100;
/** BlueFlame: the rest of an entry that is copied behind its doorbell. The ring has it too. */
const BLUE_FLAME_REST_DWORDS = (SEND_DOORBELL_HALF_BYTES - 8) / 4;

export interface Doorbells {
  /** `solicitedOnly`: only an entry that asks for it, or an error, is worth an event. */
  armCompletionQueue(number: number, consumer: number, solicitedOnly: boolean): void;
  updateEventQueue(number: number, consumer: number, arm: boolean): void;
  /** A send queue has new entries. */
  ringSendQueue(number: number): void;
}

/** Doorbells of 8 bytes are two registers: what to do, and for which object. */
function registers(doorbells: Doorbells): Readonly<Record<string, RegisterDeclaration>> {
  let armIndex = 0;
  const writeOnly = { onRead: () => 0 };
  return {
    CQ_ARM_INDEX: {
      ...writeOnly,
      offset: CQ_DOORBELL,
      onWrite: (value) => {
        armIndex = swap32(value);
      },
    },
    CQ_ARM_NUMBER: {
      ...writeOnly,
      offset: CQ_DOORBELL + 4,
      onWrite: (value) => {
        // include/linux/mlx5/cq.h `mlx5_cq_arm`: bit 24 of the first half asks for solicited entries only.
        doorbells.armCompletionQueue(swap32(value) & 0xffffff, armIndex & 0xffffff, (armIndex & 0x01000000) !== 0);
      },
    },
    EQ_UPDATE_AND_ARM: {
      ...writeOnly,
      offset: EQ_DOORBELL,
      onWrite: (value) => doorbells.updateEventQueue(swap32(value) >>> 24, swap32(value) & 0xffffff, true),
    },
    EQ_UPDATE: {
      ...writeOnly,
      offset: EQ_DOORBELL + 8,
      onWrite: (value) => doorbells.updateEventQueue(swap32(value) >>> 24, swap32(value) & 0xffffff, false),
    },
    ...sendRegisters(doorbells),
  };
}

function sendRegisters(doorbells: Doorbells): Record<string, RegisterDeclaration> {
  const entries: Record<string, RegisterDeclaration> = {};
  for (let half = 0; half < SEND_DOORBELL_HALVES; half++) {
    const offset = SEND_DOORBELL + half * SEND_DOORBELL_HALF_BYTES;
    entries[`SEND_OPCODE_${half}`] = { offset, onRead: () => 0 };
    entries[`SEND_QUEUE_${half}`] = {
      offset: offset + 4,
      onRead: () => 0,
      onWrite: (value) => doorbells.ringSendQueue(swap32(value) >>> 8),
    };
    entries[`BLUE_FLAME_${half}`] = { offset: offset + 8, count: BLUE_FLAME_REST_DWORDS, onRead: () => 0 };
  }
  return entries;
}

export class UarPages implements RegisterHandler {
  readonly #page: RegisterBlock;

  constructor(log: Log, doorbells: Doorbells) {
    this.#page = new RegisterBlock({ name: 'UAR', sizeBytes: UAR_PAGE_BYTES, log }, registers(doorbells));
  }

  read(offset: number, sizeBytes: number): number {
    return this.#page.read(offset % UAR_PAGE_BYTES, sizeBytes);
  }

  write(offset: number, sizeBytes: number, value: number): void {
    this.#page.write(offset % UAR_PAGE_BYTES, sizeBytes, value);
  }

  write64(offset: number, value: bigint): void {
    this.#page.write64(offset % UAR_PAGE_BYTES, value);
  }

  nameAt(offset: number): string {
    return this.#page.nameAt(offset % UAR_PAGE_BYTES);
  }

  unimplemented(): { register: string; reads: number; writes: number }[] {
    return namedAccesses(this.#page);
  }
}

/** The accesses that a block did not implement, by name. */
export function namedAccesses(block: RegisterBlock): { register: string; reads: number; writes: number }[] {
  return block.unimplemented().map(({ offset, reads, writes }) => ({ register: block.nameAt(offset), reads, writes }));
}
