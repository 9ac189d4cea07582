/** On-demand paging: page fault events, and the driver's answers to them. */
import type { FunctionPort } from 'ghostbus';
import type { CommandTable } from '../firmware/command.js';
import { memPageFaultInfo } from '../layouts/commands.js';
import { eqePageFault } from '../layouts/entries.js';
import { EVENT, type EventQueues } from '../queues/event-queue.js';
import type { PageMissing } from './access.js';

/** include/linux/mlx5/device.h `enum` of page fault subtypes: a fault described by key and address. */
const SUBTYPE_MEMORY = 2;
/** `struct mlx5_eqe_page_fault`: the driver must answer this one. */
const FLAG_LAST = 0x80;
const PAGE_BYTES = 4096;
/** demand_fault_pages has 20 bits. */
const MAX_PAGES = 2 ** 20 - 1;
const MAX_TOKEN = 2 ** 32 - 1;
/** page_fault_resume_in: the info starts at byte 8. */
const RESUME_INFO = 8;

/** The driver has answered: `failed` when it could not bring the page. */
type Resume = (failed: boolean) => void;

export class PageFaults {
  readonly #port: Pick<FunctionPort, 'log'>;
  readonly #events: EventQueues;
  readonly #pending = new Map<number, Resume>();
  #nextToken = 1;
  raised = 0;

  constructor(port: Pick<FunctionPort, 'log'>, events: EventQueues) {
    this.#port = port;
    this.#events = events;
  }

  get commands(): CommandTable {
    return {
      PAGE_FAULT_RESUME: (call) => {
        const token = memPageFaultInfo.get(call.input, 'fault_token_31_0', RESUME_INFO);
        const failed = memPageFaultInfo.get(call.input, 'error', RESUME_INFO) === 1;
        const resume = this.#pending.get(token);
        if (resume === undefined) {
          this.#port.log.debug('a page fault was resumed that nobody waits for', { token });
          return;
        }
        this.#pending.delete(token);
        resume(failed);
      },
    };
  }

  get pending(): number {
    return this.#pending.size;
  }

  /** Tells the driver. Returns how to forget it; undefined when no event queue listens, so nobody would ever answer. */
  raise(fault: PageMissing, resume: Resume): (() => void) | undefined {
    if (this.#events.subscribers(EVENT.PAGE_FAULT).length === 0) return undefined;
    const token = this.#nextToken;
    this.#nextToken = this.#nextToken === MAX_TOKEN ? 1 : this.#nextToken + 1;
    this.#pending.set(token, resume);
    this.raised++;
    this.#events.post(EVENT.PAGE_FAULT, SUBTYPE_MEMORY, describe(fault, token));
    return () => this.#pending.delete(token);
  }
}

function describe(fault: PageMissing, token: number): DataView {
  const first = Number(fault.address % BigInt(PAGE_BYTES));
  const pages = Math.ceil((first + fault.lengthBytes) / PAGE_BYTES);
  const data = eqePageFault.create();
  eqePageFault.fill(data, {
    flags: FLAG_LAST,
    token31_0: token,
    demand_fault_pages: Math.min(pages, MAX_PAGES),
    mkey: fault.key,
  });
  eqePageFault.set64(data, 'va', BigInt.asUintN(64, fault.address));
  return data;
}
