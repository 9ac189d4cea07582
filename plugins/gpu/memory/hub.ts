import type { FunctionPort, RegisterBlock } from 'ghostbus';
import { BitFields32, type FloodGuard } from 'ghostbus/kit';
import type { Mmio } from '../bus/mmio.js';
import { address48 } from '../bus/registers.js';
import type { InterruptHandler } from '../interrupts/ih.js';
import { AddressSpace } from './address-space.js';
import type { FrameBuffer } from './frame-buffer.js';
import type { TranslationContext } from './page-tables.js';
import { type HubName, type InjectedFault, ProtectionFaults } from './protection-faults.js';

/** MC address of VRAM's first byte, in units of 16 MiB (MC_VM_FB_LOCATION_BASE; our choice, above every GART). */
const FB_LOCATION_BASE = 0x8000;
const FB_LOCATION_UNIT_BYTES = 2 ** 24;

/** Distances of the hub's registers from its VM_L2_CNTL, in dwords; gc_9_0_offset.h and mmhub_1_7_offset.h agree. */
const HUB = {
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

/** VM_CONTEXT1_CNTL (gc_9_0_sh_mask.h), without what is about faults: protection-faults.ts. */
const CONTEXT_CNTL = new BitFields32({
  ENABLE_CONTEXT: [0, 1],
  PAGE_TABLE_DEPTH: [1, 2],
  PAGE_TABLE_BLOCK_SIZE: [3, 4],
});

/** Page directory base: flags below an address in bits 47:6 (gmc_v9_0.c, amdgpu_gmc_pd_addr). */
const PT_BASE = new BitFields32({ VALID: [0, 1], SYSTEM: [1, 1] });
const PT_BASE_FLAGS = 0x3f;

/** First dword (VM_L2_CNTL) of each hub. */
const HUB_BASE: Readonly<Record<HubName, number>> = { gfxhub: 0x2840, mmhub: 0x1ab80 };

/** Who asks a hub (gmc_v9_0.c gfxhub_client_ids, mmhub_client_ids_aldebaran; SDMA engine n is SDMA0 + n). */
export const HUB_CLIENT = { CPC: 5, MP1: 2, MP0: 3, SDMA0: 256 } as const;
const DEFAULT_CLIENT: Readonly<Record<HubName, number>> = { gfxhub: HUB_CLIENT.CPC, mmhub: HUB_CLIENT.SDMA0 };

/** One for each VMID. */
const CONTEXTS = 16;
const INVALIDATE_ENGINES = 18;

interface HubParts {
  readonly port: FunctionPort;
  readonly frameBuffer: FrameBuffer;
  readonly mmio: Mmio;
  readonly interrupts: InterruptHandler;
  readonly log: FloodGuard;
}

/**
 * One translation hub: GFXHUB 1.0 serves the command processor, MMHUB 1.7 the SDMA engines. It holds the page table
 * roots of 16 VMIDs and the engines that invalidate cached translations. As nothing is cached, an invalidation is
 * acknowledged in the same breath.
 */
export class Hub {
  readonly name: HubName;
  readonly #registers: RegisterBlock<
    'CONTEXT_CNTL' | 'CONTEXT_PT_BASE' | 'CONTEXT_PT_START' | 'CONTEXT_PT_END' | 'INVALIDATE_ACK'
  >;
  readonly #faults: ProtectionFaults;
  /** By client and VMID. */
  readonly #spaces = new Map<number, AddressSpace>();
  readonly #spaceOf: (vmid: number, client: number) => AddressSpace;
  readonly #contexts: (TranslationContext | undefined)[] = new Array(CONTEXTS).fill(undefined);
  #invalidations = 0;

  constructor(name: HubName, { port, frameBuffer, mmio, interrupts, log }: HubParts) {
    this.name = name;
    this.#registers = this.#declare(mmio, frameBuffer);
    this.#faults = new ProtectionFaults({
      hub: name,
      firstDword: HUB_BASE[name],
      mmio,
      interrupts,
      log,
      contextControl: (vmid) => this.#registers.get('CONTEXT_CNTL', vmid),
    });
    const source = {
      dma: port.dma,
      frameBuffer,
      frameBufferBase: FB_LOCATION_BASE * FB_LOCATION_UNIT_BYTES,
      context: (vmid: number) => this.#context(vmid),
      fault: this.#faults.raise.bind(this.#faults),
    };
    this.#spaceOf = (vmid, client) => new AddressSpace(vmid, source, client);
  }

  #declare(mmio: Mmio, frameBuffer: FrameBuffer) {
    const at = (register: keyof typeof HUB) => HUB_BASE[this.name] + HUB[register];
    const topOfVram = FB_LOCATION_BASE + frameBuffer.sizeBytes / FB_LOCATION_UNIT_BYTES - 1;
    const forget = (_value: number, _previous: number, index: number): undefined => this.#forget(index >> 1);
    return mmio.declare(this.name, {
      CONTEXT_CNTL: {
        dw: at('CONTEXT_CNTL'),
        count: CONTEXTS,
        onWrite: (_value, _previous, index) => this.#forget(index),
      },
      // Not used on 9.4.2 (gmc_v9_0_use_invalidate_semaphore); 1 = acquired.
      INVALIDATE_SEM: { dw: at('INVALIDATE_SEM'), count: INVALIDATE_ENGINES, writable: 0, reset: 1 },
      INVALIDATE_REQ: {
        dw: at('INVALIDATE_REQ'),
        count: INVALIDATE_ENGINES,
        onWrite: (value, _previous, index) => this.#invalidate(value, index),
      },
      INVALIDATE_ACK: { dw: at('INVALIDATE_ACK'), count: INVALIDATE_ENGINES, writable: 0 },
      INVALIDATE_ADDR_RANGE: { dw: at('INVALIDATE_ADDR_RANGE'), count: 2 * INVALIDATE_ENGINES },
      CONTEXT_PT_BASE: { dw: at('CONTEXT_PT_BASE'), count: 2 * CONTEXTS, onWrite: forget },
      CONTEXT_PT_START: { dw: at('CONTEXT_PT_START'), count: 2 * CONTEXTS, onWrite: forget },
      CONTEXT_PT_END: { dw: at('CONTEXT_PT_END'), count: 2 * CONTEXTS, onWrite: forget },
      FB_OFFSET: { dw: at('FB_OFFSET'), writable: 0 },
      FB_LOCATION_BASE: { dw: at('FB_LOCATION'), writable: 0, reset: FB_LOCATION_BASE },
      FB_LOCATION_TOP: { dw: at('FB_LOCATION') + 1, writable: 0, reset: topOfVram },
    });
  }

  #invalidate(vmids: number, engine: number): undefined {
    this.#invalidations++;
    this.#registers.set('INVALIDATE_ACK', vmids & 0xffff, engine);
    return undefined;
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

  /** Page directory base as the scheduler's firmware sets it; register format. */
  setRoot(vmid: number, low: number, high: number): void {
    this.#registers.set('CONTEXT_PT_BASE', low >>> 0, 2 * vmid);
    this.#registers.set('CONTEXT_PT_BASE', high >>> 0, 2 * vmid + 1);
    this.#forget(vmid);
  }

  #forget(vmid: number): undefined {
    this.#contexts[vmid] = undefined;
    return undefined;
  }

  /** Decoded registers of one VMID; decoded anew after any of them is written. */
  #context(vmid: number): TranslationContext {
    this.#contexts[vmid] ??= this.#decode(vmid);
    return this.#contexts[vmid];
  }

  #decode(vmid: number): TranslationContext {
    const registers = this.#registers;
    const control = registers.get('CONTEXT_CNTL', vmid);
    const baseLow = registers.get('CONTEXT_PT_BASE', 2 * vmid);
    const pair = (name: 'CONTEXT_PT_START' | 'CONTEXT_PT_END') =>
      registers.get(name, 2 * vmid) + (registers.get(name, 2 * vmid + 1) & 0xf) * 2 ** 32;
    return {
      enabled: CONTEXT_CNTL.has(control, 'ENABLE_CONTEXT'),
      depth: CONTEXT_CNTL.get(control, 'PAGE_TABLE_DEPTH'),
      blockBits: 9 + CONTEXT_CNTL.get(control, 'PAGE_TABLE_BLOCK_SIZE'),
      tableAddress: address48(baseLow & ~PT_BASE_FLAGS, registers.get('CONTEXT_PT_BASE', 2 * vmid + 1)),
      tableInSystem: PT_BASE.has(baseLow, 'SYSTEM'),
      startPage: pair('CONTEXT_PT_START'),
      endPage: pair('CONTEXT_PT_END'),
    };
  }

  /** Sends faults that no access caused: for `ghostbus ctl`. Returns whether they are reported. */
  inject(fault: InjectedFault): boolean {
    return this.#faults.inject(fault, DEFAULT_CLIENT[this.name]);
  }

  inspect(): unknown {
    return { invalidations: this.#invalidations, ...this.#faults.inspect() };
  }
}
