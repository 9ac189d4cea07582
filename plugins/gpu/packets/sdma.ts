/**
 * SDMA 4.x packets as data: opcode, length, meaning (kernel: amdgpu/vega10_sdma_pkt_open.h for layouts, sdma_v4_0.c for
 * what the driver sends). The README's support table lists exactly what stands here.
 */

import { BitFields32, COST } from 'ghostbus/kit';
import { address48 } from '../bus/registers.js';
import { type AtomicResult, applyAtomic, semaphore } from './atomics.js';
import {
  compare,
  inPieces,
  type Outcome,
  type Packet,
  type PacketContext,
  PIECE_BYTES,
  qword,
  writeRegister,
} from './packet.js';

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

interface SdmaPacket {
  readonly name: string;
  readonly op: number;
  readonly subOp: number;
  /** Dwords including the header. Default: `dwords`. */
  readonly lengthOf?: (header: number, peek: (index: number) => number | undefined) => number;
  readonly dwords: number;
  readonly run: (context: SdmaContext, packet: Packet, header: number) => Outcome;
}

/** Bytes that are copied or filled. */
const BYTES = { unitCost: COST.byte, granularity: PIECE_BYTES } as const;
/** Dwords that are read from the ring one by one, and page table entries that are computed: about 8 and 32 ns. */
const DWORDS = { unitCost: 32 } as const;
const ENTRIES = { unitCost: 128 } as const;

/** Fields of headers, by packet (vega10_sdma_pkt_open.h); OP and SUB_OP are in all of them. */
const HEADER = {
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
const FIELD = {
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

/** With BROADCAST a second destination follows the first. */
function copyLinear(context: SdmaContext, packet: Packet, header: number): Outcome {
  const source = address48(packet.dword(3), packet.dword(4));
  const destinations = [address48(packet.dword(5), packet.dword(6))];
  if (HEADER.COPY_LINEAR.has(header, 'BROADCAST')) destinations.push(address48(packet.dword(7), packet.dword(8)));
  return inPieces(context.queue, FIELD.BYTE_COUNT.get(packet.dword(1), 'COUNT') + 1, BYTES, (start, count) => {
    for (const destination of destinations) packet.space.copy(destination + start, source + start, count);
  });
}

/** One side of a sub-window copy: where element (x, y, z) lies, from five dwords of the packet. */
function windowOf(packet: Packet, first: number, elementBytes: number): (y: number, z: number) => number {
  const base = address48(packet.dword(first), packet.dword(first + 1));
  const { X, Y } = FIELD.XY.unpack(packet.dword(first + 2));
  const { Z, PITCH } = FIELD.Z_PITCH.unpack(packet.dword(first + 3));
  const slicePitch = FIELD.SLICE_PITCH.get(packet.dword(first + 4), 'PITCH') + 1;
  return (row, slice) => base + elementBytes * (X + (Y + row) * (PITCH + 1) + (Z + slice) * slicePitch);
}

/** A box of elements between two pitched images; extents and pitches are in elements, less one. */
function copyLinearSubWindow({ queue }: SdmaContext, packet: Packet, header: number): Outcome {
  const elementBytes = 2 ** HEADER.COPY_SUB_WINDOW.get(header, 'ELEMENT_SIZE');
  if (elementBytes > 16) return 'error';
  const [source, destination] = [windowOf(packet, 1, elementBytes), windowOf(packet, 6, elementBytes)];
  const extent = FIELD.XY.unpack(packet.dword(11));
  const rowBytes = (extent.X + 1) * elementBytes;
  const height = extent.Y + 1;
  const rows = height * (FIELD.Z_PITCH.get(packet.dword(12), 'Z') + 1);
  // A row costs page walks, however short it is.
  return inPieces(queue, rows, { unitCost: Math.max(rowBytes, PIECE_BYTES) * COST.byte }, (start, count) => {
    for (let row = start; row < start + count; row++) {
      const [y, z] = [row % height, Math.floor(row / height)];
      packet.space.copy(destination(y, z), source(y, z), rowBytes);
    }
  });
}

function writeLinear(context: SdmaContext, packet: Packet): Outcome {
  const destination = address48(packet.dword(1), packet.dword(2));
  return inPieces(context.queue, FIELD.DWORD_COUNT.get(packet.dword(3), 'COUNT') + 1, DWORDS, (start, count) =>
    packet.space.write(destination + 4 * start, packet.payload(4 + start, count)),
  );
}

function indirect(context: SdmaContext, packet: Packet, header: number): Outcome {
  // A user's buffer stays in its own VMID.
  const vmid = packet.space.vmid === 0 ? HEADER.INDIRECT.get(header, 'VMID') : packet.space.vmid;
  const buffer = {
    space: context.space(vmid),
    address: address48(packet.dword(1) & ~0x1f, packet.dword(2)),
    sizeDwords: FIELD.IB_SIZE.get(packet.dword(3), 'SIZE'),
  };
  return context.queue.call(buffer, packet.lengthDwords) ? 'next' : 'error';
}

function fence(_context: SdmaContext, packet: Packet): Outcome {
  packet.space.writeU32(address48(packet.dword(1) & ~3, packet.dword(2)), packet.dword(3));
  return 'next';
}

function trap(context: SdmaContext, packet: Packet): Outcome {
  context.trap(packet.space.vmid, FIELD.INT_CONTEXT.get(packet.dword(1), 'CONTEXT'));
  return 'next';
}

/**
 * WRITE_ONE sets instead of adding; without SIGNAL it waits. Mailboxes belong to pairs of engines that are not here.
 */
function waitOrSignal(_context: SdmaContext, packet: Packet, header: number): Outcome {
  const { MAILBOX, SIGNAL, WRITE_ONE } = HEADER.SEM.unpack(header);
  if (MAILBOX === 1) return 'error';
  const address = address48(packet.dword(1) & ~7, packet.dword(2));
  if (SIGNAL === 0) return semaphore(packet.space, address, 'wait');
  return semaphore(packet.space, address, WRITE_ONE === 1 ? 'write one' : 'signal');
}

function pollRegisterOrMemory(context: SdmaContext, packet: Packet, header: number): Outcome {
  const [first, second, reference] = [packet.dword(1), packet.dword(2), packet.dword(3)];
  const { HDP_FLUSH, FUNC, MEM_POLL } = HEADER.POLL_REGMEM.unpack(header);
  let value: number;
  if (MEM_POLL === 1) {
    value = packet.space.readU32(address48(first & ~3, second));
  } else {
    // The second address is the request register, written once with the reference.
    if (HDP_FLUSH === 1 && context.queue.progress === 0) {
      writeRegister(context, packet, second >>> 2, reference);
      context.queue.progress = 1;
    }
    value = context.readRegister(first >>> 2);
  }
  const holds = compare(FUNC, (value & packet.dword(4)) >>> 0, reference);
  return holds ? 'next' : 'wait';
}

function copyRegisterToMemory(context: SdmaContext, packet: Packet): Outcome {
  const value = context.readRegister(packet.dword(1) >>> 2);
  packet.space.writeU32(address48(packet.dword(2) & ~3, packet.dword(3)), value);
  return 'next';
}

/** DEV_SEL is a mask of engines; the others skip the dwords counted. */
function executeOnSomeEngines(context: SdmaContext, packet: Packet, header: number): Outcome {
  const selected = (HEADER.PRE_EXE.get(header, 'DEV_SEL') >> context.engineIndex) & 1;
  if (selected === 0) context.queue.skip(FIELD.EXEC_COUNT.get(packet.dword(1), 'COUNT'));
  return 'next';
}

function conditionalExecution(context: SdmaContext, packet: Packet): Outcome {
  const value = packet.space.readU32(address48(packet.dword(1) & ~3, packet.dword(2)));
  const count = FIELD.EXEC_COUNT.get(packet.dword(4), 'COUNT');
  if (value !== packet.dword(3)) context.queue.skip(count);
  return 'next';
}

/** Times a byte, a word: a dword of nothing else. */
const EACH_BYTE = 0x0101_0101;
const EACH_WORD = 0x1_0001;

/** FILLSIZE 0: bytes, 1: 16-bit words, 2: dwords (ROCr's blit kernels and IGT use 2 for dwords). */
function constantFill(context: SdmaContext, packet: Packet, header: number): Outcome {
  const data = packet.dword(3);
  const sizeCode = HEADER.CONST_FILL.get(header, 'FILLSIZE');
  if (sizeCode === 3) return 'error';
  const value = sizeCode === 0 ? (data & 0xff) * EACH_BYTE : sizeCode === 1 ? (data & 0xffff) * EACH_WORD : data;
  const destination = address48(packet.dword(1), packet.dword(2));
  return inPieces(context.queue, FIELD.BYTE_COUNT.get(packet.dword(4), 'COUNT') + 1, BYTES, (start, count) =>
    packet.space.fill(destination + start, value, count),
  );
}

function generatePageTableEntries(context: SdmaContext, packet: Packet): Outcome {
  const destination = address48(packet.dword(1), packet.dword(2));
  const [flags, first, increment] = [qword(packet, 3), qword(packet, 5), qword(packet, 7)];
  return inPieces(context.queue, FIELD.ENTRY_COUNT.get(packet.dword(9), 'COUNT') + 1, ENTRIES, (start, count) => {
    const entries = new BigUint64Array(count);
    for (let index = 0; index < count; index++) entries[index] = (first + increment * BigInt(start + index)) | flags;
    packet.space.write(destination + 8 * start, new Uint8Array(entries.buffer));
  });
}

function setTimestamp(context: SdmaContext, packet: Packet): Outcome {
  context.setLocalTimestamp(qword(packet, 1));
  return 'next';
}

function writeTimestamp(context: SdmaContext, packet: Packet, header: number): Outcome {
  const global = HEADER.ANY.get(header, 'SUB_OP') === 2;
  const ticks = global ? context.timestamp() : context.localTimestamp();
  packet.space.writeU64(address48(packet.dword(1) & ~7, packet.dword(2)), ticks);
  return 'next';
}

function srbmWrite(context: SdmaContext, packet: Packet, header: number): Outcome {
  const dword = FIELD.REGISTER.get(packet.dword(1), 'REG');
  const enables = HEADER.SRBM_WRITE.get(header, 'BYTE_EN');
  let mask = 0;
  for (let byte = 0; byte < 4; byte++) if ((enables >> byte) & 1) mask |= 0xff << (8 * byte);
  const value = mask === -1 ? packet.dword(2) : (packet.dword(2) & mask) | (context.readRegister(dword) & ~mask);
  writeRegister(context, packet, dword, value >>> 0);
  return 'next';
}

/** LOOP: a compare-and-swap is repeated until it swaps. */
function atomic(context: SdmaContext, packet: Packet, header: number): Outcome {
  const address = address48(packet.dword(1), packet.dword(2));
  const { LOOP, ATOMIC_OP: code } = HEADER.ATOMIC.unpack(header);
  const request = { code, address, source: qword(packet, 3), compare: qword(packet, 5) };
  const result = applyAtomic(packet.space, request);
  if (result === undefined) return 'error';
  if (LOOP === 1 && !result.satisfied) return 'wait';
  context.keepAtomicResult(result);
  return 'next';
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
