/** Event queues: 64-byte entries, an interrupt when armed. Source: include/linux/mlx5/device.h `struct mlx5_eqe`. */
import { DmaError, type FunctionPort } from 'ghostbus';
import { Ring } from 'ghostbus/kit';
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { objectTable } from '../firmware/object-table.js';
import { createEqIn, createEqOut, destroyEqIn, queryEqOut } from '../layouts/commands.js';
import { eqc } from '../layouts/contexts.js';
import { eqeQpSrq } from '../layouts/entries.js';
import { bytesOf, copyOf } from '../layouts/layout.js';
import { reportDmaError } from '../memory/dma-report.js';
import { GuestBuffer, writeEntry } from '../memory/guest-buffer.js';
import type { HeapBudget } from '../memory/heap-budget.js';

/** include/linux/mlx5/device.h `enum mlx5_event`. */
export const EVENT = {
  COMPLETION: 0x00,
  COMMUNICATION_ESTABLISHED: 0x02,
  SQ_DRAINED: 0x03,
  CQ_ERROR: 0x04,
  WQ_CATASTROPHIC: 0x05,
  PORT_CHANGE: 0x09,
  COMMAND: 0x0a,
  PAGE_FAULT: 0x0c,
  WQ_INVALID_REQUEST: 0x10,
  WQ_ACCESS_ERROR: 0x11,
  SRQ_CATASTROPHIC: 0x12,
  SRQ_LAST_WQE: 0x13,
  SRQ_LIMIT: 0x14,
} as const;

const ENTRY_BYTES = 64;
const ENTRY = { TYPE: 1, SUB_TYPE: 3, DATA: 32, OWNER: 63 } as const;
/** Producer and consumer index have 24 bits. */
const INDEX_RANGE = 2 ** 24;

class EventQueue {
  readonly number: number;
  readonly vector: number;
  readonly context: DataView;
  readonly #port: Pick<FunctionPort, 'dma' | 'log' | 'interrupt'>;
  readonly #buffer: GuestBuffer;
  readonly #ring: Ring;
  readonly #mask: DataView;
  #producer = 0;
  #consumer = 0;
  #armed = false;
  #overrun = 0;

  constructor(
    port: Pick<FunctionPort, 'dma' | 'log' | 'interrupt'>,
    number: number,
    buffer: GuestBuffer,
    context: DataView,
    mask: DataView,
  ) {
    this.number = number;
    this.context = context;
    this.vector = eqc.get(context, 'intr');
    this.#ring = new Ring({ entries: 2 ** eqc.get(context, 'log_eq_size'), counterRange: INDEX_RANGE });
    this.#port = port;
    this.#buffer = buffer;
    this.#mask = mask;
  }

  wants(event: number): boolean {
    return event < 64 && (this.#mask.getUint8(7 - (event >>> 3)) & (1 << (event & 7))) !== 0;
  }

  /**
   * `data`: the event's own part. An entry that finds the queue full or unreachable is counted and lost.
   */
  post(event: number, subType: number, data: DataView): void {
    if (this.#ring.isFull(this.#producer, this.#consumer)) {
      if (this.#overrun++ === 0) this.#port.log.warn('event queue overrun', { eqn: this.number, event });
      return;
    }
    const entry = new Uint8Array(ENTRY_BYTES);
    entry[ENTRY.TYPE] = event;
    entry[ENTRY.SUB_TYPE] = subType;
    entry.set(bytesOf(data), ENTRY.DATA);
    entry[ENTRY.OWNER] = this.#ring.round(this.#producer) & 1;
    try {
      writeEntry(this.#buffer, this.#port.dma, this.#ring.slot(this.#producer) * ENTRY_BYTES, entry);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      reportDmaError(this.#port.log, 'an event queue cannot be reached', { eqn: this.number, event }, error);
      return;
    }
    this.#producer = this.#ring.advance(this.#producer);
    if (this.#armed) this.#fire();
  }

  /** The driver has consumed up to `consumer`, and with `arm` wants an interrupt for what comes or is there already. */
  update(consumer: number, arm: boolean): void {
    this.#consumer = consumer;
    if (!arm) return;
    this.#armed = true;
    if (consumer !== this.#producer) this.#fire();
  }

  release(): void {
    this.#buffer.release();
  }

  inspect(): unknown {
    return {
      eqn: this.number,
      vector: this.vector,
      producer: this.#producer,
      consumer: this.#consumer,
      armed: this.#armed,
      overrun: this.#overrun,
    };
  }

  /** The context as a query shows it. */
  describe(target: DataView): void {
    bytesOf(target).set(bytesOf(this.context));
    eqc.set(target, 'producer_counter', this.#producer);
    eqc.set(target, 'consumer_counter', this.#consumer);
    eqc.set(target, 'st', this.#armed ? 0x9 : 0xa);
  }

  #fire(): void {
    this.#armed = false;
    this.#port.interrupt(this.vector);
  }
}

/** eqn has 8 bits (create_eq_out). */
const MAX_EQN = 255;
/** log2 of entries; the capabilities say 22. */
const MAX_LOG_SIZE = 22;

export class EventQueues {
  readonly #port: Pick<FunctionPort, 'dma' | 'log' | 'interrupt'>;
  readonly #budget: HeapBudget;
  readonly #vectors: number;
  readonly #queues = objectTable<EventQueue>('event queue', 1, MAX_EQN);

  constructor(port: Pick<FunctionPort, 'dma' | 'log' | 'interrupt'>, budget: HeapBudget, vectors: number) {
    this.#port = port;
    this.#budget = budget;
    this.#vectors = vectors;
  }

  get commands(): CommandTable {
    return {
      CREATE_EQ: (call) => this.#create(call),
      DESTROY_EQ: (call) => this.#queues.remove(destroyEqIn.get(call.input, 'eq_number')).release(),
      QUERY_EQ: (call) => {
        const queue = this.#queues.get(destroyEqIn.get(call.input, 'eq_number'));
        queue.describe(queryEqOut.part(call.output, 'eq_context_entry'));
      },
    };
  }

  get count(): number {
    return this.#queues.size;
  }

  find(number: number): EventQueue | undefined {
    return this.#queues.find(number);
  }

  /** The queues that asked for this event, as of now. */
  subscribers(event: number): EventQueue[] {
    return [...this.#queues.values()].filter((queue) => queue.wants(event));
  }

  post(event: number, subType: number, data: DataView): void {
    for (const queue of this.subscribers(event)) queue.post(event, subType, data);
  }

  /**
   * An event about a queue pair, a shared receive queue or a completion queue: `struct mlx5_eqe_qp_srq`,
   * `mlx5_eqe_comp`.
   */
  postNumber(event: number, number: number): void {
    const data = eqeQpSrq.create();
    eqeQpSrq.set(data, 'qp_srq_n', number);
    this.post(event, 0, data);
  }

  inspect(): unknown {
    return [...this.#queues.values()].map((queue) => queue.inspect());
  }

  #create(call: CommandCall): void {
    const context = copyOf(createEqIn.part(call.input, 'eq_context_entry'));
    const mask = copyOf(createEqIn.part(call.input, 'event_bitmask'), 8);
    const logSize = eqc.get(context, 'log_eq_size');
    const vector = eqc.get(context, 'intr');
    if (logSize > MAX_LOG_SIZE) throw new CommandError(STATUS.BAD_PARAMETER, `an event queue of 2^${logSize} entries`);
    if (vector >= this.#vectors) throw new CommandError(STATUS.BAD_PARAMETER, `there is no MSI-X vector ${vector}`);
    const number = this.#queues.add((eqn) => {
      const buffer = new GuestBuffer(this.#port.dma, this.#budget, call, {
        listStart: createEqIn.byteOf('pas'),
        logPageSize: eqc.get(context, 'log_page_size'),
        pageOffset: eqc.get(context, 'page_offset'),
        sizeBytes: 2 ** logSize * ENTRY_BYTES,
      });
      return new EventQueue(this.#port, eqn, buffer, context, mask);
    });
    createEqOut.set(call.output, 'eq_number', number);
  }
}
