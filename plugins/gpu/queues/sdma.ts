import type { RegisterBlock } from 'ghostbus';
import { BitFields32 } from 'ghostbus/kit';
import { IH_CLIENT } from '../interrupts/ih.js';
import { HUB_CLIENT } from '../memory/hub.js';
import type { CommandQueue } from './command-queue.js';
import type { QueueContextParts } from './queue-context.js';
import type { QueueSlot } from './queue-slot.js';
import { SdmaQueue, type SdmaQueueParts } from './sdma-queue.js';

/**
 * The engines that an ASIC may have: first dword of each one's registers (aldebaran_ip_offset.h, segments as chosen by
 * sdma_v4_0_get_reg_offset) and its interrupt client (soc15_ih_clientid.h).
 */
const ENGINES = [
  { firstDword: 0x1260, client: IH_CLIENT.SDMA0 },
  { firstDword: 0x1860, client: IH_CLIENT.SDMA1 },
  { firstDword: 0x1e000, client: IH_CLIENT.SDMA2 },
  { firstDword: 0x1e400, client: IH_CLIENT.SDMA3 },
  { firstDword: 0x1e800, client: IH_CLIENT.SDMA4 },
] as const;

/** Distances of an engine's own registers from its first dword (sdma0_4_2_offset.h). */
const ENGINE_REGISTERS = {
  CNTL: 0x1c,
  STATUS_REG: 0x25,
  F32_CNTL: 0x2a,
  EDC_CONFIG: 0x32,
  ATOMIC_CNTL: 0x39,
  ATOMIC_PREOP: 0x3a,
} as const;

/** Fields of those registers (sdma0_4_2_sh_mask.h; sdma_v4_0_set_trap_irq_state, sdma_v4_0_set_ecc_irq_state). */
const CNTL = new BitFields32({ TRAP_ENABLE: [0, 1] });
const STATUS_REG = new BitFields32({ IDLE: [0, 1] });
const F32_CNTL = new BitFields32({ HALT: [0, 1] });
const EDC_CONFIG = new BitFields32({ ECC_INT_ENABLE: [2, 1] });
const ATOMIC_CNTL = new BitFields32({ ATOMIC_RTN_INT_ENABLE: [31, 1] });

/**
 * Queues of an engine, the distance of each one's RB_CNTL from the first dword (sdma0_4_2_offset.h), its interrupt ring
 * id.
 */
const QUEUES: readonly (readonly [name: string, rbControl: number, ringId: number])[] = [
  ['gfx', 0x80, 0],
  ['page', 0xe0, 3],
  ...Array.from({ length: 8 }, (_, index) => [`rlc${index}`, 0x140 + 0x60 * index, 2] as const),
];

const KERNEL_QUEUES = 2;

/**
 * A system DMA engine (SDMA 4, driven by sdma_v4_0.c): one kernel ring ("gfx") and the queues of user space ("rlc").
 * Register numbers: asic_reg/sdma0/sdma0_4_2_offset.h.
 */
export class Sdma {
  readonly #queues: readonly SdmaQueue[];
  readonly #eccEnabled: () => boolean;

  /** `index` counts the ASIC's engines from 0, of at most five. */
  constructor(
    index: number,
    parts: QueueContextParts & Pick<SdmaQueueParts, 'interrupts' | 'doorbells' | 'scheduler'>,
  ) {
    const { firstDword, client } = ENGINES[index]!;
    const at = (register: keyof typeof ENGINE_REGISTERS) => firstDword + ENGINE_REGISTERS[register];
    const registers: RegisterBlock<'CNTL' | 'F32_CNTL' | 'EDC_CONFIG' | 'ATOMIC_CNTL' | 'ATOMIC_PREOP'> =
      parts.mmio.declare(`sdma${index}`, {
        CNTL: { dw: at('CNTL') },
        // IDLE: nothing of this model lags behind what a reader could see.
        STATUS_REG: { dw: at('STATUS_REG'), writable: 0, onRead: () => (this.#idle() ? STATUS_REG.mask('IDLE') : 0) },
        // The engine starts halted until the driver has loaded it (sdma_v4_0_enable).
        F32_CNTL: {
          dw: at('F32_CNTL'),
          reset: F32_CNTL.mask('HALT'),
          onWrite: (value) => this.#setHalted(F32_CNTL.has(value, 'HALT')),
        },
        EDC_CONFIG: { dw: at('EDC_CONFIG') },
        ATOMIC_CNTL: { dw: at('ATOMIC_CNTL') },
        ATOMIC_PREOP: { dw: at('ATOMIC_PREOP'), count: 2, writable: 0 },
      });
    const engine: SdmaQueueParts = {
      ...parts,
      hubClient: HUB_CLIENT.SDMA0 + index,
      client,
      index,
      clock: { offset: 0n },
      trapEnabled: () => CNTL.has(registers.get('CNTL'), 'TRAP_ENABLE'),
      keepAtomic: (previous) => {
        registers.set('ATOMIC_PREOP', Number(previous & 0xffff_ffffn), 0);
        registers.set('ATOMIC_PREOP', Number(previous >> 32n), 1);
        return ATOMIC_CNTL.has(registers.get('ATOMIC_CNTL'), 'ATOMIC_RTN_INT_ENABLE');
      },
    };
    this.#eccEnabled = () => EDC_CONFIG.has(registers.get('EDC_CONFIG'), 'ECC_INT_ENABLE');
    this.#queues = QUEUES.map(
      ([name, distance, ringId]) => new SdmaQueue(`sdma${index} ${name}`, firstDword + distance, ringId, engine),
    );
    this.#setHalted(true);
  }

  /** Queues that user space can have; the kernel's come first in the list. */
  get userQueues(): readonly QueueSlot[] {
    return this.#queues.slice(KERNEL_QUEUES);
  }

  get commandQueues(): readonly CommandQueue[] {
    return this.#queues.map(({ queue }) => queue);
  }

  /** An uncorrectable error in the engine's memories; returns whether it is reported. */
  eccError(vmid: number): boolean {
    if (!this.#eccEnabled()) return false;
    this.#queues[0]!.eccError(vmid);
    return true;
  }

  #idle(): boolean {
    return this.#queues.every(({ queue }) => queue.state !== 'running' && queue.state !== 'waiting');
  }

  #setHalted(halted: boolean): undefined {
    for (const { queue } of this.#queues) queue.setPaused(halted);
    return undefined;
  }

  inspect(): unknown {
    const used = this.#queues.filter(({ queue }) => queue.state !== 'off' || queue.packets > 0);
    return Object.fromEntries(used.map(({ queue }) => [queue.name, queue.inspect()]));
  }
}
