import type { RegisterBlock } from '../../emulator/plugin.js';
import type { GpuHost } from './host.js';
import type { Mmio } from './mmio.js';
import { bits, hex } from './registers.js';
import { type AccessKind, AddressSpace, type TranslationContext } from './vm.js';

/** MC address of VRAM's first byte, in units of 16 MiB (MC_VM_FB_LOCATION_BASE; our choice, above every GART). */
const FB_LOCATION_BASE = 0x8000;

/** Distances of the hub's registers from its VM_L2_CNTL, in dwords; gc_9_0_offset.h and mmhub_1_7_offset.h agree. */
const HUB = {
  L2_CNTL: 0x0,
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

const CONTEXTS = 16;
const INVALIDATE_ENGINES = 18;

/**
 * One translation hub: GFXHUB 1.0 serves the command processor, MMHUB 1.7 the SDMA engines. It holds the page table roots
 * of 16 VMIDs and the engines that invalidate cached translations. As nothing is cached, an invalidation is acknowledged
 * in the same breath.
 */
export class Hub {
  readonly name: HubName;
  readonly #host: GpuHost;
  readonly #registers: RegisterBlock<
    'CONTEXT_CNTL' | 'CONTEXT_PT_BASE' | 'CONTEXT_PT_START' | 'CONTEXT_PT_END' | 'INVALIDATE_ACK'
  >;
  readonly #spaces: AddressSpace[] = [];
  readonly #contexts: (TranslationContext | undefined)[] = new Array(CONTEXTS).fill(undefined);
  #invalidations = 0;
  #faults = 0;
  #lastFault = '';

  constructor(name: HubName, host: GpuHost, mmio: Mmio) {
    this.name = name;
    this.#host = host;
    const base = HUB_BASE[name];
    const topOfVram = FB_LOCATION_BASE + host.vram.sizeBytes / 2 ** 24 - 1;
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
      // No fault is latched: see README, "page faults".
      L2_PROTECTION_FAULT_STATUS: { dw: base + HUB.L2_PROTECTION_FAULT_STATUS, count: 3, writable: 0 },
      FB_OFFSET: { dw: base + HUB.FB_OFFSET, writable: 0 },
      FB_LOCATION_BASE: { dw: base + HUB.FB_LOCATION, writable: 0, reset: FB_LOCATION_BASE },
      FB_LOCATION_TOP: { dw: base + HUB.FB_LOCATION + 1, writable: 0, reset: topOfVram },
    });
    const source = {
      port: host.port,
      vram: host.vram,
      frameBufferBase: () => FB_LOCATION_BASE * 2 ** 24,
      context: (vmid: number) => this.context(vmid),
      fault: (vmid: number, address: number, kind: AccessKind, reason: string) =>
        this.#fault(vmid, address, kind, reason),
    };
    for (let vmid = 0; vmid < CONTEXTS; vmid++) this.#spaces.push(new AddressSpace(vmid, source));
  }

  space(vmid: number): AddressSpace {
    return this.#spaces[vmid & 0xf]!;
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

  #fault(vmid: number, address: number, kind: AccessKind, reason: string): void {
    this.#faults++;
    this.#lastFault = `${kind} of ${hex(address)} in VMID ${vmid}: ${reason}`;
    this.#host.complaints.warn('fault', `${this.name}: ${this.#lastFault}`);
  }

  inspect(): unknown {
    return { invalidations: this.#invalidations, faults: this.#faults, lastFault: this.#lastFault };
  }
}
