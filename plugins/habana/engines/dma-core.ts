/**
 * One DMA core: linear copies, fills with a 64-bit pattern, and copies between two strided tensors of up to five
 * dimensions. A transfer starts with a LIN_DMA packet or a write to COMMIT and moves in slices.
 *
 * Source: Linux asic_reg/dma0_core_regs.h, dma0_core_masks.h; gaudi.c (gaudi_init_dma_core, gaudi_dma_core_transfer).
 */
import { type Log, RegisterBlock } from 'ghostbus';
import type { Runnable, TurnResult, WorkBudget, WorkUnits } from 'ghostbus/kit';
import { PROTECTION_BITS } from '../blocks/protection-bits.js';
import type { Card } from '../card.js';
import { addressOf, PAGE_BYTES } from '../interconnect/address-map.js';
import { DeviceFault } from '../interconnect/device-fault.js';
import { type Interconnect, type Requester, requesterOf } from '../interconnect/interconnect.js';
import { DMA_CONTROL } from '../queues/packets.js';

/** DMA0_CORE_ERR_CAUSE_*, ERR_CFG_* (dma0_core_masks.h). */
const DMA_ERROR_CAUSE = { readHbw: 1, writeHbw: 2, writeLbw: 4, descriptorOverflow: 8 } as const;
const ERROR_MESSAGE_ENABLE = 1;
const STOP_ON_ERROR = 2;
const BUSY = 0x80000000;
/** DMA0_CORE_DST_BASE_HI_VAL_MASK: the upper byte carries a context number. */
const DESTINATION_HIGH = 0xffffff;
const HALT = 1;

const DIMENSIONS = 5;
/** COMMIT can be written faster than transfers end; the hardware calls this a descriptor overflow. */
const MAX_COMMITTED = 16;
/** Each piece costs at least this much, so that many tiny pieces end a slice too. */
const LEAST_PIECE_COST: WorkUnits = 1024;
/** A zero fill of device memory punches a hole, which is much cheaper than storing: larger pieces, charged for less. */
const PUNCH_BYTES = 64 * 1024 * 1024;
const PUNCH_DISCOUNT = 64;

/** Rows of a tensor as successive offsets from its base. */
interface TensorWalk {
  readonly rowBytes: number;
  readonly counts: readonly number[];
  readonly strides: readonly number[];
}

export interface Transfer {
  readonly control: number;
  /** Source address, or the pattern of a fill. */
  readonly sourceLow: number;
  readonly sourceHigh: number;
  readonly destination: number;
  readonly lengthBytes: number;
  readonly requester: Requester;
  readonly completion: { readonly address: number; readonly value: number } | undefined;
  readonly tensors: { readonly source: TensorWalk; readonly destination: TensorWalk } | undefined;
  doneBytes: number;
  /** It met an error with STOP_ON_ERR set and never completes. */
  isStuck: boolean;
}

interface DmaCoreEvents {
  /** ERR_CAUSE has a new bit; `sendMessage`: and the core is set up to tell the firmware. */
  failed(core: DmaCore, fault: DeviceFault, sendMessage: boolean): void;
  wake(core: DmaCore): void;
}

export class DmaCore implements Runnable {
  readonly index: number;
  readonly registers: ReturnType<typeof coreRegisters>;
  readonly #interconnect: Interconnect;
  readonly #events: DmaCoreEvents;
  readonly #active = new Set<Transfer>();
  readonly #committed: Transfer[] = [];
  readonly counters: Record<'transfers' | 'bytes' | 'errors', number>;

  constructor(index: number, interconnect: Interconnect, events: DmaCoreEvents, { log, statistics }: Card) {
    this.index = index;
    this.counters = statistics.of(`DMA${index} core`, 'transfers', 'bytes', 'errors');
    this.#interconnect = interconnect;
    this.#events = events;
    this.registers = coreRegisters(
      `DMA${index}_CORE`,
      {
        commit: (control) => this.#commit(control),
        halt: () => this.#events.wake(this),
        isBusy: () => this.isBusy,
        isHalted: () => (this.registers.get('CFG_1') & HALT) !== 0,
      },
      log,
    );
  }

  get isBusy(): boolean {
    return this.#active.size > 0;
  }

  /** What the core sends to tell of an error. */
  get errorMessage(): { address: number; value: number } {
    const r = this.registers;
    return { address: addressOf(r.get('ERRMSG_ADDR_LO'), r.get('ERRMSG_ADDR_HI')), value: r.get('ERRMSG_WDATA') };
  }

  /** Takes the registers and what a LIN_DMA packet carries over into a transfer. */
  begin(control: number, lengthBytes: number, source: readonly [number, number], destination: number): Transfer {
    const r = this.registers;
    const secure = (r.get('PROT') & 1) !== 0;
    const properties = r.get(secure ? 'SECURE_PROPS' : 'NON_SECURE_PROPS');
    const isTensor = (control & (DMA_CONTROL.linear | DMA_CONTROL.memset)) === 0;
    const transfer: Transfer = {
      control,
      sourceLow: source[0],
      sourceHigh: source[1],
      destination,
      lengthBytes: isTensor ? tensorBytes(this.#walk('SRC', r.get('SRC_TSIZE_0'))) : lengthBytes,
      requester: requesterOf(properties),
      completion:
        (control & DMA_CONTROL.writeCompletion) === 0
          ? undefined
          : {
              address: addressOf(r.get('WR_COMP_ADDR_LO'), r.get('WR_COMP_ADDR_HI')),
              value: r.get('WR_COMP_WDATA'),
            },
      tensors: isTensor
        ? { source: this.#walk('SRC', r.get('SRC_TSIZE_0')), destination: this.#walk('DST', lengthBytes) }
        : undefined,
      doneBytes: 0,
      isStuck: false,
    };
    this.#active.add(transfer);
    this.counters.transfers++;
    return transfer;
  }

  /** Moves a part of a transfer, as much as the budget allows. False if the transfer can not go on. */
  advance(transfer: Transfer, budget: WorkBudget): boolean {
    if (transfer.isStuck || (this.registers.get('CFG_1') & HALT) !== 0) return false;
    try {
      while (!budget.isSpent && transfer.doneBytes < transfer.lengthBytes) {
        const limit = budget.left;
        const moved = this.#piece(transfer, limit);
        transfer.doneBytes += moved;
        this.counters.bytes += moved;
        budget.charge(Math.max(moved > limit ? Math.ceil(moved / PUNCH_DISCOUNT) : moved, LEAST_PIECE_COST));
      }
      if (this.isDone(transfer)) this.#complete(transfer);
    } catch (error) {
      if (!(error instanceof DeviceFault)) throw error;
      budget.charge(LEAST_PIECE_COST);
      this.#fail(transfer, error);
    }
    return true;
  }

  isDone(transfer: Transfer): boolean {
    return !transfer.isStuck && transfer.doneBytes >= transfer.lengthBytes;
  }

  /** Transfers started by a write to COMMIT, one after the other. */
  turn(budget: WorkBudget): TurnResult {
    const transfer = this.#committed[0];
    if (transfer === undefined || !this.advance(transfer, budget)) return 'idle';
    if (this.isDone(transfer) && this.#committed[0] === transfer) this.#committed.shift();
    return 'ready';
  }

  /** Moves a piece of at most `limit` bytes, or a larger one where that is cheap. */
  #piece(transfer: Transfer, limit: number): number {
    const { control, doneBytes, tensors, requester } = transfer;
    const left = Math.min(limit, transfer.lengthBytes - doneBytes);
    if ((control & DMA_CONTROL.memset) !== 0) {
      const isZero = transfer.sourceLow === 0 && transfer.sourceHigh === 0;
      const most = isZero ? Math.min(PUNCH_BYTES, transfer.lengthBytes - doneBytes) : left;
      const pattern = new Uint8Array(8);
      new DataView(pattern.buffer).setUint32(0, transfer.sourceLow, true);
      new DataView(pattern.buffer).setUint32(4, transfer.sourceHigh, true);
      return this.#interconnect.fill(transfer.destination + doneBytes, pattern, doneBytes % 8, most, requester);
    }
    const source = addressOf(transfer.sourceLow, transfer.sourceHigh);
    if (tensors === undefined) {
      return this.#interconnect.copy(transfer.destination + doneBytes, source + doneBytes, left, requester);
    }
    const from = tensorPosition(tensors.source, doneBytes);
    const to = tensorPosition(tensors.destination, doneBytes);
    const run = Math.min(left, from.leftInRow, to.leftInRow);
    if (run === 0) throw new DeviceFault('decode', 'write', transfer.destination, 'a tensor with empty rows');
    return this.#interconnect.copy(transfer.destination + to.offset, source + from.offset, run, requester);
  }

  #complete(transfer: Transfer): void {
    if (transfer.completion !== undefined) {
      try {
        this.#interconnect.write32(transfer.completion.address, transfer.completion.value, transfer.requester);
      } catch (error) {
        if (!(error instanceof DeviceFault)) throw error;
        this.#report(DMA_ERROR_CAUSE.writeLbw, error);
      }
    }
    this.#active.delete(transfer);
  }

  #fail(transfer: Transfer, fault: DeviceFault): void {
    this.#report(fault.direction === 'read' ? DMA_ERROR_CAUSE.readHbw : DMA_ERROR_CAUSE.writeHbw, fault);
    if ((this.registers.get('ERR_CFG') & STOP_ON_ERROR) !== 0) transfer.isStuck = true;
    else {
      transfer.doneBytes = transfer.lengthBytes;
      this.#complete(transfer);
    }
  }

  #report(cause: number, fault: DeviceFault): void {
    this.counters.errors++;
    this.registers.set('ERR_CAUSE', this.registers.get('ERR_CAUSE') | cause);
    this.#events.failed(this, fault, (this.registers.get('ERR_CFG') & ERROR_MESSAGE_ENABLE) !== 0);
  }

  #walk(end: 'SRC' | 'DST', rowBytes: number): TensorWalk {
    const counts: number[] = [];
    const strides: number[] = [];
    for (let dimension = 0; dimension < DIMENSIONS - 1; dimension++) {
      // A dimension that was never set up has size 0 and takes no part.
      counts.push(Math.max(1, this.registers.get(`${end}_TSIZE`, dimension)));
      strides.push(this.registers.get(`${end}_STRIDE`, dimension));
    }
    return { rowBytes, counts, strides };
  }

  #commit(control: number): number {
    const r = this.registers;
    if (this.#committed.length >= MAX_COMMITTED) {
      this.#report(
        DMA_ERROR_CAUSE.descriptorOverflow,
        new DeviceFault('decode', 'write', 0, 'COMMIT while the descriptor queue is full'),
      );
      return control;
    }
    const destination = addressOf(r.get('DST_BASE_LO'), r.get('DST_BASE_HI') & DESTINATION_HIGH);
    const source = [r.get('SRC_BASE_LO'), r.get('SRC_BASE_HI')] as const;
    this.#committed.push(this.begin(control, r.get('DST_TSIZE_0'), source, destination));
    this.#events.wake(this);
    return control;
  }
}

interface CoreHooks {
  commit(control: number): number;
  halt(): void;
  isBusy(): boolean;
  isHalted(): boolean;
}

/** dma0_core_regs.h */
function coreRegisters(name: string, hooks: CoreHooks, log: Log) {
  return new RegisterBlock(
    { name, sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      CFG_0: { offset: 0x00 },
      CFG_1: { offset: 0x04, onWrite: hooks.halt },
      LBW_MAX_OUTSTAND: { offset: 0x08 },
      SRC_BASE_LO: { offset: 0x14 },
      SRC_BASE_HI: { offset: 0x18 },
      DST_BASE_LO: { offset: 0x1c },
      DST_BASE_HI: { offset: 0x20 },
      SRC_TSIZE: { offset: 0x2c, count: DIMENSIONS - 1, strideBytes: 8 },
      SRC_STRIDE: { offset: 0x30, count: DIMENSIONS - 1, strideBytes: 8 },
      SRC_TSIZE_0: { offset: 0x4c },
      DST_TSIZE: { offset: 0x54, count: DIMENSIONS - 1, strideBytes: 8 },
      DST_STRIDE: { offset: 0x58, count: DIMENSIONS - 1, strideBytes: 8 },
      DST_TSIZE_0: { offset: 0x74 },
      COMMIT: { offset: 0x78, onWrite: hooks.commit },
      WR_COMP_WDATA: { offset: 0x7c },
      WR_COMP_ADDR_LO: { offset: 0x80 },
      WR_COMP_ADDR_HI: { offset: 0x84 },
      WR_COMP_AWUSER_31_11: { offset: 0x88 },
      TE_NUMROWS: { offset: 0x94 },
      PROT: { offset: 0xb8 },
      SECURE_PROPS: { offset: 0xf0 },
      NON_SECURE_PROPS: { offset: 0xf4 },
      RD_MAX_OUTSTAND: { offset: 0x100 },
      RD_MAX_SIZE: { offset: 0x104 },
      RD_ARUSER_31_11: { offset: 0x110 },
      WR_AWUSER_31_11: { offset: 0x130 },
      ERR_CFG: { offset: 0x160 },
      ERR_CAUSE: { offset: 0x164, writable: 0, writeOneToClear: 0xf },
      ERRMSG_ADDR_LO: { offset: 0x170 },
      ERRMSG_ADDR_HI: { offset: 0x174 },
      ERRMSG_WDATA: { offset: 0x178 },
      STS0: { offset: 0x190, writable: 0, onRead: () => (hooks.isBusy() ? BUSY : 0) },
      STS1: { offset: 0x194, writable: 0, onRead: () => (hooks.isHalted() ? HALT : 0) },
      ...PROTECTION_BITS,
    },
  );
}

function tensorBytes(walk: TensorWalk): number {
  // Five 32-bit sizes: the product may leave the exact numbers, the transfer then meets an
  // address that faults long before.
  return walk.counts.reduce((bytes, count) => bytes * count, walk.rowBytes);
}

/** Where byte `position` of a tensor's contents lies, and how many bytes follow it in its row. */
export function tensorPosition(walk: TensorWalk, position: number): { offset: number; leftInRow: number } {
  if (walk.rowBytes === 0) return { offset: 0, leftInRow: 0 };
  const inRow = position % walk.rowBytes;
  let row = Math.floor(position / walk.rowBytes);
  let offset = inRow;
  walk.counts.forEach((count, dimension) => {
    offset += (row % count) * walk.strides[dimension]!;
    row = Math.floor(row / count);
  });
  return { offset, leftInRow: walk.rowBytes - inRow };
}
