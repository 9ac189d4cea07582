/** Shared receive queues: the driver makes a basic one as an RMP (receive memory pool), an XRC one as an XRC_SRQ. */
import type { FunctionPort } from 'ghostbus';
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { type ObjectTable, objectTable } from '../firmware/object-table.js';
import {
  armXrcSrqIn,
  createRmpIn,
  createXrcSrqIn,
  modifyRmpIn,
  queryRmpOut,
  queryXrcSrqOut,
} from '../layouts/commands.js';
import { rmpc, wq, xrcSrqc } from '../layouts/contexts.js';
import { bytesOf, copyOf, subview } from '../layouts/layout.js';
import { GuestBuffer } from '../memory/guest-buffer.js';
import type { HeapBudget } from '../memory/heap-budget.js';
import { doorbellAddress } from './doorbell-record.js';
import { EVENT, type EventQueues } from './event-queue.js';
import { MAX_STRIDE_BYTES, ReceiveList } from './receive-queue.js';

/** What connections of other processes need to use a shared queue by number. */
export interface XrcRole {
  readonly domain: number;
  readonly completionQueue: number;
  readonly userIndex: number;
}

/** A shared queue; `xrc` when connections of other processes may use it by number. */
export interface SharedReceiveQueue {
  readonly list: ReceiveList;
  /** rmpc or xrc_srqc, our own copy. */
  readonly context: DataView;
  readonly xrc: XrcRole | undefined;
}

/** modify_rmp_in.bitmask, lowest bit: wq.lwm (mlx5_ifc.h rmp_bitmask). */
const BITMASK_LIMIT = 1n;
/** xrc_srqc.log_rq_stride counts from 16 bytes. */
const STRIDE_UNIT_BYTES = 16;
/** The longest ring: 2^15 entries, as the capabilities say. */
const MAX_LOG_SIZE = 16;

export class SharedReceiveQueues {
  readonly #port: Pick<FunctionPort, 'dma'>;
  readonly #events: EventQueues;
  readonly #budget: HeapBudget;
  readonly #queues: ObjectTable<SharedReceiveQueue>;

  constructor(port: Pick<FunctionPort, 'dma'>, events: EventQueues, budget: HeapBudget, limit: number) {
    this.#port = port;
    this.#events = events;
    this.#budget = budget;
    this.#queues = objectTable('shared receive queue', 0x100, 0xffffff, limit);
  }

  get commands(): CommandTable {
    return {
      CREATE_RMP: (call) => this.#createRmp(call),
      MODIFY_RMP: (call) => this.#modifyRmp(call),
      QUERY_RMP: (call) => this.#queryRmp(call),
      DESTROY_RMP: (call) => this.#queues.remove(call.number).list.release(),
      CREATE_XRC_SRQ: (call) => this.#createXrc(call),
      QUERY_XRC_SRQ: (call) => {
        const queue = this.#queues.get(call.number);
        const target = queryXrcSrqOut.part(call.output, 'xrc_srq_context_entry');
        bytesOf(target).set(bytesOf(queue.context));
        xrcSrqc.set(target, 'lwm', queue.list.limit);
      },
      ARM_XRC_SRQ: (call) => this.#queues.get(call.number).list.armLimit(armXrcSrqIn.get(call.input, 'lwm')),
      DESTROY_XRC_SRQ: (call) => this.#queues.remove(call.number).list.release(),
    };
  }

  get count(): number {
    return this.#queues.size;
  }

  find(number: number): SharedReceiveQueue | undefined {
    return this.#queues.find(number);
  }

  #createRmp(call: CommandCall): void {
    const start = createRmpIn.byteOf('ctx');
    const context = copyOf(subview(call.input, start, rmpc.sizeBytes));
    const queue = rmpc.part(context, 'wq');
    const logSize = wq.get(queue, 'log_wq_sz');
    const strideBytes = 2 ** wq.get(queue, 'log_wq_stride');
    requireSize(logSize, strideBytes);
    const number = this.#queues.add((rmpn) => {
      const buffer = new GuestBuffer(this.#port.dma, this.#budget, call, {
        listStart: start + rmpc.byteOf('wq') + wq.byteOf('pas'),
        logPageSize: wq.get(queue, 'log_wq_pg_sz'),
        pageOffset: wq.get(queue, 'page_offset'),
        sizeBytes: 2 ** logSize * strideBytes,
      });
      const doorbellRecord = doorbellAddress(wq.get64(queue, 'dbr_addr'));
      const place = { buffer, start: 0, logSize, strideBytes, doorbellRecord };
      const list = this.#list(rmpn, wq.get(queue, 'pd'), place);
      return { list, context, xrc: undefined };
    });
    call.answerNumber(number);
  }

  #modifyRmp(call: CommandCall): void {
    const { list, context } = this.#queues.get(call.number);
    if ((modifyRmpIn.get64(call.input, 'bitmask') & BITMASK_LIMIT) === 0n) return;
    const given = subview(call.input, modifyRmpIn.byteOf('ctx') + rmpc.byteOf('wq'), wq.sizeBytes);
    const limit = wq.get(given, 'lwm');
    wq.set(rmpc.part(context, 'wq'), 'lwm', limit);
    list.armLimit(limit);
  }

  #queryRmp(call: CommandCall): void {
    const { list, context } = this.#queues.get(call.number);
    const target = subview(call.output, queryRmpOut.byteOf('rmp_context'), rmpc.sizeBytes);
    bytesOf(target).set(bytesOf(context));
    wq.set(rmpc.part(target, 'wq'), 'lwm', list.limit);
  }

  #createXrc(call: CommandCall): void {
    const context = copyOf(createXrcSrqIn.part(call.input, 'xrc_srq_context_entry'));
    const logSize = xrcSrqc.get(context, 'log_xrc_srq_size');
    const strideBytes = STRIDE_UNIT_BYTES << xrcSrqc.get(context, 'log_rq_stride');
    requireSize(logSize, strideBytes);
    const number = this.#queues.add((srqn) => {
      const buffer = new GuestBuffer(this.#port.dma, this.#budget, call, {
        listStart: createXrcSrqIn.byteOf('pas'),
        logPageSize: xrcSrqc.get(context, 'log_page_size'),
        pageOffset: xrcSrqc.get(context, 'page_offset'),
        sizeBytes: 2 ** logSize * strideBytes,
      });
      const place = { buffer, start: 0, logSize, strideBytes, doorbellRecord: xrcDoorbellRecord(context) };
      return {
        list: this.#list(srqn, xrcSrqc.get(context, 'pd'), place),
        context,
        xrc: {
          domain: xrcSrqc.get(context, 'xrcd'),
          completionQueue: xrcSrqc.get(context, 'cqn'),
          userIndex: xrcSrqc.get(context, 'user_index'),
        },
      };
    });
    call.answerNumber(number);
  }

  #list(number: number, protectionDomain: number, place: ConstructorParameters<typeof ReceiveList>[3]): ReceiveList {
    return new ReceiveList(this.#port.dma, number, protectionDomain, place, () => {
      this.#events.postNumber(EVENT.SRQ_LIMIT, number);
    });
  }
}

/** 62 bits in two pieces: the record is aligned to 4 bytes. */
function xrcDoorbellRecord(context: DataView): number {
  const high = BigInt(xrcSrqc.get(context, 'db_record_addr_h'));
  const low = BigInt(xrcSrqc.get(context, 'db_record_addr_l')) << 2n;
  return doorbellAddress((high << 32n) | low);
}

function requireSize(logSize: number, strideBytes: number): void {
  if (logSize > MAX_LOG_SIZE || strideBytes > MAX_STRIDE_BYTES || strideBytes < STRIDE_UNIT_BYTES) {
    throw new CommandError(STATUS.BAD_PARAMETER, `a shared queue of 2^${logSize} entries of ${strideBytes} bytes`);
  }
}
