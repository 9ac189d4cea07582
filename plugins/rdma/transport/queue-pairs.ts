/** Commands of queue pairs, and the multicast groups they join. */
import type { FunctionPort } from 'ghostbus';
import { LIMITS } from '../firmware/capabilities.js';
import { type CommandCall, CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { attachToMcgIn, createQpIn, queryQpOut, rst2initQpIn } from '../layouts/commands.js';
import { qpc } from '../layouts/contexts.js';
import { bytesOf, copyOf, subview } from '../layouts/layout.js';
import { GuestBuffer } from '../memory/guest-buffer.js';
import type { HeapBudget } from '../memory/heap-budget.js';
import {
  QP_STATE,
  QueuePair,
  type QueuePairHost,
  receiveRingBytes,
  SERVICE,
  sendRingBytes,
} from '../queues/queue-pair.js';
import { applyTransition, type TRANSITIONS } from '../queues/queue-pair-transitions.js';
import type { WorkQueue, WorkQueues } from '../queues/work-queues.js';
import { WELL_KNOWN_QPN } from './datagram.js';
import { Responder, type ResponderHost, type Responders } from './responder.js';
import { SendEngine, type SendEngineHost } from './send-engine.js';

const SERVICES: readonly number[] = Object.values(SERVICE);
const GID_BYTES = 16;

/** What queue pairs and their halves need of their adapter. */
export interface QueuePairsHost extends QueuePairHost, SendEngineHost, ResponderHost {
  readonly port: Pick<FunctionPort, 'dma' | 'clock' | 'log'>;
  readonly budget: HeapBudget;
  readonly workQueues: WorkQueues;
  readonly memoryKeys: ResponderHost['memoryKeys'] & SendEngineHost['memoryKeys'];
  readonly counters: ResponderHost['counters'] & SendEngineHost['counters'];
  readonly vport: QueuePairHost['vport'] & SendEngineHost['vport'] & ResponderHost['vport'];
}

/** A queue pair and its two halves. */
class Endpoint implements WorkQueue {
  readonly qp: QueuePair;
  readonly requester: SendEngine;
  readonly responder: Responder;

  constructor(host: QueuePairsHost, qp: QueuePair) {
    this.qp = qp;
    this.requester = new SendEngine(host, qp);
    this.responder = new Responder(host, qp);
  }

  ring(): void {
    this.requester.ring();
  }

  release(): void {
    this.qp.release();
  }

  inspect(): unknown {
    const { number, service, state, context, sendQueue } = this.qp;
    const remote = qpc.get(context, 'remote_qpn');
    return { qpn: number, service, state, remote, sent: sendQueue?.consumer, paused: this.requester.isPaused };
  }
}

export class QueuePairs implements Responders {
  readonly #host: QueuePairsHost;
  /** Multicast group (hexadecimal GID) to queue pair numbers. */
  readonly #groups = new Map<string, Set<number>>();

  constructor(host: QueuePairsHost) {
    this.#host = host;
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

  /** Throws {@link CommandError} when there is none. */
  get(number: number): QueuePair {
    return this.#endpoint(number).qp;
  }

  find(number: number): Responder | undefined {
    const queue = this.#host.workQueues.find(number);
    return queue instanceof Endpoint ? queue.responder : undefined;
  }

  findForDatagram(number: number): Responder | undefined {
    if (number === WELL_KNOWN_QPN.GENERAL_SERVICES) return this.#special(SERVICE.QP1);
    if (number === WELL_KNOWN_QPN.SUBNET_MANAGEMENT) return this.#special(SERVICE.QP0);
    return this.find(number);
  }

  members(gid: Uint8Array): Responder[] {
    const numbers = [...(this.#groups.get(hex(gid)) ?? [])];
    const found = numbers.map((number) => this.find(number));
    return found.filter((responder) => responder !== undefined).filter(({ qp }) => qp.canReceive);
  }

  inspect(): unknown {
    return [...this.#all()].map((endpoint) => endpoint.inspect());
  }

  /** The queue pair with a special role: the newest, if the driver made several. */
  #special(service: number): Responder | undefined {
    return [...this.#all()].filter(({ qp }) => qp.service === service).pop()?.responder;
  }

  *#all(): IterableIterator<Endpoint> {
    for (const queue of this.#host.workQueues.values()) if (queue instanceof Endpoint) yield queue;
  }

  #endpoint(number: number): Endpoint {
    const queue = this.#host.workQueues.find(number);
    if (queue instanceof Endpoint) return queue;
    throw new CommandError(STATUS.BAD_RESOURCE, `there is no queue pair ${number}`);
  }

  #create(call: CommandCall): void {
    const context = copyOf(createQpIn.part(call.input, 'qpc'));
    const service = qpc.get(context, 'st');
    if (!SERVICES.includes(service)) {
      throw new CommandError(STATUS.BAD_PARAMETER, `transport service ${service} is not offered`);
    }
    qpc.set(context, 'state', QP_STATE.RESET);
    const number = this.#host.workQueues.add((qpn) => {
      const sizeBytes = receiveRingBytes(context) + sendRingBytes(context);
      const buffer = sizeBytes === 0 ? undefined : this.#buffer(call, context, sizeBytes);
      return new Endpoint(this.#host, new QueuePair(this.#host, qpn, context, buffer));
    });
    call.answerNumber(number);
  }

  #buffer(call: CommandCall, context: DataView, sizeBytes: number): GuestBuffer {
    return new GuestBuffer(this.#host.port.dma, this.#host.budget, call, {
      listStart: createQpIn.byteOf('pas'),
      logPageSize: qpc.get(context, 'log_page_size'),
      pageOffset: qpc.get(context, 'page_offset'),
      sizeBytes,
    });
  }

  #destroy(number: number): void {
    const qp = this.get(number);
    for (const group of this.#groups.values()) group.delete(number);
    this.#host.workQueues.remove(number);
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
    const { qp, requester } = this.#endpoint(call.number);
    const given = subview(call.input, rst2initQpIn.byteOf('qpc'), qpc.sizeBytes);
    applyTransition(qp, name, given, rst2initQpIn.get(call.input, 'opt_param_mask'));
    if (qp.state === QP_STATE.RTS) requester.ring();
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
