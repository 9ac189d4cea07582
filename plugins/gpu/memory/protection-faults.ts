import type { RegisterBlock } from 'ghostbus';
import { BitFields32, type FloodGuard } from 'ghostbus/kit';
import type { Mmio } from '../bus/mmio.js';
import { hex } from '../bus/registers.js';
import { IH_CLIENT, IH_SOURCE, type InterruptHandler } from '../interrupts/ih.js';
import type { VmFault } from './address-space.js';
import type { AccessKind } from './page-tables.js';

export type HubName = 'gfxhub' | 'mmhub';

/**
 * Distances of the fault registers from the hub's VM_L2_CNTL, in dwords; gc_9_0_offset.h and mmhub_1_7_offset.h agree.
 */
const FAULT_REGISTERS = { CNTL: 0x7, STATUS: 0xb, ADDR: 0xc } as const;

/** VM_L2_PROTECTION_FAULT_CNTL (gc_9_0_sh_mask.h; names without PROTECTION_FAULT). */
const FAULT_CNTL = new BitFields32({ CLEAR_STATUS_ADDR: [0, 1], ALLOW_SUBSEQUENT_STATUS_ADDR_UPDATES: [1, 1] });

/** VM_L2_PROTECTION_FAULT_STATUS (gc_9_0_sh_mask.h). */
const FAULT_STATUS = new BitFields32({
  MORE_FAULTS: [0, 1],
  PERMISSION_FAULTS: [4, 4],
  CID: [9, 9],
  RW: [18, 1],
  VMID: [20, 4],
});

/**
 * Interrupt enables of a context by what is missing (gc_9_0_sh_mask.h VM_CONTEXT1_CNTL,
 * *_PROTECTION_FAULT_ENABLE_INTERRUPT).
 */
const FAULT_INTERRUPT = new BitFields32({ invalid: [15, 1], read: [17, 1], write: [19, 1] });

/** PERMISSION_FAULTS: what was missing. */
const PERMISSION_FAULT = { invalid: 1, read: 2, write: 4 } as const;

/** Second data dword of a fault's vector (gmc_v9_0_process_interrupt). */
const VECTOR_FLAGS = new BitFields32({ PAGE_HIGH: [0, 4], WRITE: [5, 1], RETRY: [7, 1] });
/** Its ring (kfd_int_process_v9.c event_interrupt_wq_v9, memory exceptions). */
const VECTOR_RING = new BitFields32({ INVALID: [3, 1], READ: [4, 1], WRITE: [5, 1] });

/** Pages of one access that are reported one by one; the rest only shows as MORE_FAULTS. */
const REPORTED_PAGES = 64;

const PAGE_BYTES = 4096;

/** Faults on demand: in `pages` pages from `address` on; `retry`: as an engine with retries on would report them. */
export interface InjectedFault {
  readonly vmid: number;
  readonly address: number;
  readonly access: AccessKind;
  readonly retry: boolean;
  readonly pages: number;
}

interface ProtectionFaultsParts {
  readonly hub: HubName;
  /** VM_L2_CNTL. */
  readonly firstDword: number;
  readonly mmio: Mmio;
  readonly interrupts: InterruptHandler;
  readonly log: FloodGuard;
  /** VM_CONTEXTn_CNTL, where a VMID's fault interrupts are enabled. */
  contextControl(vmid: number): number;
}

/** The faults of one hub: latched in its registers, told to the driver by interrupts. */
export class ProtectionFaults {
  readonly #parts: ProtectionFaultsParts;
  readonly #registers: RegisterBlock<'CNTL' | 'STATUS' | 'ADDR'>;
  #count = 0;
  #last = '';

  constructor(parts: ProtectionFaultsParts) {
    this.#parts = parts;
    const at = (register: keyof typeof FAULT_REGISTERS) => parts.firstDword + FAULT_REGISTERS[register];
    this.#registers = parts.mmio.declare(`${parts.hub} faults`, {
      CNTL: {
        dw: at('CNTL'),
        onWrite: (value) => {
          if (FAULT_CNTL.has(value, 'CLEAR_STATUS_ADDR')) this.#latch(0, 0);
          // Clears itself.
          return FAULT_CNTL.set(value, 'CLEAR_STATUS_ADDR', 0);
        },
      },
      STATUS: { dw: at('STATUS'), writable: 0 },
      ADDR: { dw: at('ADDR'), count: 2, writable: 0 },
    });
  }

  /**
   * A fault as the hub reports it. Requests here never ask for a retry (see README), so that the access is over: it
   * read zero or was dropped. What the bus refused is no fault of translation and only counted.
   */
  raise(fault: VmFault): void {
    const { hub, log } = this.#parts;
    this.#count++;
    this.#last = `${fault.kind} of ${hex(fault.address)} in VMID ${fault.vmid}: ${fault.reason}`;
    if (fault.cause === 'bus' || !this.#report(fault, false))
      log.source('fault').warn(`${hub}: ${this.#last}, not reported to the driver`);
    else if (this.#count === 1) log.info(`${hub}: first page fault, a ${this.#last}`);
  }

  /** Sends faults of a client that no access caused: for `ghostbus ctl`. Returns whether they are reported. */
  inject({ vmid, address, access: kind, retry, pages }: InjectedFault, client: number): boolean {
    const fault = { vmid, lengthBytes: 1, kind, cause: 'invalid', reason: 'on demand', client } as const;
    let reported = false;
    for (let page = 0; page < pages; page++)
      reported = this.#report({ ...fault, address: address + page * PAGE_BYTES }, retry);
    return reported;
  }

  /** Latches the fault and interrupts, page by page; false when the context's interrupts are off. */
  #report(fault: VmFault, retry: boolean): boolean {
    const missing = fault.cause === 'invalid' ? 'invalid' : fault.kind;
    const first = Math.floor(fault.address / PAGE_BYTES);
    const last = Math.floor((fault.address + fault.lengthBytes - 1) / PAGE_BYTES);
    this.#latch(this.#status(fault), first);
    if (last > first) this.#latch(this.#status(fault), first);
    if (!FAULT_INTERRUPT.has(this.#parts.contextControl(fault.vmid), missing)) return false;
    for (let page = first; page <= last && page < first + REPORTED_PAGES; page++) this.#interrupt(fault, page, retry);
    return true;
  }

  #status({ cause, kind, client, vmid }: VmFault): number {
    return FAULT_STATUS.pack({
      PERMISSION_FAULTS: (cause === 'invalid' ? PERMISSION_FAULT.invalid : 0) | PERMISSION_FAULT[kind],
      CID: client,
      RW: kind === 'write' ? 1 : 0,
      VMID: vmid,
    });
  }

  /** The first fault stays until the driver clears it; a further one only sets MORE_FAULTS. Status 0 clears. */
  #latch(status: number, page: number): void {
    const registers = this.#registers;
    const held = registers.get('STATUS');
    const updates = FAULT_CNTL.has(registers.get('CNTL'), 'ALLOW_SUBSEQUENT_STATUS_ADDR_UPDATES');
    const replaces = held === 0 || status === 0 || updates;
    registers.set('STATUS', replaces ? status : FAULT_STATUS.set(held, 'MORE_FAULTS', 1));
    if (!replaces) return;
    registers.set('ADDR', page % 2 ** 32, 0);
    registers.set('ADDR', Math.floor(page / 2 ** 32) & 0xf, 1);
  }

  /**
   * The vector that gmc_v9_0_process_interrupt decodes; the ring id carries what amdkfd reads from it
   * (kfd_int_process_v9.c).
   */
  #interrupt({ vmid, kind, cause }: VmFault, page: number, retry: boolean): void {
    const { hub, interrupts } = this.#parts;
    const write = kind === 'write';
    const pageHigh = Math.floor(page / 2 ** 32);
    const flags = VECTOR_FLAGS.pack({ PAGE_HIGH: pageHigh, WRITE: write ? 1 : 0, RETRY: retry ? 1 : 0 });
    const vector = {
      client: hub === 'gfxhub' ? IH_CLIENT.UTCL2 : IH_CLIENT.VMC,
      source: IH_SOURCE.VM_FAULT,
      ring: VECTOR_RING.pack({ INVALID: cause === 'invalid' ? 1 : 0, READ: write ? 0 : 1, WRITE: write ? 1 : 0 }),
      vmid,
      vmidSource: hub === 'gfxhub' ? 0 : 1,
      pasid: interrupts.pasid(hub, vmid),
      data: [page % 2 ** 32, flags, 0, 0],
    } as const;
    if (retry) interrupts.raiseRetry(vector, page);
    else interrupts.raise(vector);
  }

  inspect(): { readonly faults: number; readonly lastFault: string } {
    return { faults: this.#count, lastFault: this.#last };
  }
}
