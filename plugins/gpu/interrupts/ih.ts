import { DmaError, type FunctionPort, type RegisterBlock } from 'ghostbus';
import { BitFields32, type FloodGuard } from 'ghostbus/kit';
import type { Doorbells } from '../bus/doorbells.js';
import type { Mmio } from '../bus/mmio.js';
import { referenceTicks } from '../bus/reference-clock.js';
import { claimedDoorbell, InterruptRing, RING_PLACES, VECTOR_BYTES } from './ih-ring.js';

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
  CP_ECC_ERROR: 197,
  SDMA_ATOMIC_RETURN: 217,
  SDMA_TRAP: 224,
  SDMA_SRAM_ECC: 228,
  SDMA_SRBM_WRITE: 247,
} as const;

/** One interrupt, as amdgpu_ih_decode_iv_helper (amdgpu_ih.c) reads it back. */
interface InterruptVector {
  readonly client: number;
  readonly source: number;
  readonly ring: number;
  readonly vmid: number;
  /** Whose VMID it is: 0 the graphics hub's (default), 1 the memory hub's. */
  readonly vmidSource?: 0 | 1;
  readonly pasid?: number;
  readonly data?: readonly [number, number, number, number];
}

/** First dword of a vector (amdgpu_ih_decode_iv_helper). */
const VECTOR = new BitFields32({ CLIENT: [0, 8], SOURCE: [8, 8], RING: [16, 8], VMID: [24, 4], VMID_SRC: [31, 1] });

function encodeVector(vector: InterruptVector, ticks: bigint): Uint8Array {
  const bytes = new Uint8Array(VECTOR_BYTES);
  const view = new DataView(bytes.buffer);
  const first = { CLIENT: vector.client, SOURCE: vector.source, RING: vector.ring, VMID: vector.vmid };
  view.setUint32(0, VECTOR.pack({ ...first, VMID_SRC: vector.vmidSource ?? 0 }), true);
  view.setUint32(4, Number(ticks & 0xffff_ffffn), true);
  view.setUint32(8, Number((ticks >> 32n) & 0xffffn), true);
  view.setUint32(12, (vector.pasid ?? 0) & 0xffff, true);
  vector.data?.forEach((value, index) => {
    view.setUint32(16 + 4 * index, value >>> 0, true);
  });
  return bytes;
}

/** IH_RETRY_INT_CAM_CNTL_ALDE (osssys_4_2_0_sh_mask.h). */
const RETRY_CAM_CNTL = new BitFields32({ ENABLE: [16, 1] });

/** What the driver writes to the CAM's doorbell (gmc_v9_0_process_interrupt, cam_index). */
const RETRY_ANSWER = new BitFields32({ INDEX: [0, 10] });

/**
 * Retryable faults that wait for the driver's answer; the index is 10 bits wide in a vector
 * (gmc_v9_0_process_interrupt).
 */
const RETRY_ENTRIES = 16;

interface InterruptHandlerParts {
  readonly port: FunctionPort;
  readonly log: FloodGuard;
  readonly mmio: Mmio;
  readonly doorbells: Doorbells;
}

/**
 * Interrupt handler (OSSSYS 4.4, driven by vega20_ih.c). Vectors go to ring 0 in guest memory, or to the ring that
 * their client was routed to; then a vector of the IH itself in ring 0 tells which (vega20_ih_self_irq). The order that
 * the driver relies on is: vector, write pointer in memory, MSI. Register numbers: asic_reg/oss/osssys_4_2_0_offset.h
 * on segment 0x10a0.
 */
export class InterruptHandler {
  readonly #port: FunctionPort;
  readonly #log: FloodGuard;
  readonly #registers: RegisterBlock<'IH_VMID_LUT' | 'IH_VMID_LUT_MM' | 'IH_RETRY_INT_CAM_CNTL_ALDE'>;
  readonly #rings: readonly InterruptRing[];
  readonly #routes = new Map<number, number>();
  /** What each entry of the retry CAM holds. */
  readonly #retries: (string | undefined)[] = new Array(RETRY_ENTRIES).fill(undefined);
  #armed = true;
  #raised = 0;
  #dropped = 0;
  #messages = 0;
  #filteredRetries = 0;
  #vectorsToLose = 0;
  #messagesToLose = 0;

  constructor({ port, log, mmio, doorbells }: InterruptHandlerParts) {
    this.#port = port;
    this.#log = log;
    this.#rings = RING_PLACES.map(
      (_, index) => new InterruptRing(index, { dma: port.dma, mmio, doorbells }, () => this.#readPointerWritten(index)),
    );
    this.#registers = mmio.declare('osssys', {
      IH_VMID_LUT: { dw: 0x10a0, count: 16 },
      IH_VMID_LUT_MM: { dw: 0x10b0, count: 16 },
      IH_DOORBELL_RETRY_CAM: {
        dw: 0x1128,
        onWrite: (value) => doorbells.claim(this.#retries, claimedDoorbell(value), (low) => this.#retryAnswered(low)),
      },
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

  /** Sends a client's vectors to another ring, as the PSP does when told (psp_v12_0_reroute_ih). */
  route(client: number, ring: number): void {
    if (ring === 0 || ring >= this.#rings.length) this.#routes.delete(client);
    else this.#routes.set(client, ring);
  }

  /**
   * The next vectors never reach a ring; the next messages are never sent. For faults on demand; counts replace older
   * ones.
   */
  lose({ vectors, messages }: { readonly vectors: number; readonly messages: number }): void {
    this.#vectorsToLose = vectors;
    this.#messagesToLose = messages;
  }

  /** Writes one vector to its ring and signals the MSI. Drops it (counted) while ring 0 is off or unreachable. */
  raise(vector: InterruptVector): void {
    if (this.#vectorsToLose > 0) {
      this.#vectorsToLose--;
      this.#dropped++;
      return;
    }
    const routed = this.#routes.get(vector.client) ?? 0;
    if (routed !== 0 && this.#rings[routed]!.enabled) {
      const stored = this.#append(routed, vector);
      if (stored) this.#toDriver({ client: IH_CLIENT.IH, source: 0, ring: routed, vmid: 0 });
    } else this.#toDriver(vector);
  }

  /**
   * Raises a fault that the engine will retry: the driver's answer comes by the retry CAM's doorbell. While one for the
   * same page waits for it, further ones are filtered out. Returns whether it was sent.
   */
  raiseRetry(vector: InterruptVector, page: number): boolean {
    const key = `${vector.vmidSource} ${vector.vmid} ${page}`;
    const camEnabled = RETRY_CAM_CNTL.has(this.#registers.get('IH_RETRY_INT_CAM_CNTL_ALDE'), 'ENABLE');
    const free = this.#retries.indexOf(undefined);
    if (camEnabled && (this.#retries.includes(key) || free < 0)) {
      this.#filteredRetries++;
      return false;
    }
    const [first, second, , last] = vector.data ?? [0, 0, 0, 0];
    if (camEnabled) this.#retries[free] = key;
    this.raise({ ...vector, data: [first, second, camEnabled ? free : 0, last] });
    return true;
  }

  #retryAnswered(index: number): void {
    this.#retries[RETRY_ANSWER.get(index, 'INDEX')] = undefined;
    this.#retries.length = RETRY_ENTRIES;
  }

  #toDriver(vector: InterruptVector): void {
    if (this.#append(0, vector)) this.#signal();
  }

  #append(ring: number, vector: InterruptVector): boolean {
    let stored = false;
    if (this.#rings[ring]!.enabled) {
      const bytes = encodeVector(vector, referenceTicks(this.#port.clock));
      stored = this.#reached(`interrupt of client ${vector.client}`, () => this.#rings[ring]!.append(bytes));
    }
    if (stored) this.#raised++;
    else this.#dropped++;
    return stored;
  }

  /** False when guest memory could not be reached. */
  #reached(what: string, append: () => boolean): boolean {
    try {
      return append();
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.#log.source('lost interrupt').warn(`${what} lost: ${error.message}`);
      return false;
    }
  }

  #readPointerWritten(ring: number): void {
    if (ring !== 0) return;
    this.#armed = true;
    if (this.#rings[0]!.enabled && this.#rings[0]!.pending) this.#signal();
  }

  #signal(): void {
    const ring = this.#rings[0]!;
    if (!ring.interruptEnabled) return;
    if (ring.rearmedByReadPointer) {
      if (!this.#armed) return;
      this.#armed = false;
    }
    if (this.#messagesToLose > 0) {
      this.#messagesToLose--;
      return;
    }
    this.#messages++;
    this.#port.interrupt(0);
  }

  inspect(): unknown {
    return {
      raised: this.#raised,
      dropped: this.#dropped,
      messages: this.#messages,
      retries: { waiting: this.#retries.filter((key) => key !== undefined).length, filtered: this.#filteredRetries },
      routes: Object.fromEntries(this.#routes),
      rings: this.#rings.map((ring) => ring.inspect()),
    };
  }
}
