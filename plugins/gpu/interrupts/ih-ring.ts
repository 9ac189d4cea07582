import type { Dma, RegisterBlock } from 'ghostbus';
import type { Doorbells } from '../bus/doorbells.js';
import type { Mmio } from '../bus/mmio.js';
import { address48, bits } from '../bus/registers.js';

/** One interrupt vector in a ring. */
export const VECTOR_BYTES = 32;

/** Where a ring's registers lie, in dwords; only ring 0 writes its write pointer to memory (osssys_4_2_0_offset.h). */
interface RingPlace {
  readonly control: number;
  readonly doorbell: number;
  readonly writeBack?: { readonly high: number; readonly low: number };
}

/** IH_RB_CNTL, IH_RB_CNTL_RING1, IH_RB_CNTL_RING2 and what belongs to them. BASE, BASE_HI, RPTR, WPTR follow the control. */
export const RING_PLACES: readonly RingPlace[] = [
  { control: 0x1120, doorbell: 0x1127, writeBack: { high: 0x1125, low: 0x1126 } },
  { control: 0x112c, doorbell: 0x1133 },
  { control: 0x1138, doorbell: 0x113f },
];

type RingRegister = 'CNTL' | 'BASE' | 'BASE_HI' | 'RPTR' | 'WPTR' | 'WPTR_ADDR_HI' | 'WPTR_ADDR_LO' | 'DOORBELL_RPTR';

/** Bits of IH_RB_CNTL (osssys_4_2_0_sh_mask.h). */
const CONTROL = {
  WRITEBACK_ENABLE: 8,
  FULL_DRAIN_ENABLE: 9,
  OVERFLOW_ENABLE: 16,
  ENABLE_INTR: 17,
  RPTR_REARM: 21,
  OVERFLOW_CLEAR: 31,
} as const;

interface InterruptRingParts {
  readonly dma: Dma;
  readonly mmio: Mmio;
  readonly doorbells: Doorbells;
}

/**
 * One of the interrupt handler's rings in guest memory (vega20_ih.c): vectors of 32 bytes, a write pointer whose bit 0 tells
 * an overflow, a read pointer that comes back by register or doorbell.
 */
export class InterruptRing {
  readonly #dma: Dma;
  readonly #registers: RegisterBlock<RingRegister>;
  readonly #readPointerWritten: () => void;
  readonly #hasWriteBack: boolean;
  #overflows = 0;
  #drained = 0;

  /** `readPointerWritten` is called when the driver says how far it has read. */
  constructor(index: number, { dma, mmio, doorbells }: InterruptRingParts, readPointerWritten: () => void) {
    const { control, doorbell, writeBack } = RING_PLACES[index]!;
    this.#dma = dma;
    this.#readPointerWritten = readPointerWritten;
    this.#hasWriteBack = writeBack !== undefined;
    const pair = { dw: writeBack?.high ?? control + 5 };
    this.#registers = mmio.declare(`osssys ring ${index}`, {
      CNTL: { dw: control, onWrite: (value) => this.#writeControl(value) },
      BASE: { dw: control + 1 },
      BASE_HI: { dw: control + 2 },
      RPTR: { dw: control + 3, onWrite: () => readPointerWritten() },
      WPTR: { dw: control + 4 },
      WPTR_ADDR_HI: pair,
      WPTR_ADDR_LO: { dw: writeBack?.low ?? control + 6 },
      DOORBELL_RPTR: {
        dw: doorbell,
        onWrite: (value) => {
          // OFFSET b25:0 in dwords, ENABLE b28 (osssys_4_2_0_sh_mask.h IH_DOORBELL_RPTR).
          const dword = bits(value, 28, 28) === 1 ? bits(value, 25, 0) : undefined;
          doorbells.claim(this, dword, (low) => this.#setReadPointer(low));
        },
      },
    });
  }

  #flag(bit: number): boolean {
    return bits(this.#registers.get('CNTL'), bit, bit) === 1;
  }

  get enabled(): boolean {
    return this.#flag(0);
  }

  get interruptEnabled(): boolean {
    return this.#flag(CONTROL.ENABLE_INTR);
  }

  /** After one message the ring stays silent until its read pointer is written (RPTR_REARM, set when MSI is in use). */
  get rearmedByReadPointer(): boolean {
    return this.#flag(CONTROL.RPTR_REARM);
  }

  /** Vectors lie in the ring that the driver has not read. */
  get pending(): boolean {
    return (this.#writePointer & ~1) !== (this.#registers.get('RPTR') & ~(VECTOR_BYTES - 1));
  }

  get #writePointer(): number {
    return this.#registers.get('WPTR');
  }

  #setReadPointer(value: number): void {
    this.#registers.set('RPTR', value);
    this.#readPointerWritten();
  }

  /** RB_SIZE b5:1 = log2 of dwords (vega20_ih_rb_cntl). */
  get #sizeBytes(): number {
    return Math.max(4 * 2 ** bits(this.#registers.get('CNTL'), 5, 1), VECTOR_BYTES);
  }

  #writeControl(value: number): number {
    // WPTR_OVERFLOW_CLEAR clears itself.
    if (bits(value, CONTROL.OVERFLOW_CLEAR, CONTROL.OVERFLOW_CLEAR) === 1)
      this.#registers.set('WPTR', this.#writePointer & ~1);
    return value & 0x7fff_ffff;
  }

  /**
   * Appends a vector and moves the write pointer. Throws DmaError when guest memory cannot be reached. A full ring that drains
   * drops it (false); any other overwrites its oldest vectors and says so in WPTR bit 0 (vega20_ih_get_wptr).
   */
  append(vector: Uint8Array): boolean {
    const registers = this.#registers;
    const offset = (this.#writePointer & ~(VECTOR_BYTES - 1)) % this.#sizeBytes;
    const next = (offset + VECTOR_BYTES) % this.#sizeBytes;
    const full = next === (registers.get('RPTR') & ~(VECTOR_BYTES - 1));
    if (full && (this.#flag(CONTROL.FULL_DRAIN_ENABLE) || !this.#flag(CONTROL.OVERFLOW_ENABLE))) {
      this.#drained++;
      return false;
    }
    const base = registers.get('BASE') * 256 + (registers.get('BASE_HI') & 0xff) * 2 ** 40;
    this.#dma.write(base + offset, vector);
    if (full) this.#overflows++;
    const overflow = full || (this.#writePointer & 1) === 1 ? 1 : 0;
    registers.set('WPTR', next | overflow);
    this.#writeBack(next | overflow);
    return true;
  }

  #writeBack(value: number): void {
    if (!this.#hasWriteBack || !this.#flag(CONTROL.WRITEBACK_ENABLE)) return;
    const low = this.#registers.get('WPTR_ADDR_LO') & ~3;
    this.#dma.writeU32(address48(low, this.#registers.get('WPTR_ADDR_HI')), value);
  }

  inspect(): unknown {
    return {
      wptr: this.#writePointer,
      rptr: this.#registers.get('RPTR'),
      overflows: this.#overflows,
      drained: this.#drained,
    };
  }
}
