/** PM4 packets that move and compare data, in memory and in registers. Layouts: soc15d.h PACKET3_*. */

import { BitFields32, COST } from 'ghostbus/kit';
import { address48 } from '../bus/registers.js';
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

/** A register by its dword number. */
const REGISTER = new BitFields32({ REG: [0, 18] });

const WRITE_DATA = new BitFields32({ DST_SEL: [8, 4], WR_ONE_ADDR: [16, 1] });

export function writeData(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(1);
  const count = packet.lengthDwords - 4;
  const increment = !WRITE_DATA.has(control, 'WR_ONE_ADDR');
  const select = WRITE_DATA.get(control, 'DST_SEL');
  if (select === SELECT.REGISTER) {
    const first = REGISTER.get(packet.dword(2), 'REG');
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

const RELEASE_MEM = new BitFields32({ INT_SEL: [24, 3], DATA_SEL: [29, 3] });
const DATA_SEL = { NONE: 0, LOW_32: 1, WIDE_64: 2, GPU_CLOCK: 3, SYSTEM_CLOCK: 4 } as const;
const INT_SEL = { NONE: 0, AT_ONCE: 1, AFTER_WRITE: 2 } as const;

export function releaseMemory(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(2);
  const address = address48(packet.dword(3) & ~3, packet.dword(4));
  const { DATA_SEL: data, INT_SEL: interrupt } = RELEASE_MEM.unpack(control);
  // Beyond that it is about GDS, which this ASIC has not.
  if (data > DATA_SEL.SYSTEM_CLOCK) return 'error';
  if (data === DATA_SEL.LOW_32) packet.space.writeU32(address, packet.dword(5));
  else if (data === DATA_SEL.WIDE_64) packet.space.writeU64(address, qword(packet, 5));
  else if (data >= DATA_SEL.GPU_CLOCK) packet.space.writeU64(address, context.timestamp());
  if (interrupt === INT_SEL.AT_ONCE || interrupt === INT_SEL.AFTER_WRITE)
    context.endOfPipe(packet.space.vmid, packet.dword(7));
  return 'next';
}

const WAIT_REG_MEM = new BitFields32({ FUNCTION: [0, 3], MEM_SPACE: [4, 2], OPERATION: [6, 2] });
const OPERATION_WRITE_THEN_WAIT = 1;
const MEM_SPACE_MEMORY = 1;

export function waitRegisterOrMemory(context: ComputeContext, packet: Packet): Outcome {
  const { FUNCTION, MEM_SPACE, OPERATION } = WAIT_REG_MEM.unpack(packet.dword(1));
  const [reference, mask] = [packet.dword(4), packet.dword(5)];
  const register = REGISTER.get(packet.dword(2), 'REG');
  // Write the reference to one register, then poll another until it shows the masked reference.
  if (OPERATION === OPERATION_WRITE_THEN_WAIT) {
    if (context.queue.progress === 0) writeRegister(context, packet, register, reference);
    context.queue.progress = 1;
    const value = context.readRegister(REGISTER.get(packet.dword(3), 'REG'));
    return compare(FUNCTION, (value & mask) >>> 0, (reference & mask) >>> 0) ? 'next' : 'wait';
  }
  const value =
    MEM_SPACE === MEM_SPACE_MEMORY
      ? packet.space.readU32(address48(packet.dword(2) & ~3, packet.dword(3)))
      : context.readRegister(register);
  return compare(FUNCTION, (value & mask) >>> 0, reference) ? 'next' : 'wait';
}

const COPY_DATA = new BitFields32({ SRC_SEL: [0, 4], DST_SEL: [8, 4], COUNT_SEL: [16, 1] });

export function copyData(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(1);
  const { SRC_SEL: from, DST_SEL: to } = COPY_DATA.unpack(control);
  const wide = COPY_DATA.has(control, 'COUNT_SEL');
  const source = address48(packet.dword(2) & ~3, packet.dword(3));
  let value: bigint;
  if (from === SELECT.REGISTER) {
    const dword = REGISTER.get(packet.dword(2), 'REG');
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
    const dword = REGISTER.get(packet.dword(4), 'REG');
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

/** DMA_DATA, first dword and last. */
const DMA_DATA = new BitFields32({ DST_SEL: [20, 2], SRC_SEL: [29, 2] });
/** SAS, DAS: source or destination is in register space, by byte address; SAIC, DAIC: it stays at one address. */
const DMA_COMMAND = new BitFields32({ BYTE_COUNT: [0, 26], SAS: [26, 1], DAS: [27, 1], SAIC: [28, 1], DAIC: [29, 1] });
const DMA_SELECT = { GDS: 1, IMMEDIATE: 2 } as const;

export function dmaData(context: ComputeContext, packet: Packet): Outcome {
  const { SRC_SEL: from, DST_SEL: to } = DMA_DATA.unpack(packet.dword(1));
  const { BYTE_COUNT, SAS, DAS } = DMA_COMMAND.unpack(packet.dword(6));
  // This ASIC has no GDS.
  if (from === DMA_SELECT.GDS || to === DMA_SELECT.GDS || to === DMA_SELECT.IMMEDIATE) return 'error';
  const immediate = from === DMA_SELECT.IMMEDIATE;
  if (SAS + DAS > 0) return dmaRegisters(context, packet, immediate);
  const destination = address48(packet.dword(4), packet.dword(5));
  const source = address48(packet.dword(2), packet.dword(3));
  const bytes = { unitCost: COST.byte, granularity: PIECE_BYTES };
  return inPieces(context.queue, BYTE_COUNT, bytes, (start, count) => {
    if (immediate) packet.space.fill(destination + start, packet.dword(2), count);
    else packet.space.copy(destination + start, source + start, count);
  });
}

/** Registers that DMA_DATA may move at once: a few pages of them. */
const MOST_DMA_REGISTERS = 4096;

function dmaRegisters(context: ComputeContext, packet: Packet, immediate: boolean): Outcome {
  const { BYTE_COUNT, SAS, DAS, SAIC, DAIC } = DMA_COMMAND.unpack(packet.dword(6));
  const source = address48(packet.dword(2), packet.dword(3));
  const destination = address48(packet.dword(4), packet.dword(5));
  const count = Math.ceil(BYTE_COUNT / 4);
  if (count > MOST_DMA_REGISTERS) return 'error';
  return inPieces(context.queue, count, { unitCost: COST.byte }, (start, steps) => {
    for (let index = start; index < start + steps; index++) {
      const from = source + (SAIC === 1 ? 0 : 4 * index);
      const to = destination + (DAIC === 1 ? 0 : 4 * index);
      let value = packet.dword(2);
      if (!immediate) value = SAS === 1 ? context.readRegister(from / 4) : packet.space.readU32(from);
      if (DAS === 1) writeRegister(context, packet, Math.floor(to / 4), value);
      else packet.space.writeU32(to, value);
    }
  });
}

const ATOMIC_MEM = new BitFields32({ ATOMIC: [0, 7], COMMAND: [8, 4] });
/** Repeat until the comparison holds. */
const COMMAND_LOOP = 1;

export function atomicMemory(context: ComputeContext, packet: Packet): Outcome {
  const { ATOMIC, COMMAND } = ATOMIC_MEM.unpack(packet.dword(1));
  const result = applyAtomic(packet.space, {
    code: ATOMIC,
    address: address48(packet.dword(2), packet.dword(3)),
    source: qword(packet, 4),
    compare: qword(packet, 6),
  });
  if (result === undefined) return 'error';
  if (COMMAND === COMMAND_LOOP && !result.satisfied) return 'wait';
  if (result.returns) context.atomicResult = result.previous;
  return 'next';
}

/** soc15d.h PACKET3_SEM_*. SIGNAL_TYPE 1 writes one instead of adding it. */
const MEM_SEMAPHORE = new BitFields32({ USE_MAILBOX: [16, 1], SIGNAL_TYPE: [20, 1], SEM_SEL: [29, 3] });
const SEM_SEL = { SIGNAL: 6, WAIT: 7 } as const;

export function memorySemaphore(_context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(2);
  const address = address48(packet.dword(1) & ~7, control);
  const select = MEM_SEMAPHORE.get(control, 'SEM_SEL');
  if (MEM_SEMAPHORE.has(control, 'USE_MAILBOX') || select < SEM_SEL.SIGNAL) return 'error';
  if (select === SEM_SEL.WAIT) return semaphore(packet.space, address, 'wait');
  return semaphore(packet.space, address, MEM_SEMAPHORE.has(control, 'SIGNAL_TYPE') ? 'write one' : 'signal');
}
