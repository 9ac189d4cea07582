/** PM4 packets that move and compare data, in memory and in registers. Layouts: soc15d.h PACKET3_*. */

import { COST } from 'ghostbus/kit';
import { address48, bits } from '../bus/registers.js';
import { applyAtomic, semaphore } from './atomics.js';
import { compare, inPieces, join, type Outcome, type Packet, PIECE_BYTES, qword, writeRegister } from './packet.js';
import type { ComputeContext } from './pm4-context.js';

/** DST_SEL and SRC_SEL values (soc15d.h PACKET3_COPY_DATA__*). This ASIC has no GDS (gfx_v9_0_set_gds_init). */
const SELECT = {
  REGISTER: 0,
  MEMORY_GRBM: 1,
  L2: 2,
  MEMORY: 5,
  IMMEDIATE: 5,
  ATOMIC_RETURN: 6,
  GPU_CLOCK: 9,
  SYSTEM_CLOCK: 10,
} as const;

function isMemory(select: number): boolean {
  return select === SELECT.MEMORY_GRBM || select === SELECT.L2 || select === SELECT.MEMORY;
}

export function writeData(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(1);
  const count = packet.lengthDwords - 4;
  const increment = bits(control, 16, 16) === 0;
  const select = bits(control, 11, 8);
  if (select === SELECT.REGISTER) {
    const first = bits(packet.dword(2), 17, 0);
    for (let index = 0; index < count; index++) {
      writeRegister(context, packet, first + (increment ? index : 0), packet.dword(4 + index));
    }
    return 'next';
  }
  if (!isMemory(select)) return 'error';
  const address = address48(packet.dword(2) & ~3, packet.dword(3));
  if (increment) packet.space.write(address, packet.payload(4, count));
  else if (count > 0) packet.space.writeU32(address, packet.dword(packet.lengthDwords - 1));
  return 'next';
}

export function releaseMemory(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(2);
  const address = address48(packet.dword(3) & ~3, packet.dword(4));
  // DATA_SEL b31:29, INT_SEL b26:24 (soc15d.h PACKET3_RELEASE_MEM); beyond 4 it is about GDS, which this ASIC has not.
  const dataSelect = bits(control, 31, 29);
  if (dataSelect > 4) return 'error';
  if (dataSelect === 1) packet.space.writeU32(address, packet.dword(5));
  else if (dataSelect === 2) packet.space.writeU64(address, qword(packet, 5));
  else if (dataSelect >= 3) packet.space.writeU64(address, context.timestamp());
  const interruptSelect = bits(control, 26, 24);
  if (interruptSelect === 1 || interruptSelect === 2) context.endOfPipe(packet.space.vmid, packet.dword(7));
  return 'next';
}

export function waitRegisterOrMemory(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(1);
  const [reference, mask] = [packet.dword(4), packet.dword(5)];
  const func = bits(control, 2, 0);
  // OPERATION b7:6 = 1: write the reference to one register, then poll another until it shows the masked reference.
  if (bits(control, 7, 6) === 1) {
    if (context.queue.progress === 0) writeRegister(context, packet, bits(packet.dword(2), 17, 0), reference);
    context.queue.progress = 1;
    const value = context.readRegister(bits(packet.dword(3), 17, 0));
    return compare(func, (value & mask) >>> 0, (reference & mask) >>> 0) ? 'next' : 'wait';
  }
  const value =
    bits(control, 5, 4) === 1
      ? packet.space.readU32(address48(packet.dword(2) & ~3, packet.dword(3)))
      : context.readRegister(bits(packet.dword(2), 17, 0));
  return compare(func, (value & mask) >>> 0, reference) ? 'next' : 'wait';
}

export function copyData(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(1);
  const wide = bits(control, 16, 16) === 1;
  const [from, to] = [bits(control, 3, 0), bits(control, 11, 8)];
  const source = address48(packet.dword(2) & ~3, packet.dword(3));
  let value: bigint;
  if (from === SELECT.REGISTER) {
    const dword = bits(packet.dword(2), 17, 0);
    value = join(context.readRegister(dword), wide ? context.readRegister(dword + 1) : 0);
  } else if (from === SELECT.IMMEDIATE) value = qword(packet, 2);
  else if (from === SELECT.ATOMIC_RETURN) value = context.atomicResult;
  else if (from === SELECT.GPU_CLOCK || from === SELECT.SYSTEM_CLOCK) value = context.timestamp();
  else if (isMemory(from)) value = wide ? packet.space.readU64(source) : BigInt(packet.space.readU32(source));
  else return 'error';
  return storeCopied(context, packet, to, value, wide);
}

function storeCopied(context: ComputeContext, packet: Packet, to: number, value: bigint, wide: boolean): Outcome {
  const low = Number(value & 0xffff_ffffn);
  if (to === SELECT.REGISTER) {
    const dword = bits(packet.dword(4), 17, 0);
    writeRegister(context, packet, dword, low);
    if (wide) writeRegister(context, packet, dword + 1, Number(value >> 32n));
    return 'next';
  }
  if (!isMemory(to)) return 'error';
  const address = address48(packet.dword(4) & ~3, packet.dword(5));
  if (wide) packet.space.writeU64(address, value);
  else packet.space.writeU32(address, low);
  return 'next';
}

/** DMA_DATA: SRC_SEL b30:29 (2 = immediate), DST_SEL b21:20; byte count b25:0 and SAS b26, DAS b27 in the last dword. */
export function dmaData(context: ComputeContext, packet: Packet): Outcome {
  const [control, command] = [packet.dword(1), packet.dword(6)];
  const [from, to] = [bits(control, 30, 29), bits(control, 21, 20)];
  // 1 = GDS, which this ASIC has not; 2 is no destination.
  if (from === 1 || to === 1 || to === 2) return 'error';
  if (bits(command, 27, 26) !== 0) return dmaRegisters(context, packet, from === 2);
  const destination = address48(packet.dword(4), packet.dword(5));
  const source = address48(packet.dword(2), packet.dword(3));
  const bytes = { unitCost: COST.byte, granularity: PIECE_BYTES };
  return inPieces(context.queue, bits(command, 25, 0), bytes, (start, count) => {
    if (from === 2) packet.space.fill(destination + start, packet.dword(2), count);
    else packet.space.copy(destination + start, source + start, count);
  });
}

/** Registers that DMA_DATA may move at once: a few pages of them. */
const MOST_DMA_REGISTERS = 4096;

/** DMA_DATA with SAS b26 (source) or DAS b27 (destination) in register space, byte addresses; SAIC b28, DAIC b29: stay there. */
function dmaRegisters(context: ComputeContext, packet: Packet, immediate: boolean): Outcome {
  const command = packet.dword(6);
  const [source, destination] = [
    address48(packet.dword(2), packet.dword(3)),
    address48(packet.dword(4), packet.dword(5)),
  ];
  const count = Math.ceil(bits(command, 25, 0) / 4);
  if (count > MOST_DMA_REGISTERS) return 'error';
  for (let index = 0; index < count; index++) {
    const from = source + (bits(command, 28, 28) === 1 ? 0 : 4 * index);
    const to = destination + (bits(command, 29, 29) === 1 ? 0 : 4 * index);
    let value = packet.dword(2);
    if (!immediate) value = bits(command, 26, 26) === 1 ? context.readRegister(from / 4) : packet.space.readU32(from);
    if (bits(command, 27, 27) === 1) writeRegister(context, packet, Math.floor(to / 4), value);
    else packet.space.writeU32(to, value);
  }
  return 'next';
}

/** ATOMIC b6:0, COMMAND b11:8: 1 = repeat until the comparison holds. */
export function atomicMemory(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(1);
  const result = applyAtomic(packet.space, {
    code: bits(control, 6, 0),
    address: address48(packet.dword(2), packet.dword(3)),
    source: qword(packet, 4),
    compare: qword(packet, 6),
  });
  if (result === undefined) return 'error';
  if (bits(control, 11, 8) === 1 && !result.satisfied) return 'wait';
  if (result.returns) context.atomicResult = result.previous;
  return 'next';
}

/** SEM_SEL b31:29: 6 = signal, 7 = wait; SIGNAL_TYPE b20: 1 = write one; USE_MAILBOX b16 (soc15d.h PACKET3_SEM_*). */
export function memorySemaphore(_context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(2);
  const address = address48(packet.dword(1) & ~7, control);
  const select = bits(control, 31, 29);
  if (bits(control, 16, 16) === 1 || select < 6) return 'error';
  if (select === 7) return semaphore(packet.space, address, 'wait');
  return semaphore(packet.space, address, bits(control, 20, 20) === 1 ? 'write one' : 'signal');
}
