/**
 * What SDMA's packets are made of (kernel: amdgpu/vega10_sdma_pkt_open.h), and what they can do beside touching memory.
 */
import { BitFields32 } from 'ghostbus/kit';
import type { AtomicResult } from './atomics.js';
import type { Outcome, Packet, PacketContext } from './packet.js';

/** What a packet of SDMA can do beside touching memory. */
export interface SdmaContext extends PacketContext {
  /** Raises the trap interrupt. */
  trap(vmid: number, context: number): void;
  /** The engine's own counter, which packets can set; it ticks with the global one. */
  localTimestamp(): bigint;
  setLocalTimestamp(value: bigint): void;
  /** Which of the ASIC's engines this is, from 0. */
  readonly engineIndex: number;
  /** An atomic operation wants its previous value kept where software finds it. */
  keepAtomicResult(result: AtomicResult): void;
}

export type RunSdmaPacket = (context: SdmaContext, packet: Packet, header: number) => Outcome;

/** Fields of headers, by packet (vega10_sdma_pkt_open.h); OP and SUB_OP are in all of them. */
export const HEADER = {
  ANY: new BitFields32({ OP: [0, 8], SUB_OP: [8, 8] }),
  NOP: new BitFields32({ COUNT: [16, 14] }),
  COPY_LINEAR: new BitFields32({ BROADCAST: [27, 1] }),
  COPY_SUB_WINDOW: new BitFields32({ ELEMENT_SIZE: [29, 3] }),
  INDIRECT: new BitFields32({ VMID: [16, 4] }),
  SEM: new BitFields32({ WRITE_ONE: [29, 1], SIGNAL: [30, 1], MAILBOX: [31, 1] }),
  POLL_REGMEM: new BitFields32({ HDP_FLUSH: [26, 1], FUNC: [28, 3], MEM_POLL: [31, 1] }),
  PRE_EXE: new BitFields32({ DEV_SEL: [16, 8] }),
  CONST_FILL: new BitFields32({ FILLSIZE: [30, 2] }),
  SRBM_WRITE: new BitFields32({ BYTE_EN: [28, 4] }),
  ATOMIC: new BitFields32({ LOOP: [16, 1], ATOMIC_OP: [25, 7] }),
} as const;

/** Fields of the dwords that follow a header. Counts and extents are one less than what they count. */
export const FIELD = {
  /** 22 bits here, 30 on SDMA 4.4 (amdgpu_copy_buffer splits accordingly); wider is accepted. */
  BYTE_COUNT: new BitFields32({ COUNT: [0, 30] }),
  DWORD_COUNT: new BitFields32({ COUNT: [0, 20] }),
  ENTRY_COUNT: new BitFields32({ COUNT: [0, 19] }),
  EXEC_COUNT: new BitFields32({ COUNT: [0, 14] }),
  IB_SIZE: new BitFields32({ SIZE: [0, 20] }),
  XY: new BitFields32({ X: [0, 14], Y: [16, 14] }),
  Z_PITCH: new BitFields32({ Z: [0, 11], PITCH: [13, 19] }),
  SLICE_PITCH: new BitFields32({ PITCH: [0, 28] }),
  INT_CONTEXT: new BitFields32({ CONTEXT: [0, 28] }),
  REGISTER: new BitFields32({ REG: [0, 18] }),
} as const;
