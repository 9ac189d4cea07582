import type { Dma, RegisterBlock } from 'ghostbus';
import { BitFields32 } from 'ghostbus/kit';
import type { Doorbells } from '../bus/doorbells.js';
import type { Mmio } from '../bus/mmio.js';
import { address48, address256 } from '../bus/registers.js';

/** One interrupt vector in a ring. */
export const VECTOR_BYTES = 32;

/** Where a ring's registers lie, in dwords; only ring 0 writes its write pointer to memory (osssys_4_2_0_offset.h). */
interface RingPlace {
  readonly control: number;
  readonly doorbell: number;
  readonly writeBack?: { readonly high: number; readonly low: number };
}

/**
 * IH_RB_CNTL, IH_RB_CNTL_RING1, IH_RB_CNTL_RING2 and what belongs to them. BASE, BASE_HI, RPTR, WPTR follow the
 * control.
 */
export const RING_PLACES: readonly RingPlace[] = [
  { control: 0x1120, doorbell: 0x1127, writeBack: { high: 0x1125, low: 0x1126 } },
  { control: 0x112c, doorbell: 0x1133 },
  { control: 0x1138, doorbell: 0x113f },
];

type RingRegister = 'CNTL' | 'BASE' | 'BASE_HI' | 'RPTR' | 'WPTR' | 'WPTR_ADDR_HI' | 'WPTR_ADDR_LO' | 'DOORBELL_RPTR';

/** Fields of IH_RB_CNTL (osssys_4_2_0_sh_mask.h). RB_SIZE is log2 of dwords (vega20_ih_rb_cntl). */
const CONTROL = new BitFields32({
  RB_ENABLE: [0, 1],
  RB_SIZE: [1, 5],
  WPTR_WRITEBACK_ENABLE: [8, 1],
  RB_FULL_DRAIN_ENABLE: [9, 1],
  WPTR_OVERFLOW_ENABLE: [16, 1],
  ENABLE_INTR: [17, 1],
  RPTR_REARM: [21, 1],
  WPTR_OVERFLOW_CLEAR: [31, 1],
});

/** IH_DOORBELL_RPTR: in dwords. The retry CAM's register has the same fields. */
const DOORBELL = new BitFields32({ OFFSET: [0, 26], ENABLE: [28, 1] });

/** The dword of the doorbell that such a register claims; undefined: none. */
export function claimedDoorbell(register: number): number | undefined {
  return DOORBELL.has(register, 'ENABLE') ? DOORBELL.get(register, 'OFFSET') : undefined;
}

interface InterruptRingParts {
  readonly dma: Dma;
  readonly mmio: Mmio;
  readonly doorbells: Doorbells;
}

/**
 * One of the interrupt handler's rings in guest memory (vega20_ih.c): vectors of 32 bytes, a write pointer whose bit 0
 * tells an overflow, a read pointer that comes back by register or doorbell.
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
        onWrite: (value) => doorbells.claim(this, claimedDoorbell(value), (low) => this.#setReadPointer(low)),
      },
    });
  }

  #flag(name: keyof typeof CONTROL.fields): boolean {
    return CONTROL.has(this.#registers.get('CNTL'), name);
  }

  get enabled(): boolean {
    return this.#flag('RB_ENABLE');
  }

  get interruptEnabled(): boolean {
    return this.#flag('ENABLE_INTR');
  }

  /** After one message the ring stays silent until its read pointer is written (RPTR_REARM, set when MSI is in use). */
  get rearmedByReadPointer(): boolean {
    return this.#flag('RPTR_REARM');
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

  get #sizeBytes(): number {
    return Math.max(4 * 2 ** CONTROL.get(this.#registers.get('CNTL'), 'RB_SIZE'), VECTOR_BYTES);
  }

  #writeControl(value: number): number {
    // WPTR_OVERFLOW_CLEAR clears itself.
    if (CONTROL.has(value, 'WPTR_OVERFLOW_CLEAR')) this.#registers.set('WPTR', this.#writePointer & ~1);
    return CONTROL.set(value, 'WPTR_OVERFLOW_CLEAR', 0);
  }

  /**
   * Appends a vector and moves the write pointer. Throws DmaError when guest memory cannot be reached. A full ring that
   * drains drops it (false); any other overwrites its oldest vectors and says so in WPTR bit 0 (vega20_ih_get_wptr).
   */
  append(vector: Uint8Array): boolean {
    const registers = this.#registers;
    const offset = (this.#writePointer & ~(VECTOR_BYTES - 1)) % this.#sizeBytes;
    const next = (offset + VECTOR_BYTES) % this.#sizeBytes;
    const full = next === (registers.get('RPTR') & ~(VECTOR_BYTES - 1));
    if (full && (this.#flag('RB_FULL_DRAIN_ENABLE') || !this.#flag('WPTR_OVERFLOW_ENABLE'))) {
      this.#drained++;
      return false;
    }
    const base = address256(registers.get('BASE'), registers.get('BASE_HI'));
    this.#dma.write(base + offset, vector);
    if (full) this.#overflows++;
    const overflow = full || (this.#writePointer & 1) === 1 ? 1 : 0;
    registers.set('WPTR', next | overflow);
    this.#writeBack(next | overflow);
    return true;
  }

  #writeBack(value: number): void {
    if (!this.#hasWriteBack || !this.#flag('WPTR_WRITEBACK_ENABLE')) return;
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
