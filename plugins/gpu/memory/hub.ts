import type { RegisterBlock } from 'ghostbus';
import type { Mmio } from '../bus/mmio.js';
import { bits, hex } from '../bus/registers.js';
import type { GpuHost } from '../host.js';
import { IH_CLIENT, IH_SOURCE, type InterruptHandler } from '../interrupts/ih.js';
import { type AccessKind, AddressSpace, type TranslationContext, type VmFault } from './address-space.js';
import type { FrameBuffer } from './frame-buffer.js';

/** MC address of VRAM's first byte, in units of 16 MiB (MC_VM_FB_LOCATION_BASE; our choice, above every GART). */
const FB_LOCATION_BASE = 0x8000;

/** Distances of the hub's registers from its VM_L2_CNTL, in dwords; gc_9_0_offset.h and mmhub_1_7_offset.h agree. */
const HUB = {
  L2_CNTL: 0x0,
  L2_PROTECTION_FAULT_CNTL: 0x7,
  L2_PROTECTION_FAULT_STATUS: 0xb,
  CONTEXT_CNTL: 0x40,
  INVALIDATE_SEM: 0x51,
  INVALIDATE_REQ: 0x63,
  INVALIDATE_ACK: 0x75,
  INVALIDATE_ADDR_RANGE: 0x87,
  CONTEXT_PT_BASE: 0xab,
  CONTEXT_PT_START: 0xcb,
  CONTEXT_PT_END: 0xeb,
  FB_OFFSET: 0x12b,
  FB_LOCATION: 0x140,
} as const;

export type HubName = 'gfxhub' | 'mmhub';

/** First dword (VM_L2_CNTL) of each hub. */
const HUB_BASE: Readonly<Record<HubName, number>> = { gfxhub: 0x2840, mmhub: 0x1ab80 };

/** Who asks a hub (gmc_v9_0.c gfxhub_client_ids, mmhub_client_ids_aldebaran; SDMA engine n is SDMA0 + n). */
export const HUB_CLIENT = { CPC: 5, MP1: 2, MP0: 3, SDMA0: 256 } as const;
const DEFAULT_CLIENT: Readonly<Record<HubName, number>> = { gfxhub: HUB_CLIENT.CPC, mmhub: HUB_CLIENT.SDMA0 };

/** Interrupt enables of a context: valid, read and write protection faults (gc_9_0_sh_mask.h VM_CONTEXT1_CNTL). */
const FAULT_INTERRUPT = { invalid: 15, read: 17, write: 19 } as const;

/** VM_L2_PROTECTION_FAULT_STATUS PERMISSION_FAULTS: what was missing. */
const PERMISSION_FAULT = { invalid: 1, read: 2, write: 4 } as const;

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

const CONTEXTS = 16;
const INVALIDATE_ENGINES = 18;

/**
 * Where this GPU is in its hive (gfxhub_v1_1.c). MC_VM_XGMI_LFB_CNTL_ALDE: PF_LFB_REGION b3:0 is this node, PF_MAX_REGION b7:4
 * the last one, 0 without a hive; MC_VM_XGMI_LFB_SIZE_ALDE: a segment in units of 16 MiB.
 */
export function declareHive(mmio: Mmio, { hive, vram }: FrameBuffer): void {
  const control = hive === undefined ? 0 : ((hive.nodes.length - 1) << 4) | hive.node;
  mmio.declare('xgmi', {
    XGMI_LFB_CNTL: { dw: 0x2978, writable: 0, reset: control },
    XGMI_LFB_SIZE: { dw: 0x2979, writable: 0, reset: vram.sizeBytes / 2 ** 24 },
  });
}

/**
 * One translation hub: GFXHUB 1.0 serves the command processor, MMHUB 1.7 the SDMA engines. It holds the page table roots
 * of 16 VMIDs and the engines that invalidate cached translations. As nothing is cached, an invalidation is acknowledged
 * in the same breath.
 */
export class Hub {
  readonly name: HubName;
  readonly #host: GpuHost;
  readonly #interrupts: InterruptHandler;
  readonly #registers: RegisterBlock<
    | 'CONTEXT_CNTL'
    | 'CONTEXT_PT_BASE'
    | 'CONTEXT_PT_START'
    | 'CONTEXT_PT_END'
    | 'INVALIDATE_ACK'
    | 'L2_PROTECTION_FAULT_CNTL'
    | 'L2_PROTECTION_FAULT_STATUS'
    | 'L2_PROTECTION_FAULT_ADDR'
  >;
  /** By client and VMID. */
  readonly #spaces = new Map<number, AddressSpace>();
  readonly #spaceOf: (vmid: number, client: number) => AddressSpace;
  readonly #contexts: (TranslationContext | undefined)[] = new Array(CONTEXTS).fill(undefined);
  #invalidations = 0;
  #faults = 0;
  #lastFault = '';

  constructor(name: HubName, host: GpuHost, mmio: Mmio, interrupts: InterruptHandler) {
    this.name = name;
    this.#host = host;
    this.#interrupts = interrupts;
    const base = HUB_BASE[name];
    const { frameBuffer } = host;
    const topOfVram = FB_LOCATION_BASE + frameBuffer.sizeBytes / 2 ** 24 - 1;
    const forget = (_value: number, _previous: number, index: number): undefined => {
      this.#contexts[index >> 1] = undefined;
    };
    this.#registers = mmio.declare(name, {
      CONTEXT_CNTL: {
        dw: base + HUB.CONTEXT_CNTL,
        count: CONTEXTS,
        onWrite: (_value, _previous, index) => {
          this.#contexts[index] = undefined;
          return undefined;
        },
      },
      // Not used on 9.4.2 (gmc_v9_0_use_invalidate_semaphore); 1 = acquired.
      INVALIDATE_SEM: { dw: base + HUB.INVALIDATE_SEM, count: INVALIDATE_ENGINES, writable: 0, reset: 1 },
      INVALIDATE_REQ: {
        dw: base + HUB.INVALIDATE_REQ,
        count: INVALIDATE_ENGINES,
        onWrite: (value, _previous, index) => {
          this.#invalidations++;
          this.#registers.set('INVALIDATE_ACK', value & 0xffff, index);
          return undefined;
        },
      },
      INVALIDATE_ACK: { dw: base + HUB.INVALIDATE_ACK, count: INVALIDATE_ENGINES, writable: 0 },
      INVALIDATE_ADDR_RANGE: { dw: base + HUB.INVALIDATE_ADDR_RANGE, count: 2 * INVALIDATE_ENGINES },
      CONTEXT_PT_BASE: { dw: base + HUB.CONTEXT_PT_BASE, count: 2 * CONTEXTS, onWrite: forget },
      CONTEXT_PT_START: { dw: base + HUB.CONTEXT_PT_START, count: 2 * CONTEXTS, onWrite: forget },
      CONTEXT_PT_END: { dw: base + HUB.CONTEXT_PT_END, count: 2 * CONTEXTS, onWrite: forget },
      L2_PROTECTION_FAULT_CNTL: {
        dw: base + HUB.L2_PROTECTION_FAULT_CNTL,
        onWrite: (value) => {
          // CLEAR_PROTECTION_FAULT_STATUS_ADDR b0 clears itself.
          if (bits(value, 0, 0) === 1) this.#latch(0, 0);
          return value & ~1;
        },
      },
      L2_PROTECTION_FAULT_STATUS: { dw: base + HUB.L2_PROTECTION_FAULT_STATUS, writable: 0 },
      L2_PROTECTION_FAULT_ADDR: { dw: base + HUB.L2_PROTECTION_FAULT_STATUS + 1, count: 2, writable: 0 },
      FB_OFFSET: { dw: base + HUB.FB_OFFSET, writable: 0 },
      FB_LOCATION_BASE: { dw: base + HUB.FB_LOCATION, writable: 0, reset: FB_LOCATION_BASE },
      FB_LOCATION_TOP: { dw: base + HUB.FB_LOCATION + 1, writable: 0, reset: topOfVram },
    });
    const source = {
      port: host.port,
      frameBuffer,
      frameBufferBase: () => FB_LOCATION_BASE * 2 ** 24,
      context: (vmid: number) => this.context(vmid),
      fault: (fault: VmFault) => this.#fault(fault),
    };
    this.#spaceOf = (vmid, client) => new AddressSpace(vmid, source, client);
  }

  /** What a client of the hub sees of a VMID. Default: the engine that the hub is there for, by its first instance. */
  space(vmid: number, client: number = DEFAULT_CLIENT[this.name]): AddressSpace {
    const key = client * CONTEXTS + (vmid & 0xf);
    let space = this.#spaces.get(key);
    if (space === undefined) {
      space = this.#spaceOf(vmid & 0xf, client);
      this.#spaces.set(key, space);
    }
    return space;
  }

  /** Decoded registers of one VMID; decoded anew after any of them is written. */
  context(vmid: number): TranslationContext {
    this.#contexts[vmid] ??= this.#decode(vmid);
    return this.#contexts[vmid];
  }

  /** Page directory base as the scheduler's firmware sets it; register format. */
  setRoot(vmid: number, low: number, high: number): void {
    this.#registers.set('CONTEXT_PT_BASE', low >>> 0, 2 * vmid);
    this.#registers.set('CONTEXT_PT_BASE', high >>> 0, 2 * vmid + 1);
    this.#contexts[vmid] = undefined;
  }

  #decode(vmid: number): TranslationContext {
    const registers = this.#registers;
    const control = registers.get('CONTEXT_CNTL', vmid);
    const baseLow = registers.get('CONTEXT_PT_BASE', 2 * vmid);
    const pair = (name: 'CONTEXT_PT_START' | 'CONTEXT_PT_END') =>
      registers.get(name, 2 * vmid) + (registers.get(name, 2 * vmid + 1) & 0xf) * 2 ** 32;
    return {
      // ENABLE_CONTEXT b0, PAGE_TABLE_DEPTH b2:1, PAGE_TABLE_BLOCK_SIZE b6:3 (gc_9_0_sh_mask.h VM_CONTEXT1_CNTL).
      enabled: bits(control, 0, 0) === 1,
      depth: bits(control, 2, 1),
      blockBits: 9 + bits(control, 6, 3),
      // Page directory base: address b47:6, valid b0, system b1 (gmc_v9_0.c, amdgpu_gmc_pd_addr).
      tableAddress:
        ((baseLow & 0xffff_ffc0) >>> 0) + (registers.get('CONTEXT_PT_BASE', 2 * vmid + 1) & 0xffff) * 2 ** 32,
      tableInSystem: bits(baseLow, 1, 1) === 1,
      startPage: pair('CONTEXT_PT_START'),
      endPage: pair('CONTEXT_PT_END'),
    };
  }

  /**
   * A fault as the hub reports it. Requests here never ask for a retry (see README), so that the access is over: it read
   * zero or was dropped. What the bus refused is no fault of translation and only counted.
   */
  #fault(fault: VmFault): void {
    this.#faults++;
    this.#lastFault = `${fault.kind} of ${hex(fault.address)} in VMID ${fault.vmid}: ${fault.reason}`;
    if (fault.cause === 'bus' || !this.#report(fault, false))
      this.#host.complaints.warn('fault', `${this.name}: ${this.#lastFault}, not reported to the driver`);
    else if (this.#faults === 1) this.#host.port.log.info(`${this.name}: first page fault, a ${this.#lastFault}`);
  }

  /** Sends faults that no access caused: for `ghostbus ctl`. Returns whether they are reported. */
  inject({ vmid, address, access: kind, retry, pages }: InjectedFault): boolean {
    const client = DEFAULT_CLIENT[this.name];
    const fault = { vmid, lengthBytes: 1, kind, cause: 'invalid', reason: 'on demand', client } as const;
    let reported = false;
    for (let page = 0; page < pages; page++)
      reported = this.#report({ ...fault, address: address + page * PAGE_BYTES }, retry);
    return reported;
  }

  /** Latches the fault and interrupts, page by page; false when the context's interrupts are off. */
  #report(fault: VmFault, retry: boolean): boolean {
    const missing = fault.cause === 'invalid' ? 'invalid' : fault.kind;
    const enable = FAULT_INTERRUPT[missing];
    const first = Math.floor(fault.address / PAGE_BYTES);
    const last = Math.floor((fault.address + fault.lengthBytes - 1) / PAGE_BYTES);
    this.#latch(this.#status(fault), first);
    if (last > first) this.#latch(this.#status(fault), first);
    if (bits(this.#registers.get('CONTEXT_CNTL', fault.vmid), enable, enable) === 0) return false;
    for (let page = first; page <= last && page < first + REPORTED_PAGES; page++) this.#interrupt(fault, page, retry);
    return true;
  }

  #status({ cause, kind, client, vmid }: VmFault): number {
    const permission = (cause === 'invalid' ? PERMISSION_FAULT.invalid : 0) | PERMISSION_FAULT[kind];
    return (permission << 4) | (client << 9) | ((kind === 'write' ? 1 : 0) << 18) | (vmid << 20);
  }

  /** The first fault stays until the driver clears it; a further one only sets MORE_FAULTS b0. Status 0 clears. */
  #latch(status: number, page: number): void {
    const registers = this.#registers;
    const held = registers.get('L2_PROTECTION_FAULT_STATUS');
    // ALLOW_SUBSEQUENT_PROTECTION_FAULT_STATUS_ADDR_UPDATES b1 of the control.
    const replaces = held === 0 || status === 0 || bits(registers.get('L2_PROTECTION_FAULT_CNTL'), 1, 1) === 1;
    registers.set('L2_PROTECTION_FAULT_STATUS', (replaces ? status : held | 1) >>> 0);
    if (!replaces) return;
    registers.set('L2_PROTECTION_FAULT_ADDR', page % 2 ** 32, 0);
    registers.set('L2_PROTECTION_FAULT_ADDR', Math.floor(page / 2 ** 32) & 0xf, 1);
  }

  /** The vector that gmc_v9_0_process_interrupt decodes; the ring id carries what amdkfd reads from it (kfd_int_process_v9.c). */
  #interrupt({ vmid, kind, cause }: VmFault, page: number, retry: boolean): void {
    const write = kind === 'write';
    const flags = (Math.floor(page / 2 ** 32) & 0xf) | (write ? 0x20 : 0) | (retry ? 0x80 : 0);
    const vector = {
      client: this.name === 'gfxhub' ? IH_CLIENT.UTCL2 : IH_CLIENT.VMC,
      source: IH_SOURCE.VM_FAULT,
      ring: (cause === 'invalid' ? 0x08 : 0) | (write ? 0x20 : 0x10),
      vmid,
      vmidSource: this.name === 'gfxhub' ? 0 : 1,
      pasid: this.#interrupts.pasid(this.name, vmid),
      data: [page % 2 ** 32, flags, 0, 0],
    } as const;
    if (retry) this.#interrupts.raiseRetry(vector, page);
    else this.#interrupts.raise(vector);
  }

  inspect(): unknown {
    return { invalidations: this.#invalidations, faults: this.#faults, lastFault: this.#lastFault };
  }
}
