import type { RegisterBlock } from 'ghostbus';
import { BitFields32 } from 'ghostbus/kit';
import type { Mmio } from '../bus/mmio.js';
import { IH_CLIENT, IH_SOURCE, type InterruptHandler } from '../interrupts/ih.js';

const PIPES = 4;

/** GRBM_GFX_CNTL: whose registers the banked ones are (gc_9_0_sh_mask.h). */
export const GRBM_GFX_CNTL = new BitFields32({ PIPEID: [0, 2], MEID: [2, 2], QUEUEID: [8, 3] });

/** Enable bit of each source in a pipe's INT_CNTL (gc_9_0_sh_mask.h CP_ME1_PIPE0_INT_CNTL). */
const ENABLES = new BitFields32({
  [IH_SOURCE.CP_ECC_ERROR]: [14, 1],
  [IH_SOURCE.CP_PRIVILEGED_REGISTER]: [23, 1],
  [IH_SOURCE.CP_BAD_OPCODE]: [24, 1],
  [IH_SOURCE.CP_EOP]: [26, 1],
});

/** What a pipe can interrupt for. */
type Source = keyof typeof ENABLES.fields;

/** A vector's ring, as gfx_v9_0_eop_irq (gfx_v9_0.c) decodes it. */
const RING_ID = new BitFields32({ PIPE: [0, 2], ME: [2, 2], QUEUE: [4, 3] });

/** A place of the command processor, and what happened there. */
export interface ComputeInterrupt {
  readonly me: number;
  readonly pipe: number;
  readonly queue: number;
  readonly source: Source;
  readonly vmid: number;
  readonly data: number;
}

/**
 * Interrupts of the compute command processor. A pipe has its enables twice: amdgpu writes CP_MEx_PIPEy_INT_CNTL by
 * name (gfx_v9_0_set_compute_eop_interrupt_state), amdkfd writes CPC_INT_CNTL after it has selected the pipe in
 * GRBM_GFX_CNTL (kgd_gfx_v9_init_interrupts). Neither says that one undoes the other, so either one enables.
 */
export class ComputeInterrupts {
  readonly #interrupts: InterruptHandler;
  readonly #registers: RegisterBlock<'CP_PIPE_INT_CNTL'>;
  readonly #selected = new Uint32Array(2 * PIPES);
  #masked = 0;

  /** `select` reads GRBM_GFX_CNTL. */
  constructor(mmio: Mmio, interrupts: InterruptHandler, select: () => number) {
    this.#interrupts = interrupts;
    const place = () => {
      const { MEID, PIPEID } = GRBM_GFX_CNTL.unpack(select());
      return index(MEID, PIPEID);
    };
    this.#registers = mmio.declare('cp interrupts', {
      CP_PIPE_INT_CNTL: { dw: 0x3085, count: 2 * PIPES },
      CPC_INT_CNTL: {
        dw: 0x30b4,
        onRead: () => this.#selected[place()] ?? 0,
        onWrite: (value) => {
          this.#selected[place()] = value;
        },
      },
    });
  }

  /** Sends it if its pipe lets it; returns whether it did. */
  raise({ me, pipe, queue, source, vmid, data }: ComputeInterrupt): boolean {
    const place = index(me, pipe);
    const enables = this.#registers.get('CP_PIPE_INT_CNTL', place) | this.#selected[place]!;
    if (!ENABLES.has(enables, source)) {
      this.#masked++;
      return false;
    }
    this.#interrupts.raise({
      client: IH_CLIENT.GRBM_CP,
      source,
      ring: RING_ID.pack({ PIPE: pipe, ME: me, QUEUE: queue }),
      vmid,
      pasid: this.#interrupts.pasid('gfxhub', vmid),
      data: [data, 0, 0, 0],
    });
    return true;
  }

  inspect(): unknown {
    return { masked: this.#masked };
  }
}

/** Micro engines count from 1. */
function index(me: number, pipe: number): number {
  return (me - 1) * PIPES + pipe;
}
