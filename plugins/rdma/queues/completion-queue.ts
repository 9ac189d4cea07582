/** Completion queues: entries of 64 or 128 bytes, arming, moderation, resizing, overrun. */

import { DmaError, type FunctionPort, type Timer } from 'ghostbus';
import { Ring } from 'ghostbus/kit';
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { deviceTicks } from '../firmware/device-clock.js';
import { type ObjectTable, objectTable } from '../firmware/object-table.js';
import { createCqIn, modifyCqIn, queryCqOut } from '../layouts/commands.js';
import { cqc } from '../layouts/contexts.js';
import { eqeComp, eqeCqErr } from '../layouts/entries.js';
import { bytesOf, copyOf } from '../layouts/layout.js';
import { reportDmaError } from '../memory/dma-report.js';
import { GuestBuffer, writeEntry } from '../memory/guest-buffer.js';
import type { HeapBudget } from '../memory/heap-budget.js';
import { CQE, CQE_OPCODE, setOutcome } from './completion-entry.js';
import { doorbellAddress } from './doorbell-record.js';
import { EVENT, type EventQueues } from './event-queue.js';

/** Producer and consumer index have 24 bits. */
const INDEX_RANGE = 2 ** 24;
/** cqc.cqe_sz: 64 bytes, 128 bytes, 128 bytes padded; in the larger ones our entry is the second half. */
const ENTRY_BYTES = [64, 128, 128] as const;
const MAX_LOG_SIZE = 22;
/**
 * `mlx5_eqe_cq_err` syndrome: include/linux/mlx5/device.h says only "syndrome"; 1 is overrun in the programmer's
 * manual.
 */
export const CQ_ERROR_SYNDROME = { OVERRUN: 1, ACCESS: 2 } as const;

/** Where the entries are. A queue that is resized moves to another one, and its indices go on. */
interface EntryRing {
  readonly buffer: GuestBuffer;
  readonly indices: Ring;
  readonly entryBytes: number;
}

type Arm = 'none' | 'solicited' | 'any';

export class CompletionQueue {
  readonly number: number;
  readonly context: DataView;
  readonly #port: Pick<FunctionPort, 'dma' | 'clock' | 'log'>;
  readonly #events: EventQueues;
  readonly #doorbellRecord: number;
  #ring: EntryRing;
  #producer = 0;
  #arm: Arm = 'none';
  /** Producer index when the last event was sent, and just after the last entry that counts as solicited. */
  #notified = 0;
  #lastSolicited = 0;
  #sinceEvent = 0;
  #moderation: Timer | undefined;
  #failed = false;

  constructor(
    port: Pick<FunctionPort, 'dma' | 'clock' | 'log'>,
    events: EventQueues,
    number: number,
    ring: EntryRing,
    context: DataView,
  ) {
    this.number = number;
    this.context = context;
    this.#port = port;
    this.#events = events;
    this.#ring = ring;
    this.#doorbellRecord = doorbellAddress(cqc.get64(context, 'dbr_addr'));
  }

  get failed(): boolean {
    return this.#failed;
  }

  /**
   * Adds an entry whose last byte still lacks the owner bit. A queue that overran (unless it says to ignore that) or
   * that cannot be written stops for good, and the driver is told.
   */
  push(entry: DataView, wantsSolicited: boolean): void {
    if (this.#failed) return;
    try {
      if (this.#isFull()) {
        this.fail(CQ_ERROR_SYNDROME.OVERRUN);
        return;
      }
      this.#write(entry);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      reportDmaError(this.#port.log, 'completion queue cannot be reached', { cqn: this.number }, error);
      this.fail(CQ_ERROR_SYNDROME.ACCESS);
      return;
    }
    if (wantsSolicited) this.#lastSolicited = this.#producer;
    this.#sinceEvent++;
    if (this.#arm === 'any' || (this.#arm === 'solicited' && wantsSolicited)) this.#notify();
  }

  /**
   * The consumer at `consumer` wants an event for the next entry; entries it has not seen count when nobody told it.
   */
  arm(consumer: number, solicitedOnly: boolean): void {
    this.#arm = solicitedOnly ? 'solicited' : 'any';
    const newest = solicitedOnly ? this.#lastSolicited : this.#producer;
    const { indices } = this.#ring;
    if (indices.isAfter(newest, consumer) && indices.isAfter(newest, this.#notified)) this.#fire();
  }

  fail(syndrome: number): void {
    this.#failed = true;
    const data = eqeCqErr.create();
    eqeCqErr.fill(data, { cqn: this.number, syndrome });
    this.#port.log.info('completion queue error', { cqn: this.number, syndrome });
    this.#events.post(EVENT.CQ_ERROR, 0, data);
  }

  /**
   * Moves to another ring: a RESIZE entry ends the old one. Throws {@link CommandError} when what the consumer has not
   * taken does not fit.
   */
  resize(ring: EntryRing): void {
    const waiting = ring.indices.used(this.#producer, this.#consumer());
    const { entries } = ring.indices;
    if (waiting >= entries) {
      throw new CommandError(STATUS.BAD_SIZE_OUTSTANDING_CQES, `${waiting} entries do not fit a ring of ${entries}`);
    }
    const marker = new DataView(new ArrayBuffer(CQE.BYTES));
    setOutcome(marker, CQE_OPCODE.RESIZE, false);
    this.#write(marker);
    this.#ring.buffer.release();
    this.#ring = ring;
  }

  release(): void {
    this.#moderation?.cancel();
    this.#ring.buffer.release();
  }

  /** The context as a query shows it. */
  describe(target: DataView): void {
    bytesOf(target).set(bytesOf(this.context));
    cqc.set(target, 'producer_counter', this.#producer);
    cqc.set(target, 'status', this.#failed ? 0x9 : 0);
  }

  inspect(): unknown {
    return {
      cqn: this.number,
      producer: this.#producer,
      arm: this.#arm,
      failed: this.#failed,
      size: this.#ring.indices.entries,
    };
  }

  #write(entry: DataView): void {
    const { buffer, indices, entryBytes } = this.#ring;
    const last = entry.getUint8(CQE.OP_OWN);
    // Error entries have their syndrome where others have the time.
    if (last >>> 4 < CQE_OPCODE.REQUESTER_ERROR) entry.setBigUint64(CQE.TIMESTAMP, deviceTicks(this.#port.clock));
    entry.setUint8(CQE.OP_OWN, (last & 0xfe) | (indices.round(this.#producer) & 1));
    const slot = indices.slot(this.#producer) * entryBytes;
    writeEntry(buffer, this.#port.dma, slot + entryBytes - CQE.BYTES, bytesOf(entry));
    this.#producer = indices.advance(this.#producer);
  }

  #isFull(): boolean {
    if (cqc.get(this.context, 'oi') === 1) return false;
    return this.#ring.indices.isFull(this.#producer, this.#consumer());
  }

  #consumer(): number {
    return this.#port.dma.readU32BE(this.#doorbellRecord) % INDEX_RANGE;
  }

  /** Now, or when `cq_max_count` entries or `cq_period` microseconds have gathered. */
  #notify(): void {
    const period = cqc.get(this.context, 'cq_period');
    const count = cqc.get(this.context, 'cq_max_count');
    if (period === 0 || count <= 1 || this.#sinceEvent >= count) {
      this.#fire();
      return;
    }
    this.#moderation ??= this.#port.clock.after(period / 1000, () => {
      this.#moderation = undefined;
      if (this.#arm !== 'none') this.#fire();
    });
  }

  #fire(): void {
    this.#moderation?.cancel();
    this.#moderation = undefined;
    this.#arm = 'none';
    this.#sinceEvent = 0;
    this.#notified = this.#producer;
    const data = eqeComp.create();
    eqeComp.set(data, 'cqn', this.number);
    const eqn = cqc.get(this.context, 'c_eqn_or_apu_element') & 0xff;
    this.#events.find(eqn)?.post(EVENT.COMPLETION, 0, data);
  }
}

/** MODIFY_CQ with op_mod 0: which fields (mlx5_ifc.h modify_field_select). */
const MODIFY_FIELD = { PERIOD: 1, MAX_COUNT: 2, OVERRUN_IGNORE: 4, EQN: 8 } as const;
const MODIFY_FIELDS: readonly [
  number,
  readonly ('cq_period' | 'cq_period_mode' | 'cq_max_count' | 'oi' | 'c_eqn_or_apu_element')[],
][] = [
  [MODIFY_FIELD.PERIOD, ['cq_period', 'cq_period_mode']],
  [MODIFY_FIELD.MAX_COUNT, ['cq_max_count']],
  [MODIFY_FIELD.OVERRUN_IGNORE, ['oi']],
  [MODIFY_FIELD.EQN, ['c_eqn_or_apu_element']],
];
const OP_MOD_RESIZE = 1;

export class CompletionQueues {
  readonly #port: Pick<FunctionPort, 'dma' | 'clock' | 'log'>;
  readonly #events: EventQueues;
  readonly #budget: HeapBudget;
  readonly #queues: ObjectTable<CompletionQueue>;

  constructor(
    port: Pick<FunctionPort, 'dma' | 'clock' | 'log'>,
    events: EventQueues,
    budget: HeapBudget,
    limit: number,
  ) {
    this.#port = port;
    this.#events = events;
    this.#budget = budget;
    this.#queues = objectTable('completion queue', 0x400, 0xffffff, limit);
  }

  get commands(): CommandTable {
    return {
      CREATE_CQ: (call) => this.#create(call),
      DESTROY_CQ: (call) => this.#queues.remove(call.number).release(),
      QUERY_CQ: (call) => this.#queues.get(call.number).describe(queryCqOut.part(call.output, 'cq_context')),
      MODIFY_CQ: (call) => this.#modify(call),
    };
  }

  get count(): number {
    return this.#queues.size;
  }

  find(number: number): CompletionQueue | undefined {
    return this.#queues.find(number);
  }

  /** Throws {@link CommandError} when there is none. */
  get(number: number): CompletionQueue {
    return this.#queues.get(number);
  }

  inspect(): unknown {
    return [...this.#queues.values()].map((queue) => queue.inspect());
  }

  #create(call: CommandCall): void {
    const context = copyOf(createCqIn.part(call.input, 'cq_context'));
    const eqn = cqc.get(context, 'c_eqn_or_apu_element') & 0xff;
    if (this.#events.find(eqn) === undefined) {
      throw new CommandError(STATUS.BAD_RESOURCE, `there is no event queue ${eqn}`);
    }
    const number = this.#queues.add((cqn) => {
      const ring = this.#ring(call, context, createCqIn.byteOf('pas'));
      return new CompletionQueue(this.#port, this.#events, cqn, ring, context);
    });
    call.answerNumber(number);
  }

  #modify(call: CommandCall): void {
    const queue = this.#queues.get(call.number);
    const context = modifyCqIn.part(call.input, 'cq_context');
    if (call.opMod === OP_MOD_RESIZE) {
      cqc.set(context, 'cqe_sz', cqc.get(queue.context, 'cqe_sz'));
      const ring = this.#ring(call, context, modifyCqIn.byteOf('pas'));
      try {
        queue.resize(ring);
      } catch (error) {
        ring.buffer.release();
        throw error;
      }
      for (const field of ['log_cq_size', 'page_offset', 'log_page_size'] as const) {
        cqc.set(queue.context, field, cqc.get(context, field));
      }
      return;
    }
    const select = modifyCqIn.get(call.input, 'modify_field_select_resize_field_select');
    for (const [bit, fields] of MODIFY_FIELDS) {
      if ((select & bit) === 0) continue;
      for (const field of fields) cqc.set(queue.context, field, cqc.get(context, field));
    }
  }

  #ring(call: CommandCall, context: DataView, listStart: number): EntryRing {
    const logSize = cqc.get(context, 'log_cq_size');
    if (logSize > MAX_LOG_SIZE) {
      throw new CommandError(STATUS.BAD_PARAMETER, `a completion queue of 2^${logSize} entries`);
    }
    const entryBytes = ENTRY_BYTES[cqc.get(context, 'cqe_sz')];
    if (entryBytes === undefined) throw new CommandError(STATUS.BAD_PARAMETER, 'cqe_sz is not 0, 1 or 2');
    const buffer = new GuestBuffer(this.#port.dma, this.#budget, call, {
      listStart,
      logPageSize: cqc.get(context, 'log_page_size'),
      pageOffset: cqc.get(context, 'page_offset'),
      sizeBytes: 2 ** logSize * entryBytes,
    });
    return { buffer, indices: new Ring({ entries: 2 ** logSize, counterRange: INDEX_RANGE }), entryBytes };
  }
}
