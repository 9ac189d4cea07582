import { DmaError, type RegisterBlock } from '../../emulator/plugin.js';
import type { Doorbells } from './doorbells.js';
import { type GpuHost, referenceTicks } from './host.js';
import type { Mmio } from './mmio.js';
import { address48, bits } from './registers.js';

/** Interrupt clients (include/soc15_ih_clientid.h). */
export const IH_CLIENT = {
  IH: 0x00,
  SDMA2: 0x01,
  SDMA3: 0x04,
  SDMA4: 0x05,
  SDMA0: 0x08,
  SDMA1: 0x09,
  VMC: 0x12,
  GRBM_CP: 0x14,
  UTCL2: 0x1b,
} as const;

/** Interrupt sources (include/ivsrcid/gfx/irqsrcs_gfx_9_0.h, sdma0/irqsrcs_sdma0_4_0.h). */
export const IH_SOURCE = {
  VM_FAULT: 0,
  CP_EOP: 181,
  CP_BAD_OPCODE: 183,
  CP_PRIVILEGED_REGISTER: 184,
  SDMA_ATOMIC_RETURN: 217,
  SDMA_TRAP: 224,
  SDMA_SRBM_WRITE: 247,
} as const;

/** One interrupt, as amdgpu_ih_decode_iv_helper (amdgpu_ih.c) reads it back. */
export interface InterruptVector {
  readonly client: number;
  readonly source: number;
  readonly ring: number;
  readonly vmid: number;
  readonly pasid?: number;
  readonly data?: readonly [number, number, number, number];
}

export const VECTOR_BYTES = 32;

export function encodeVector(vector: InterruptVector, ticks: bigint): Uint8Array {
  const bytes = new Uint8Array(VECTOR_BYTES);
  const view = new DataView(bytes.buffer);
  const low = (vector.client & 0xff) | ((vector.source & 0xff) << 8) | ((vector.ring & 0xff) << 16);
  view.setUint32(0, (low | ((vector.vmid & 0xf) << 24)) >>> 0, true);
  view.setUint32(4, Number(ticks & 0xffff_ffffn), true);
  view.setUint32(8, Number((ticks >> 32n) & 0xffffn), true);
  view.setUint32(12, (vector.pasid ?? 0) & 0xffff, true);
  vector.data?.forEach((value, index) => {
    view.setUint32(16 + 4 * index, value >>> 0, true);
  });
  return bytes;
}

/**
 * Interrupt handler (OSSSYS 4.4, driven by vega20_ih.c). Vectors go to ring 0 in guest memory; the order that the driver
 * relies on is: vector, write pointer in memory, MSI. Rings 1 and 2 are storage: nothing is routed to them.
 * Register numbers: asic_reg/oss/osssys_4_2_0_offset.h on segment 0x10a0.
 */
export class InterruptHandler {
  readonly #host: GpuHost;
  readonly #registers: RegisterBlock<
    | 'IH_VMID_LUT'
    | 'IH_VMID_LUT_MM'
    | 'IH_RB_CNTL'
    | 'IH_RB_BASE'
    | 'IH_RB_BASE_HI'
    | 'IH_RB_RPTR'
    | 'IH_RB_WPTR'
    | 'IH_RB_WPTR_ADDR_HI'
    | 'IH_RB_WPTR_ADDR_LO'
    | 'IH_DOORBELL_RPTR'
  >;
  #raised = 0;
  #dropped = 0;

  constructor(host: GpuHost, mmio: Mmio, doorbells: Doorbells) {
    this.#host = host;
    this.#registers = mmio.declare('osssys', {
      IH_VMID_LUT: { dw: 0x10a0, count: 16 },
      IH_VMID_LUT_MM: { dw: 0x10b0, count: 16 },
      IH_RB_CNTL: { dw: 0x1120, onWrite: (value) => this.#writeControl(value) },
      IH_RB_BASE: { dw: 0x1121 },
      IH_RB_BASE_HI: { dw: 0x1122 },
      IH_RB_RPTR: { dw: 0x1123 },
      IH_RB_WPTR: { dw: 0x1124 },
      IH_RB_WPTR_ADDR_HI: { dw: 0x1125 },
      IH_RB_WPTR_ADDR_LO: { dw: 0x1126 },
      IH_DOORBELL_RPTR: {
        dw: 0x1127,
        onWrite: (value) => {
          // OFFSET b25:0 in dwords, ENABLE b28 (osssys_4_2_0_sh_mask.h IH_DOORBELL_RPTR).
          const index = bits(value, 28, 28) === 1 ? bits(value, 25, 0) : undefined;
          doorbells.claim(this, index, (low) => this.#registers.set('IH_RB_RPTR', low));
          return undefined;
        },
      },
      IH_DOORBELL_RETRY_CAM: { dw: 0x1128 },
      IH_RING1: { dw: 0x112c, count: 8, onWrite: clearOverflowBit },
      IH_RING2: { dw: 0x1138, count: 8, onWrite: clearOverflowBit },
      IH_CLK_CTRL: { dw: 0x117b },
      IH_RETRY_INT_CAM_CNTL_ALDE: { dw: 0x118a },
      IH_CHICKEN_ALDE: { dw: 0x122d },
    });
  }

  /** Address space id that the driver gave a VMID (soc15.c, IH_VMID_n_LUT written by vm flushes). */
  pasid(hub: 'gfxhub' | 'mmhub', vmid: number): number {
    return this.#registers.get(hub === 'gfxhub' ? 'IH_VMID_LUT' : 'IH_VMID_LUT_MM', vmid) & 0xffff;
  }

  /** What the scheduler's firmware does when it gives a process a VMID. */
  setPasid(vmid: number, pasid: number): void {
    this.#registers.set('IH_VMID_LUT', pasid, vmid);
    this.#registers.set('IH_VMID_LUT_MM', pasid, vmid);
  }

  /** Writes one vector to ring 0 and signals the MSI. Drops it (counted) while the ring is off or unreachable. */
  raise(vector: InterruptVector): void {
    const control = this.#registers.get('IH_RB_CNTL');
    if ((control & 1) === 0) {
      this.#dropped++;
      return;
    }
    try {
      this.#store(vector, control);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#dropped++;
      this.#host.complaints.warn('lost interrupt', `interrupt of client ${vector.client} lost: ${error.message}`);
      return;
    }
    this.#raised++;
    // ENABLE_INTR b17.
    if (bits(control, 17, 17) === 1) this.#host.port.interrupt(0);
  }

  #store(vector: InterruptVector, control: number): void {
    const registers = this.#registers;
    // RB_SIZE b5:1 = log2 of dwords (vega20_ih_rb_cntl).
    const sizeBytes = 4 * 2 ** bits(control, 5, 1);
    const base = registers.get('IH_RB_BASE') * 256 + (registers.get('IH_RB_BASE_HI') & 0xff) * 2 ** 40;
    const offset = (registers.get('IH_RB_WPTR') & ~(VECTOR_BYTES - 1)) % Math.max(sizeBytes, VECTOR_BYTES);
    this.#host.port.dma.write(base + offset, encodeVector(vector, referenceTicks(this.#host)));
    const next = (offset + VECTOR_BYTES) % Math.max(sizeBytes, VECTOR_BYTES);
    // A full ring overwrites its oldest vector and says so in WPTR bit 0 (vega20_ih_get_wptr).
    const full = next === (registers.get('IH_RB_RPTR') & ~(VECTOR_BYTES - 1));
    const overflow = full || (registers.get('IH_RB_WPTR') & 1) === 1 ? 1 : 0;
    registers.set('IH_RB_WPTR', next | overflow);
    // WPTR_WRITEBACK_ENABLE b8.
    if (bits(control, 8, 8) === 1) {
      const high = registers.get('IH_RB_WPTR_ADDR_HI');
      this.#host.port.dma.writeU32(address48(registers.get('IH_RB_WPTR_ADDR_LO') & ~3, high), next | overflow);
    }
  }

  #writeControl(value: number): number {
    // WPTR_OVERFLOW_CLEAR b31 clears itself.
    if (bits(value, 31, 31) === 1) this.#registers.set('IH_RB_WPTR', this.#registers.get('IH_RB_WPTR') & ~1);
    return value & 0x7fff_ffff;
  }

  inspect(): unknown {
    return {
      raised: this.#raised,
      dropped: this.#dropped,
      wptr: this.#registers.get('IH_RB_WPTR'),
      rptr: this.#registers.get('IH_RB_RPTR'),
    };
  }
}

/** The control registers of rings 1 and 2 (index 0 of each group) clear WPTR_OVERFLOW_CLEAR themselves, as ring 0 does. */
function clearOverflowBit(value: number, _previous: number, index: number): number | undefined {
  return index === 0 ? value & 0x7fff_ffff : undefined;
}
