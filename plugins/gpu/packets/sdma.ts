/**
 * SDMA 4.x packets as data: opcode, length, meaning (kernel: amdgpu/vega10_sdma_pkt_open.h for layouts, sdma_v4_0.c for
 * what the driver sends). The README's support table lists exactly what stands here.
 */

import { FIELD, HEADER, type RunSdmaPacket } from './sdma-context.js';
import {
  conditionalExecution,
  copyRegisterToMemory,
  executeOnSomeEngines,
  indirect,
  pollRegisterOrMemory,
  setTimestamp,
  srbmWrite,
  trap,
  writeTimestamp,
} from './sdma-control.js';
import {
  atomic,
  constantFill,
  copyLinear,
  copyLinearSubWindow,
  fence,
  generatePageTableEntries,
  waitOrSignal,
  writeLinear,
} from './sdma-memory.js';

interface SdmaPacket {
  readonly name: string;
  readonly op: number;
  readonly subOp: number;
  /** Dwords including the header. Default: `dwords`. */
  readonly lengthOf?: (header: number, peek: (index: number) => number | undefined) => number;
  readonly dwords: number;
  readonly run: RunSdmaPacket;
}

function copyLength(header: number): number {
  return HEADER.COPY_LINEAR.has(header, 'BROADCAST') ? 9 : 7;
}

/** A packet whose length depends on its fourth dword: 4 + count (WRITE_UNTILED DW_3 count is one less). */
function writeLength(_header: number, peek: (index: number) => number | undefined): number {
  const count = peek(3);
  return count === undefined ? 4 : 5 + FIELD.DWORD_COUNT.get(count, 'COUNT');
}

export const SDMA_PACKETS: readonly SdmaPacket[] = [
  {
    name: 'NOP',
    op: 0,
    subOp: 0,
    dwords: 1,
    lengthOf: (header) => 1 + HEADER.NOP.get(header, 'COUNT'),
    run: () => 'next',
  },
  { name: 'COPY linear', op: 1, subOp: 0, dwords: 7, lengthOf: copyLength, run: copyLinear },
  { name: 'COPY linear sub-window', op: 1, subOp: 4, dwords: 13, run: copyLinearSubWindow },
  { name: 'WRITE linear', op: 2, subOp: 0, dwords: 5, lengthOf: writeLength, run: writeLinear },
  { name: 'INDIRECT', op: 4, subOp: 0, dwords: 6, run: indirect },
  { name: 'FENCE', op: 5, subOp: 0, dwords: 4, run: fence },
  { name: 'TRAP', op: 6, subOp: 0, dwords: 2, run: trap },
  { name: 'SEM', op: 7, subOp: 0, dwords: 3, run: waitOrSignal },
  { name: 'POLL_REGMEM', op: 8, subOp: 0, dwords: 6, run: pollRegisterOrMemory },
  { name: 'POLL_REG_WRITE_MEM', op: 8, subOp: 1, dwords: 4, run: copyRegisterToMemory },
  { name: 'COND_EXE', op: 9, subOp: 0, dwords: 5, run: conditionalExecution },
  { name: 'ATOMIC', op: 10, subOp: 0, dwords: 8, run: atomic },
  { name: 'CONST_FILL', op: 11, subOp: 0, dwords: 5, run: constantFill },
  { name: 'PTEPDE_GEN', op: 12, subOp: 0, dwords: 10, run: generatePageTableEntries },
  { name: 'TIMESTAMP set', op: 13, subOp: 0, dwords: 3, run: setTimestamp },
  { name: 'TIMESTAMP get', op: 13, subOp: 1, dwords: 3, run: writeTimestamp },
  { name: 'TIMESTAMP get global', op: 13, subOp: 2, dwords: 3, run: writeTimestamp },
  { name: 'SRBM_WRITE', op: 14, subOp: 0, dwords: 3, run: srbmWrite },
  { name: 'PRE_EXE', op: 15, subOp: 0, dwords: 2, run: executeOnSomeEngines },
  // A trap without its interrupt.
  { name: 'DUMMY_TRAP', op: 16, subOp: 0, dwords: 2, run: () => 'next' },
];

/** Packets of this engine that nothing here executes: neither the driver nor a compute user space sends them. */
export const MISSING_SDMA_PACKETS: readonly Pick<SdmaPacket, 'name' | 'op' | 'subOp'>[] = [
  { name: 'COPY tiled', op: 1, subOp: 1 },
  { name: 'COPY struct', op: 1, subOp: 3 },
  { name: 'COPY tiled sub-window', op: 1, subOp: 5 },
  { name: 'COPY tiled to tiled', op: 1, subOp: 6 },
  { name: 'COPY dirty page', op: 1, subOp: 7 },
  { name: 'COPY linear physical', op: 1, subOp: 8 },
  { name: 'WRITE tiled', op: 2, subOp: 1 },
  { name: 'POLL_DBIT_WRITE_MEM', op: 8, subOp: 2 },
  { name: 'POLL_MEM_VERIFY', op: 8, subOp: 3 },
  { name: 'CONST_FILL multi', op: 11, subOp: 1 },
  { name: 'PTEPDE_COPY', op: 12, subOp: 1 },
  { name: 'PTEPDE_RMW', op: 12, subOp: 2 },
  { name: 'PTEPDE_COPY backwards', op: 12, subOp: 3 },
];

const codeOf = ({ op, subOp }: Pick<SdmaPacket, 'op' | 'subOp'>) => op | (subOp << 8);

const BY_CODE = new Map(SDMA_PACKETS.map((packet) => [codeOf(packet), packet]));
const NAMES = new Map([...SDMA_PACKETS, ...MISSING_SDMA_PACKETS].map((packet) => [codeOf(packet), packet.name]));

/** The packet that a header starts; op b7:0, sub-op b15:8. */
export function sdmaPacket(header: number): SdmaPacket | undefined {
  return BY_CODE.get(header & 0xffff);
}

/** What the data book calls it; undefined: no such packet. */
export function sdmaPacketName(header: number): string | undefined {
  return NAMES.get(header & 0xffff);
}
