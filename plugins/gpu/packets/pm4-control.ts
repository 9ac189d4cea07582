/** PM4 packets that set registers, and those that decide what is executed next. Layouts: soc15d.h PACKET3_*. */
import { BitFields32 } from 'ghostbus/kit';
import { address48 } from '../bus/registers.js';
import type { Outcome, Packet } from './packet.js';
import type { ComputeContext, RunPacket } from './pm4-context.js';

/**
 * Where the packets that set registers count from, and what of that a user's commands may set (soc15d.h PACKET3_SET_*).
 */
export const REGISTER_SPACES = {
  CONFIG: { first: 0x2000, userEnd: 0x2000 },
  SH: { first: 0x2c00, userEnd: 0x3000 },
  CONTEXT: { first: 0xa000, userEnd: 0xa400 },
  UCONFIG: { first: 0xc000, userEnd: 0xc400 },
} as const;

const SET_REGISTERS = new BitFields32({ REG_OFFSET: [0, 16] });

export function setRegisters({ first, userEnd }: { first: number; userEnd: number }): RunPacket {
  return (context, packet) => {
    const start = first + SET_REGISTERS.get(packet.dword(1), 'REG_OFFSET');
    for (let index = 2; index < packet.lengthDwords; index++) {
      const dword = start + index - 2;
      if (packet.space.vmid !== 0 && dword >= userEnd) context.protectedRegister(dword);
      else context.writeRegister(dword, packet.dword(index));
    }
    return 'next';
  };
}

const INDIRECT_BUFFER = new BitFields32({ IB_SIZE: [0, 20], CHAIN: [20, 1], VMID: [24, 4] });

export function indirectBuffer(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(3);
  const vmid = packet.space.vmid === 0 ? INDIRECT_BUFFER.get(control, 'VMID') : packet.space.vmid;
  const buffer = {
    space: context.space(vmid),
    address: address48(packet.dword(1) & ~3, packet.dword(2)),
    sizeDwords: INDIRECT_BUFFER.get(control, 'IB_SIZE'),
  };
  const chain = INDIRECT_BUFFER.has(control, 'CHAIN');
  return context.queue.call(buffer, packet.lengthDwords, chain) ? 'next' : 'error';
}

/** EXEC_COUNT is in dwords. VIRTUAL_XCC_ID_SELECT is a mask of compute dies; this ASIC is one. */
const PREDICATION = new BitFields32({ EXEC_COUNT: [0, 14], VIRTUAL_XCC_ID_SELECT: [24, 8] });

/** PRED_EXEC: what is for other dies is skipped. */
export function predicatedExecution(context: ComputeContext, packet: Packet): Outcome {
  const { EXEC_COUNT, VIRTUAL_XCC_ID_SELECT } = PREDICATION.unpack(packet.dword(1));
  if ((VIRTUAL_XCC_ID_SELECT & 1) === 0) context.queue.skip(EXEC_COUNT);
  return 'next';
}

/** COND_EXEC: a zero at the address skips the number of dwords in the last one. */
export function conditionalExecution(context: ComputeContext, packet: Packet): Outcome {
  const flag = packet.space.readU32(address48(packet.dword(1) & ~3, packet.dword(2)));
  if (flag === 0) context.queue.skip(PREDICATION.get(packet.dword(4), 'EXEC_COUNT'));
  return 'next';
}
