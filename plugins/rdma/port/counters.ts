/** Counter sets of queue pairs (Q counters) and of the port. */
import { LIMITS } from '../firmware/capabilities.js';
import type { CommandTable } from '../firmware/command.js';
import { objectTable } from '../firmware/object-table.js';
import {
  allocQCounterOut,
  deallocQCounterIn,
  queryQCounterIn,
  queryQCounterOut,
  queryVportCounterIn,
  queryVportCounterOut,
} from '../layouts/commands.js';
import { trafficCounter } from '../layouts/contexts.js';
import { SYNDROME, type Syndrome } from '../queues/completion-entry.js';

export type QCounter = Exclude<keyof typeof queryQCounterOut.fields, 'status' | 'syndrome'>;
export type Traffic = Exclude<keyof typeof queryVportCounterOut.fields, 'status' | 'syndrome'>;

/** Which counter an error completion of a requester counts in. */
const REQUESTER_ERRORS: Readonly<Partial<Record<Syndrome, QCounter>>> = {
  [SYNDROME.LOCAL_LENGTH]: 'req_local_length_error',
  [SYNDROME.LOCAL_QP_OPERATION]: 'local_operation_error',
  [SYNDROME.LOCAL_PROTECTION]: 'req_local_protection',
  [SYNDROME.MW_BIND]: 'req_mw_binding',
  [SYNDROME.REMOTE_INVALID_REQUEST]: 'req_remote_invalid_request',
  [SYNDROME.REMOTE_ACCESS]: 'req_remote_access_errors',
  [SYNDROME.REMOTE_OPERATION]: 'req_remote_operation_errors',
  [SYNDROME.TRANSPORT_RETRIES]: 'req_transport_retries_exceeded',
  [SYNDROME.RNR_RETRIES]: 'req_rnr_retries_exceeded',
};
const RESPONDER_ERRORS: Readonly<Partial<Record<Syndrome, QCounter>>> = {
  [SYNDROME.LOCAL_LENGTH]: 'resp_local_length_error',
  [SYNDROME.LOCAL_QP_OPERATION]: 'resp_local_qp_error',
  [SYNDROME.LOCAL_PROTECTION]: 'resp_local_protection',
  [SYNDROME.REMOTE_ACCESS]: 'resp_remote_access_errors',
};

/** Whose events are counted: qpc.counter_set_id names the set, 0 none. */
interface Counted {
  readonly counterSet: number;
}

/** Sets by counter_set_id, which has 8 bits; 0 means none. */
export class Counters {
  readonly #sets = objectTable<Map<QCounter, number>>('counter set', 1, LIMITS.counterSets);
  readonly #traffic = new Map<Traffic, { packets: number; octets: number }>();

  get commands(): CommandTable {
    return {
      ALLOC_Q_COUNTER: (call) =>
        allocQCounterOut.set(
          call.output,
          'counter_set_id',
          this.#sets.add(() => new Map<QCounter, number>()),
        ),
      DEALLOC_Q_COUNTER: (call) => {
        this.#sets.remove(deallocQCounterIn.get(call.input, 'counter_set_id'));
      },
      QUERY_Q_COUNTER: (call) => {
        const number = queryQCounterIn.get(call.input, 'counter_set_id');
        const aggregate = queryQCounterIn.get(call.input, 'aggregate') === 1;
        const sets = aggregate ? [...this.#sets.values()] : [this.#sets.get(number)];
        for (const set of sets) this.#report(set, call.output, queryQCounterIn.get(call.input, 'clear') === 1);
      },
      QUERY_VPORT_COUNTER: (call) => {
        for (const [name, { packets, octets }] of this.#traffic) {
          const at = queryVportCounterOut.byteOf(name);
          trafficCounter.set64(call.output, 'packets', BigInt(packets), at);
          trafficCounter.set64(call.output, 'octets', BigInt(octets), at);
        }
        if (queryVportCounterIn.get(call.input, 'clear') === 1) this.#traffic.clear();
      },
    };
  }

  /** One more in the set of a queue pair, if it has one. */
  add({ counterSet }: Counted, counter: QCounter): void {
    const set = this.#sets.find(counterSet);
    set?.set(counter, (set.get(counter) ?? 0) + 1);
  }

  countRequesterError(qp: Counted, syndrome: Syndrome): void {
    const counter = REQUESTER_ERRORS[syndrome];
    this.add(qp, 'req_cqe_error');
    if (counter !== undefined) this.add(qp, counter);
  }

  countResponderError(qp: Counted, syndrome: Syndrome): void {
    const counter = RESPONDER_ERRORS[syndrome];
    this.add(qp, 'resp_cqe_error');
    if (counter !== undefined) this.add(qp, counter);
  }

  countTraffic(kind: Traffic, packets: number, octets: number): void {
    const counted = this.#traffic.get(kind) ?? { packets: 0, octets: 0 };
    this.#traffic.set(kind, { packets: counted.packets + packets, octets: counted.octets + octets });
  }

  traffic(kind: Traffic): { packets: number; octets: number } {
    return this.#traffic.get(kind) ?? { packets: 0, octets: 0 };
  }

  inspect(): unknown {
    return Object.fromEntries(this.#traffic);
  }

  #report(set: Map<QCounter, number>, output: DataView, clear: boolean): void {
    for (const [counter, value] of set) {
      queryQCounterOut.set(output, counter, queryQCounterOut.get(output, counter) + value);
    }
    if (clear) set.clear();
  }
}
