/** Commands of queue pairs, and the multicast groups they join. */
import type { Adapter } from '../adapter.js';
import { LIMITS } from '../firmware/capabilities.js';
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { attachToMcgIn, createQpIn, queryQpOut, rst2initQpIn } from '../layouts/commands.js';
import { qpc } from '../layouts/contexts.js';
import { bytesOf, copyOf, subview } from '../layouts/layout.js';
import { GuestBuffer } from '../memory/guest-buffer.js';
import {
  applyTransition,
  QP_STATE,
  QueuePair,
  receiveRingBytes,
  SERVICE,
  sendRingBytes,
  type TRANSITIONS,
} from '../queues/queue-pair.js';

const SERVICES: readonly number[] = Object.values(SERVICE);
const GID_BYTES = 16;

export class QueuePairs {
  readonly #adapter: Adapter;
  /** Multicast group (hexadecimal GID) to queue pair numbers. */
  readonly #groups = new Map<string, Set<number>>();

  constructor(adapter: Adapter) {
    this.#adapter = adapter;
  }

  get commands(): CommandTable {
    return {
      CREATE_QP: (call) => this.#create(call),
      DESTROY_QP: (call) => this.#destroy(call.number),
      QUERY_QP: (call) => this.#query(call),
      RST2INIT_QP: (call) => this.#transition(call, 'RST2INIT_QP'),
      INIT2INIT_QP: (call) => this.#transition(call, 'INIT2INIT_QP'),
      INIT2RTR_QP: (call) => this.#transition(call, 'INIT2RTR_QP'),
      RTR2RTS_QP: (call) => this.#transition(call, 'RTR2RTS_QP'),
      RTS2RTS_QP: (call) => this.#transition(call, 'RTS2RTS_QP'),
      SQERR2RTS_QP: (call) => this.#transition(call, 'SQERR2RTS_QP'),
      TO_ERR_QP: (call) => this.get(call.number).enterError(),
      TO_RST_QP: (call) => this.get(call.number).resetState(),
      ATTACH_TO_MCG: (call) => this.#attach(call),
      DETACH_FROM_MCG: (call) => this.#detach(call),
    };
  }

  get count(): number {
    return [...this.#all()].length;
  }

  find(number: number): QueuePair | undefined {
    const queue = this.#adapter.workQueues.find(number);
    return queue?.kind === 'queue pair' ? queue : undefined;
  }

  /** Throws {@link CommandError} when there is none. */
  get(number: number): QueuePair {
    const qp = this.find(number);
    if (qp === undefined) throw new CommandError(STATUS.BAD_RESOURCE, `there is no queue pair ${number}`);
    return qp;
  }

  /** The queue pair with a special role: the newest, if the driver made several. */
  special(service: number): QueuePair | undefined {
    return [...this.#all()].filter((qp) => qp.service === service).pop();
  }

  members(gid: Uint8Array): QueuePair[] {
    const numbers = [...(this.#groups.get(hex(gid)) ?? [])];
    return numbers.map((number) => this.find(number)).filter((qp) => qp?.canReceive === true) as QueuePair[];
  }

  inspect(): unknown {
    return [...this.#all()].map((qp) => qp.inspect());
  }

  *#all(): IterableIterator<QueuePair> {
    for (const queue of this.#adapter.workQueues.values()) if (queue.kind === 'queue pair') yield queue;
  }

  #create(call: CommandCall): void {
    const context = copyOf(createQpIn.part(call.input, 'qpc'));
    const service = qpc.get(context, 'st');
    if (!SERVICES.includes(service)) {
      throw new CommandError(STATUS.BAD_PARAMETER, `transport service ${service} is not offered`);
    }
    qpc.set(context, 'state', QP_STATE.RESET);
    const number = this.#adapter.workQueues.add((qpn) => {
      const sizeBytes = receiveRingBytes(context) + sendRingBytes(context);
      const buffer = sizeBytes === 0 ? undefined : this.#buffer(call, context, sizeBytes);
      return new QueuePair(this.#adapter, qpn, context, buffer);
    });
    call.answerNumber(number);
  }

  #buffer(call: CommandCall, context: DataView, sizeBytes: number): GuestBuffer {
    return new GuestBuffer(this.#adapter.port.dma, this.#adapter.budget, call, {
      listStart: createQpIn.byteOf('pas'),
      logPageSize: qpc.get(context, 'log_page_size'),
      pageOffset: qpc.get(context, 'page_offset'),
      sizeBytes,
    });
  }

  #destroy(number: number): void {
    const qp = this.get(number);
    for (const group of this.#groups.values()) group.delete(number);
    this.#adapter.workQueues.remove(number);
    qp.release();
  }

  #query(call: CommandCall): void {
    const qp = this.get(call.number);
    const target = subview(call.output, queryQpOut.byteOf('qpc'), qpc.sizeBytes);
    bytesOf(target).set(bytesOf(qp.context));
    const sent = qp.sendQueue?.consumer ?? 0;
    qpc.set(target, 'hw_sq_wqebb_counter', sent);
  }

  #transition(call: CommandCall, name: keyof typeof TRANSITIONS): void {
    const qp = this.get(call.number);
    const given = subview(call.input, rst2initQpIn.byteOf('qpc'), qpc.sizeBytes);
    applyTransition(qp, name, given, rst2initQpIn.get(call.input, 'opt_param_mask'));
    if (qp.state === QP_STATE.RTS) qp.ring();
  }

  #attach(call: CommandCall): void {
    const gid = groupOf(call);
    const qp = this.get(call.number);
    const members = this.#groups.get(gid) ?? new Set();
    if (members.size >= LIMITS.multicastMembers || this.#groups.size > 2 ** LIMITS.logMulticastGroups) {
      throw new CommandError(STATUS.LIMIT_EXCEEDED, 'no more members or groups');
    }
    members.add(qp.number);
    this.#groups.set(gid, members);
  }

  #detach(call: CommandCall): void {
    const gid = groupOf(call);
    const members = this.#groups.get(gid);
    if (members?.delete(call.number) !== true) {
      throw new CommandError(STATUS.BAD_RESOURCE, `queue pair ${call.number} is not in that group`);
    }
    if (members.size === 0) this.#groups.delete(gid);
  }
}

function groupOf(call: CommandCall): string {
  return hex(bytesOf(subview(call.input, attachToMcgIn.byteOf('multicast_gid'), GID_BYTES)));
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
