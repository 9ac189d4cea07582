/**
 * SDMA 4.x packets as data: opcode, length, meaning (kernel: amdgpu/vega10_sdma_pkt_open.h for layouts, sdma_v4_0.c for
 * what the driver sends). The README's support table lists exactly what stands here.
 */
import { address48, bits } from './registers.js';
import type { CommandQueue, Outcome, Packet } from './ring.js';
import type { AddressSpace } from './vm.js';

/** What a packet can do beside touching memory. */
export interface SdmaContext {
  readonly queue: CommandQueue;
  /** VMID of an indirect buffer becomes a view of memory. */
  space(vmid: number): AddressSpace;
  readRegister(dword: number): number;
  writeRegister(dword: number, value: number): void;
  /** A user's commands tried to write a register. */
  protectedRegister(dword: number): void;
  /** Raises the trap interrupt. */
  trap(vmid: number, context: number): void;
  timestamp(): bigint;
}

export interface SdmaPacket {
  readonly name: string;
  readonly op: number;
  readonly subOp: number;
  /** Dwords including the header. Default: `dwords`. */
  readonly lengthOf?: (header: number, peek: (index: number) => number | undefined) => number;
  readonly dwords: number;
  readonly run: (context: SdmaContext, packet: Packet, header: number) => Outcome;
}

/** Entries or dwords moved per step of a long packet. */
const STEP_ENTRIES = 16 * 1024;

const PAGE_BYTES = 4096;

/** Compares as POLL_REGMEM's func field says (vega10_sdma_pkt_open.h; the same numbers as PM4 WAIT_REG_MEM). */
export function compare(func: number, value: number, reference: number): boolean {
  switch (func) {
    case 0:
      return true;
    case 1:
      return value < reference;
    case 2:
      return value <= reference;
    case 3:
      return value === reference;
    case 4:
      return value !== reference;
    case 5:
      return value >= reference;
    case 6:
      return value > reference;
    default:
      return false;
  }
}

/** Does `total` units of work in pieces; `step` gets where the piece starts and how long it is. */
function inSlices(
  context: SdmaContext,
  total: number,
  bytesPerUnit: number,
  step: (start: number, count: number) => void,
): Outcome {
  const queue = context.queue;
  // Whole pages, so that a fill's pattern keeps its phase from piece to piece.
  const affordable = Math.max(1, Math.floor(queue.budgetBytes / PAGE_BYTES)) * (PAGE_BYTES / bytesPerUnit);
  const count = Math.min(total - queue.progress, affordable, bytesPerUnit === 1 ? total : STEP_ENTRIES);
  step(queue.progress, count);
  queue.progress += count;
  queue.budgetBytes -= count * bytesPerUnit;
  return queue.progress >= total ? 'next' : 'again';
}

function copyLinear(context: SdmaContext, packet: Packet, header: number): Outcome {
  // broadcast b27: two destinations; the driver never asks for it.
  if (bits(header, 27, 27) === 1) return 'error';
  const source = address48(packet.dword(3), packet.dword(4));
  const destination = address48(packet.dword(5), packet.dword(6));
  // The field is 22 bits wide here, 30 on SDMA 4.4 (amdgpu_copy_buffer splits accordingly); wider is accepted.
  return inSlices(context, bits(packet.dword(1), 29, 0) + 1, 1, (start, count) =>
    packet.space.copy(destination + start, source + start, count),
  );
}

function writeLinear(context: SdmaContext, packet: Packet): Outcome {
  const destination = address48(packet.dword(1), packet.dword(2));
  return inSlices(context, bits(packet.dword(3), 19, 0) + 1, 4, (start, count) =>
    packet.space.write(destination + 4 * start, packet.payload(4 + start, count)),
  );
}

function indirect(context: SdmaContext, packet: Packet, header: number): Outcome {
  // A user's buffer stays in its own VMID.
  const vmid = packet.space.vmid === 0 ? bits(header, 19, 16) : packet.space.vmid;
  const buffer = {
    space: context.space(vmid),
    address: address48(packet.dword(1) & ~0x1f, packet.dword(2)),
    sizeDwords: bits(packet.dword(3), 19, 0),
  };
  return context.queue.call(buffer, packet.lengthDwords) ? 'next' : 'error';
}

function fence(_context: SdmaContext, packet: Packet): Outcome {
  packet.space.writeU32(address48(packet.dword(1) & ~3, packet.dword(2)), packet.dword(3));
  return 'next';
}

function trap(context: SdmaContext, packet: Packet): Outcome {
  context.trap(packet.space.vmid, bits(packet.dword(1), 27, 0));
  return 'next';
}

function pollRegisterOrMemory(context: SdmaContext, packet: Packet, header: number): Outcome {
  const [first, second, reference] = [packet.dword(1), packet.dword(2), packet.dword(3)];
  let value: number;
  if (bits(header, 31, 31) === 1) {
    value = packet.space.readU32(address48(first & ~3, second));
  } else {
    // hdp_flush b26: the second address is the request register, written once with the reference.
    if (bits(header, 26, 26) === 1 && context.queue.progress === 0) {
      writeRegister(context, packet, second >>> 2, reference);
      context.queue.progress = 1;
    }
    value = context.readRegister(first >>> 2);
  }
  const holds = compare(bits(header, 30, 28), (value & packet.dword(4)) >>> 0, reference);
  return holds ? 'next' : 'wait';
}

function conditionalExecution(context: SdmaContext, packet: Packet): Outcome {
  const value = packet.space.readU32(address48(packet.dword(1) & ~3, packet.dword(2)));
  const count = bits(packet.dword(4), 13, 0);
  if (value !== packet.dword(3)) context.queue.skip(count);
  return 'next';
}

/** 0: bytes, 1: 16-bit words, 2: dwords (fillsize b31:30; ROCr's blit kernels and IGT use 2 for dwords). */
function constantFill(context: SdmaContext, packet: Packet, header: number): Outcome {
  const data = packet.dword(3);
  const sizeCode = bits(header, 31, 30);
  if (sizeCode === 3) return 'error';
  const value = sizeCode === 0 ? (data & 0xff) * 0x0101_0101 : sizeCode === 1 ? (data & 0xffff) * 0x1_0001 : data;
  const destination = address48(packet.dword(1), packet.dword(2));
  return inSlices(context, bits(packet.dword(4), 29, 0) + 1, 1, (start, count) =>
    packet.space.fill(destination + start, value, count),
  );
}

function generatePageTableEntries(context: SdmaContext, packet: Packet): Outcome {
  const destination = address48(packet.dword(1), packet.dword(2));
  const flags = (BigInt(packet.dword(4)) << 32n) | BigInt(packet.dword(3));
  const first = (BigInt(packet.dword(6)) << 32n) | BigInt(packet.dword(5));
  const increment = (BigInt(packet.dword(8)) << 32n) | BigInt(packet.dword(7));
  return inSlices(context, bits(packet.dword(9), 18, 0) + 1, 8, (start, count) => {
    const entries = new BigUint64Array(count);
    for (let index = 0; index < count; index++) entries[index] = (first + increment * BigInt(start + index)) | flags;
    packet.space.write(destination + 8 * start, new Uint8Array(entries.buffer));
  });
}

function timestamp(context: SdmaContext, packet: Packet): Outcome {
  packet.space.writeU64(address48(packet.dword(1) & ~7, packet.dword(2)), context.timestamp());
  return 'next';
}

function writeRegister(context: SdmaContext, packet: Packet, dword: number, value: number): void {
  if (packet.space.vmid === 0) context.writeRegister(dword, value);
  else context.protectedRegister(dword);
}

function srbmWrite(context: SdmaContext, packet: Packet, header: number): Outcome {
  const dword = bits(packet.dword(1), 17, 0);
  const enables = bits(header, 31, 28);
  let mask = 0;
  for (let byte = 0; byte < 4; byte++) if ((enables >> byte) & 1) mask |= 0xff << (8 * byte);
  const value = mask === -1 ? packet.dword(2) : (packet.dword(2) & mask) | (context.readRegister(dword) & ~mask);
  writeRegister(context, packet, dword, value >>> 0);
  return 'next';
}

/** SDMA_ATOMIC ops that ROCr uses to decrement signals: ADD32 and ADD64 (ROCr sdma_registers.h). */
const ATOMIC = { ADD32: 15, ADD64: 47 } as const;

function atomic(_context: SdmaContext, packet: Packet, header: number): Outcome {
  const address = address48(packet.dword(1), packet.dword(2));
  const operation = bits(header, 31, 25);
  if (operation === ATOMIC.ADD32) packet.space.writeU32(address, packet.space.readU32(address) + packet.dword(3));
  else if (operation === ATOMIC.ADD64) {
    const addend = (BigInt(packet.dword(4)) << 32n) | BigInt(packet.dword(3));
    packet.space.writeU64(address, packet.space.readU64(address) + addend);
  } else return 'error';
  return 'next';
}

/** A packet whose length depends on its fourth dword: 4 + count (WRITE_UNTILED DW_3 count is one less). */
function writeLength(_header: number, peek: (index: number) => number | undefined): number {
  const count = peek(3);
  return count === undefined ? 4 : 5 + bits(count, 19, 0);
}

export const SDMA_PACKETS: readonly SdmaPacket[] = [
  { name: 'NOP', op: 0, subOp: 0, dwords: 1, lengthOf: (header) => 1 + bits(header, 29, 16), run: () => 'next' },
  { name: 'COPY linear', op: 1, subOp: 0, dwords: 7, run: copyLinear },
  { name: 'WRITE linear', op: 2, subOp: 0, dwords: 5, lengthOf: writeLength, run: writeLinear },
  { name: 'INDIRECT', op: 4, subOp: 0, dwords: 6, run: indirect },
  { name: 'FENCE', op: 5, subOp: 0, dwords: 4, run: fence },
  { name: 'TRAP', op: 6, subOp: 0, dwords: 2, run: trap },
  { name: 'POLL_REGMEM', op: 8, subOp: 0, dwords: 6, run: pollRegisterOrMemory },
  { name: 'COND_EXE', op: 9, subOp: 0, dwords: 5, run: conditionalExecution },
  { name: 'ATOMIC', op: 10, subOp: 0, dwords: 8, run: atomic },
  { name: 'CONST_FILL', op: 11, subOp: 0, dwords: 5, run: constantFill },
  { name: 'PTEPDE_GEN', op: 12, subOp: 0, dwords: 10, run: generatePageTableEntries },
  { name: 'TIMESTAMP get', op: 13, subOp: 1, dwords: 3, run: timestamp },
  { name: 'TIMESTAMP get global', op: 13, subOp: 2, dwords: 3, run: timestamp },
  { name: 'SRBM_WRITE', op: 14, subOp: 0, dwords: 3, run: srbmWrite },
];

const BY_CODE = new Map(SDMA_PACKETS.map((packet) => [packet.op | (packet.subOp << 8), packet]));

/** The packet that a header starts; op b7:0, sub-op b15:8. */
export function sdmaPacket(header: number): SdmaPacket | undefined {
  return BY_CODE.get(header & 0xffff);
}
