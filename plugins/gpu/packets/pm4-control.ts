/** PM4 packets that set registers, and those that decide what is executed next. Layouts: soc15d.h PACKET3_*. */
import { address48, bits } from '../bus/registers.js';
import type { Outcome, Packet } from './packet.js';
import type { ComputeContext, RunPacket } from './pm4-context.js';

/** Where the packets that set registers count from, and what of that a user's commands may set (soc15d.h PACKET3_SET_*). */
export const REGISTER_SPACES = {
  CONFIG: { first: 0x2000, userEnd: 0x2000 },
  SH: { first: 0x2c00, userEnd: 0x3000 },
  CONTEXT: { first: 0xa000, userEnd: 0xa400 },
  UCONFIG: { first: 0xc000, userEnd: 0xc400 },
} as const;

export function setRegisters({ first, userEnd }: { first: number; userEnd: number }): RunPacket {
  return (context, packet) => {
    const start = first + bits(packet.dword(1), 15, 0);
    for (let index = 2; index < packet.lengthDwords; index++) {
      const dword = start + index - 2;
      if (packet.space.vmid !== 0 && dword >= userEnd) context.protectedRegister(dword);
      else context.writeRegister(dword, packet.dword(index));
    }
    return 'next';
  };
}

export function indirectBuffer(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(3);
  const vmid = packet.space.vmid === 0 ? bits(control, 27, 24) : packet.space.vmid;
  const buffer = {
    space: context.space(vmid),
    address: address48(packet.dword(1) & ~3, packet.dword(2)),
    sizeDwords: bits(control, 19, 0),
  };
  return context.queue.call(buffer, packet.lengthDwords, bits(control, 20, 20) === 1) ? 'next' : 'error';
}

/** PRED_EXEC: VIRTUAL_XCC_ID_SELECT b31:24 is a mask of compute dies; this ASIC is one. EXEC_COUNT b13:0 dwords are skipped. */
export function predicatedExecution(context: ComputeContext, packet: Packet): Outcome {
  if ((bits(packet.dword(1), 31, 24) & 1) === 0) context.queue.skip(bits(packet.dword(1), 13, 0));
  return 'next';
}

/** COND_EXEC: a zero at the address skips the number of dwords in the last one. */
export function conditionalExecution(context: ComputeContext, packet: Packet): Outcome {
  const flag = packet.space.readU32(address48(packet.dword(1) & ~3, packet.dword(2)));
  if (flag === 0) context.queue.skip(bits(packet.dword(4), 13, 0));
  return 'next';
}
