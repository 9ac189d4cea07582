/**
 * Objects of the Ethernet side: send and receive queues, their interfaces (TIS, TIR), tables of receive queues,
 * steering.
 */
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { objectTable } from '../firmware/object-table.js';
import {
  createRqIn,
  createRqtIn,
  createSqIn,
  createTirIn,
  modifyRqIn,
  modifyRqtIn,
  modifySqIn,
  modifyTirIn,
  queryRqOut,
  querySqOut,
} from '../layouts/commands.js';
import { rqc, rqtc, sqc, tirc, wq } from '../layouts/contexts.js';
import { bytesOf, copyOf, subview } from '../layouts/layout.js';
import { GuestBuffer } from '../memory/guest-buffer.js';
import type { HeapBudget } from '../memory/heap-budget.js';
import { MAX_STRIDE_BYTES } from '../queues/receive-queue.js';
import type { WorkQueues } from '../queues/work-queues.js';
import {
  ETHERNET_HEADER_BYTES,
  type FrameHeaders,
  hashInput,
  matchValueOf,
  PROTOCOL,
  parseFrame,
  toeplitz,
} from './frame.js';
import { EthernetReceiveQueue, type ReceiveQueueHost } from './receive-queue.js';
import { EthernetSendQueue, type SendQueueHost } from './send-queue.js';
import { Steering } from './steering.js';
import { WQ_STATE } from './work-queue-state.js';

/** tirc.disp_type: one receive queue, or one out of a table. */
const DISPATCH = { DIRECT: 0, INDIRECT: 1 } as const;
/** tirc.rx_hash_fn. */
const HASH_TOEPLITZ = 2;
const HASH_KEY_BYTES = 40;
/** rx_hash_field_select: selected fields from bit 2 on count from the least significant: addresses, then ports. */
const SELECT_PORTS = 0xc;
/** modify_tir_in.bitmask, lowest bits (mlx5_ifc.h modify_tir_bitmask): packet merge, hash, self loopback. */
const TIR_BITMASK = { HASH: 1n << 2n } as const;
const MAX_TABLE_ENTRIES = 2048;
/** wq.wq_type: a circle; others (linked list, striding) are not offered. */
const WQ_TYPE_CYCLIC = 1;
const SEND_STRIDE_LOG = 6;
const MAX_LOG_SIZE = 15;

/** What the Ethernet side needs of its adapter. */
export interface EthernetHost extends SendQueueHost, ReceiveQueueHost {
  readonly budget: HeapBudget;
  readonly workQueues: WorkQueues;
}

export class Ethernet {
  readonly #host: EthernetHost;
  readonly steering = new Steering();
  readonly #tirs = objectTable<DataView>('TIR', 1, 0xffffff, 1024);
  readonly #tiss = objectTable<true>('TIS', 1, 0xffffff, 1024);
  readonly #tables = objectTable<{ queues: Uint32Array }>('receive queue table', 1, 0xffffff, 256);

  constructor(host: EthernetHost) {
    this.#host = host;
  }

  get commands(): CommandTable {
    return {
      ...this.steering.commands,
      CREATE_SQ: (call) => this.#createSq(call),
      MODIFY_SQ: (call) =>
        this.#sq(call.number).setState(sqc.get(subview(call.input, modifySqIn.byteOf('ctx')), 'state')),
      QUERY_SQ: (call) =>
        bytesOf(subview(call.output, querySqOut.byteOf('sq_context'))).set(bytesOf(this.#sq(call.number).context)),
      DESTROY_SQ: (call) => this.#destroy(this.#sq(call.number)),
      CREATE_RQ: (call) => this.#createRq(call),
      MODIFY_RQ: (call) =>
        this.#rq(call.number).setState(rqc.get(subview(call.input, modifyRqIn.byteOf('ctx')), 'state')),
      QUERY_RQ: (call) =>
        bytesOf(subview(call.output, queryRqOut.byteOf('rq_context'))).set(bytesOf(this.#rq(call.number).context)),
      DESTROY_RQ: (call) => this.#destroy(this.#rq(call.number)),
      CREATE_TIS: (call) => call.answerNumber(this.#tiss.add(() => true)),
      MODIFY_TIS: (call) => void this.#tiss.get(call.number),
      DESTROY_TIS: (call) => void this.#tiss.remove(call.number),
      CREATE_TIR: (call) => {
        const context = copyOf(subview(call.input, createTirIn.byteOf('ctx'), tirc.sizeBytes));
        call.answerNumber(this.#tirs.add(() => context));
      },
      MODIFY_TIR: (call) => this.#modifyTir(call),
      DESTROY_TIR: (call) => void this.#tirs.remove(call.number),
      CREATE_RQT: (call) => {
        const queues = readTable(call, createRqtIn.byteOf('rqt_context'));
        call.answerNumber(this.#tables.add(() => ({ queues })));
      },
      MODIFY_RQT: (call) => {
        this.#tables.get(call.number).queues = readTable(call, modifyRqtIn.byteOf('ctx'));
      },
      DESTROY_RQT: (call) => void this.#tables.remove(call.number),
    };
  }

  get counts(): Record<string, number> {
    return { tirs: this.#tirs.size, tiss: this.#tiss.size, receiveTables: this.#tables.size, ...this.steering.counts };
  }

  /** A frame from the wire. */
  receive(frame: Uint8Array): void {
    if (frame.length < ETHERNET_HEADER_BYTES) return;
    const headers = parseFrame(frame);
    for (const { tir, tag } of this.steering.steer(matchValueOf(frame, headers), frame.length)) {
      const context = this.#tirs.find(tir);
      if (context !== undefined) this.#dispatch(context, frame, headers, tag);
    }
  }

  #dispatch(context: DataView, frame: Uint8Array, headers: FrameHeaders, tag: number): void {
    if (tirc.get(context, 'disp_type') === DISPATCH.DIRECT) {
      this.#findRq(tirc.get(context, 'inline_rqn'))?.receive(frame, { hash: 0, hashed: false, tag });
      return;
    }
    const table = this.#tables.find(tirc.get(context, 'indirect_table'));
    if (table === undefined || table.queues.length === 0) return;
    const hashed = tirc.get(context, 'rx_hash_fn') === HASH_TOEPLITZ && headers.ipVersion !== 0;
    const hash = hashed ? hashOf(context, frame, headers) : 0;
    this.#findRq(table.queues[hash % table.queues.length]!)?.receive(frame, { hash, hashed, tag });
  }

  #modifyTir(call: CommandCall): void {
    const context = this.#tirs.get(call.number);
    const given = subview(call.input, modifyTirIn.byteOf('ctx'), tirc.sizeBytes);
    if ((modifyTirIn.get64(call.input, 'bitmask') & TIR_BITMASK.HASH) === 0n) return;
    const start = tirc.byteOf('rx_hash_toeplitz_key');
    bytesOf(context).set(bytesOf(subview(given, start, HASH_KEY_BYTES)), start);
    for (const field of ['rx_hash_fn', 'rx_hash_field_selector_outer', 'rx_hash_symmetric'] as const) {
      tirc.set(context, field, tirc.get(given, field));
    }
  }

  #createSq(call: CommandCall): void {
    const start = createSqIn.byteOf('ctx');
    const context = copyOf(subview(call.input, start, sqc.sizeBytes));
    const queue = sqc.part(context, 'wq');
    if (wq.get(queue, 'log_wq_stride') !== SEND_STRIDE_LOG) {
      throw new CommandError(STATUS.BAD_PARAMETER, 'send queues have entries of 64 bytes');
    }
    sqc.set(context, 'state', WQ_STATE.RESET);
    const number = this.#host.workQueues.add(
      (sqn) => new EthernetSendQueue(this.#host, sqn, context, this.#buffer(call, queue, start + sqc.byteOf('wq'))),
    );
    call.answerNumber(number);
  }

  #createRq(call: CommandCall): void {
    const start = createRqIn.byteOf('ctx');
    const context = copyOf(subview(call.input, start, rqc.sizeBytes));
    const queue = rqc.part(context, 'wq');
    if (rqc.get(context, 'mem_rq_type') !== 0 || wq.get(queue, 'wq_type') !== WQ_TYPE_CYCLIC) {
      throw new CommandError(STATUS.BAD_PARAMETER, 'receive queues are circles of their own');
    }
    rqc.set(context, 'state', WQ_STATE.RESET);
    const number = this.#host.workQueues.add(
      (rqn) => new EthernetReceiveQueue(this.#host, rqn, context, this.#buffer(call, queue, start + rqc.byteOf('wq'))),
    );
    call.answerNumber(number);
  }

  #buffer(call: CommandCall, queue: DataView, wqStart: number): GuestBuffer {
    const logSize = wq.get(queue, 'log_wq_sz');
    const strideBytes = 2 ** wq.get(queue, 'log_wq_stride');
    if (logSize > MAX_LOG_SIZE || strideBytes > MAX_STRIDE_BYTES) {
      throw new CommandError(STATUS.BAD_PARAMETER, `a queue of 2^${logSize} entries of ${strideBytes} bytes`);
    }
    return new GuestBuffer(this.#host.port.dma, this.#host.budget, call, {
      listStart: wqStart + wq.byteOf('pas'),
      logPageSize: wq.get(queue, 'log_wq_pg_sz'),
      pageOffset: wq.get(queue, 'page_offset'),
      sizeBytes: 2 ** logSize * strideBytes,
    });
  }

  #destroy(queue: EthernetSendQueue | EthernetReceiveQueue): void {
    this.#host.workQueues.remove(queue.number);
    queue.release();
  }

  #sq(number: number): EthernetSendQueue {
    const queue = this.#host.workQueues.find(number);
    if (queue instanceof EthernetSendQueue) return queue;
    throw new CommandError(STATUS.BAD_RESOURCE, `there is no send queue ${number}`);
  }

  #findRq(number: number): EthernetReceiveQueue | undefined {
    const queue = this.#host.workQueues.find(number);
    return queue instanceof EthernetReceiveQueue ? queue : undefined;
  }

  #rq(number: number): EthernetReceiveQueue {
    const queue = this.#findRq(number);
    if (queue === undefined) throw new CommandError(STATUS.BAD_RESOURCE, `there is no receive queue ${number}`);
    return queue;
  }
}

function hashOf(context: DataView, frame: Uint8Array, headers: FrameHeaders): number {
  const selector = tirc.get(context, 'rx_hash_field_selector_outer');
  const hasPorts = headers.protocol === PROTOCOL.TCP || headers.protocol === PROTOCOL.UDP;
  const key = bytesOf(subview(context, tirc.byteOf('rx_hash_toeplitz_key'), HASH_KEY_BYTES));
  return toeplitz(key, hashInput(frame, headers, hasPorts && (selector & SELECT_PORTS) !== 0));
}

function readTable(call: CommandCall, start: number): Uint32Array {
  const size = rqtc.get(call.input, 'rqt_actual_size', start);
  if (size > MAX_TABLE_ENTRIES) throw new CommandError(STATUS.LIMIT_EXCEEDED, `a table of ${size} receive queues`);
  const listStart = start + rqtc.byteOf('rq_num');
  call.bytes(listStart, 4 * size);
  return Uint32Array.from({ length: size }, (_, index) => call.input.getUint32(listStart + 4 * index) & 0xffffff);
}
