/**
 * PM4 type-3 packets of the compute command processor as data (kernel: amdgpu/soc15d.h for layouts, gfx_v9_0.c for what the
 * driver sends). The README's support table lists exactly what stands here.
 */

import { address48, bits } from '../bus/registers.js';
import type { AddressSpace } from '../memory/address-space.js';
import type { CommandQueue, Outcome, Packet } from '../queues/command-queue.js';
import type { HardwareScheduler, QueueEngine } from '../queues/hws.js';
import { applyAtomic, semaphore } from './atomics.js';
import { compare } from './sdma.js';

/** What a packet can do beside touching memory. */
export interface ComputeContext {
  readonly queue: CommandQueue;
  space(vmid: number): AddressSpace;
  readRegister(dword: number): number;
  writeRegister(dword: number, value: number): void;
  /** A user's commands tried to touch a privileged register. */
  protectedRegister(dword: number): void;
  endOfPipe(vmid: number, contextId: number): void;
  timestamp(): bigint;
  /** The previous value of the last atomic operation (CP_ATOMIC_PREOP). */
  atomicResult: bigint;
  /** A dispatch that no compute unit will run: counted and said once. */
  dispatch(): void;
  mapQueue(request: MapQueueRequest): void;
  unmapQueues(request: UnmapQueuesRequest): void;
  readonly scheduler: HardwareScheduler;
}

/** MAP_QUEUES for one queue. */
export interface MapQueueRequest {
  /** False: `me`, `pipe`, `queue` are given. True: the scheduler chooses. */
  readonly scheduled: boolean;
  readonly me: number;
  readonly pipe: number;
  readonly queue: number;
  /** `interface`: the queue through which amdkfd maps the others. Undefined: none of this ASIC's. */
  readonly engine: QueueEngine | 'interface' | undefined;
  readonly doorbellDword: number;
  readonly mqdAddress: number;
  readonly wptrAddress: number;
}

/** UNMAP_QUEUES: the queues of some doorbells, of one process, or all that the scheduler connected. */
export type UnmapQueuesRequest =
  | { readonly doorbellDwords: readonly number[] }
  | { readonly pasid: number }
  | { readonly all: true };

/** `implemented`: does what hardware does. `ignored`: accepted, nothing happens, and nothing here would show it. */
export type PacketSupport = 'implemented' | 'ignored' | 'lie';

export interface ComputePacket {
  readonly name: string;
  readonly op: number;
  readonly support: PacketSupport;
  readonly run: (context: ComputeContext, packet: Packet) => Outcome;
}

/** Where the packets that set registers count from, and what of that a user's commands may set (soc15d.h PACKET3_SET_*). */
const REGISTER_SPACES = {
  CONFIG: { first: 0x2000, userEnd: 0x2000 },
  SH: { first: 0x2c00, userEnd: 0x3000 },
  CONTEXT: { first: 0xa000, userEnd: 0xa400 },
  UCONFIG: { first: 0xc000, userEnd: 0xc400 },
} as const;

function setRegisters({ first, userEnd }: { first: number; userEnd: number }): ComputePacket['run'] {
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

/** Register writes of a user's commands are refused, as the CP's protection does (interrupt source 184). */
function writeRegister(context: ComputeContext, packet: Packet, dword: number, value: number): void {
  if (packet.space.vmid === 0) context.writeRegister(dword, value);
  else context.protectedRegister(dword);
}

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

function writeData(context: ComputeContext, packet: Packet): Outcome {
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

function indirectBuffer(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(3);
  const vmid = packet.space.vmid === 0 ? bits(control, 27, 24) : packet.space.vmid;
  const buffer = {
    space: context.space(vmid),
    address: address48(packet.dword(1) & ~3, packet.dword(2)),
    sizeDwords: bits(control, 19, 0),
  };
  return context.queue.call(buffer, packet.lengthDwords, bits(control, 20, 20) === 1) ? 'next' : 'error';
}

function releaseMemory(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(2);
  const address = address48(packet.dword(3) & ~3, packet.dword(4));
  // DATA_SEL b31:29, INT_SEL b26:24 (soc15d.h PACKET3_RELEASE_MEM); beyond 4 it is about GDS, which this ASIC has not.
  const dataSelect = bits(control, 31, 29);
  if (dataSelect > 4) return 'error';
  if (dataSelect === 1) packet.space.writeU32(address, packet.dword(5));
  else if (dataSelect === 2) packet.space.writeU64(address, join(packet.dword(5), packet.dword(6)));
  else if (dataSelect >= 3) packet.space.writeU64(address, context.timestamp());
  const interruptSelect = bits(control, 26, 24);
  if (interruptSelect === 1 || interruptSelect === 2) context.endOfPipe(packet.space.vmid, packet.dword(7));
  return 'next';
}

function join(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

function waitRegisterOrMemory(context: ComputeContext, packet: Packet): Outcome {
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

function copyData(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(1);
  const wide = bits(control, 16, 16) === 1;
  const [from, to] = [bits(control, 3, 0), bits(control, 11, 8)];
  const source = address48(packet.dword(2) & ~3, packet.dword(3));
  let value: bigint;
  if (from === SELECT.REGISTER) {
    const dword = bits(packet.dword(2), 17, 0);
    value = join(context.readRegister(dword), wide ? context.readRegister(dword + 1) : 0);
  } else if (from === SELECT.IMMEDIATE) value = join(packet.dword(2), packet.dword(3));
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
function dmaData(context: ComputeContext, packet: Packet): Outcome {
  const [control, command] = [packet.dword(1), packet.dword(6)];
  const [from, to] = [bits(control, 30, 29), bits(control, 21, 20)];
  // 1 = GDS, which this ASIC has not; 2 is no destination.
  if (from === 1 || to === 1 || to === 2) return 'error';
  if (bits(command, 27, 26) !== 0) return dmaRegisters(context, packet, from === 2);
  const queue = context.queue;
  const total = bits(command, 25, 0);
  const destination = address48(packet.dword(4), packet.dword(5));
  const count = Math.min(total - queue.progress, Math.max(4096, queue.budgetBytes & ~4095));
  if (from === 2) packet.space.fill(destination + queue.progress, packet.dword(2), count);
  else {
    const source = address48(packet.dword(2), packet.dword(3));
    packet.space.copy(destination + queue.progress, source + queue.progress, count);
  }
  queue.progress += count;
  queue.budgetBytes -= count;
  return queue.progress >= total ? 'next' : 'again';
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
function atomicMemory(context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(1);
  const result = applyAtomic(packet.space, {
    code: bits(control, 6, 0),
    address: address48(packet.dword(2), packet.dword(3)),
    source: join(packet.dword(4), packet.dword(5)),
    compare: join(packet.dword(6), packet.dword(7)),
  });
  if (result === undefined) return 'error';
  if (bits(control, 11, 8) === 1 && !result.satisfied) return 'wait';
  if (result.returns) context.atomicResult = result.previous;
  return 'next';
}

/** SEM_SEL b31:29: 6 = signal, 7 = wait; SIGNAL_TYPE b20: 1 = write one; USE_MAILBOX b16 (soc15d.h PACKET3_SEM_*). */
function memorySemaphore(_context: ComputeContext, packet: Packet): Outcome {
  const control = packet.dword(2);
  const address = address48(packet.dword(1) & ~7, control);
  const select = bits(control, 31, 29);
  if (bits(control, 16, 16) === 1 || select < 6) return 'error';
  if (select === 7) return semaphore(packet.space, address, 'wait');
  return semaphore(packet.space, address, bits(control, 20, 20) === 1 ? 'write one' : 'signal');
}

/** PRED_EXEC: VIRTUAL_XCC_ID_SELECT b31:24 is a mask of compute dies; this ASIC is one. EXEC_COUNT b13:0 dwords are skipped. */
function predicatedExecution(context: ComputeContext, packet: Packet): Outcome {
  if ((bits(packet.dword(1), 31, 24) & 1) === 0) context.queue.skip(bits(packet.dword(1), 13, 0));
  return 'next';
}

/** COND_EXEC: a zero at the address skips the number of dwords in the last one. */
function conditionalExecution(context: ComputeContext, packet: Packet): Outcome {
  const flag = packet.space.readU32(address48(packet.dword(1) & ~3, packet.dword(2)));
  if (flag === 0) context.queue.skip(bits(packet.dword(4), 13, 0));
  return 'next';
}

/** Queue management is the kernel's: its rings run in VMID 0. */
function privileged(run: ComputePacket['run']): ComputePacket['run'] {
  return (context, packet) => (packet.space.vmid === 0 ? run(context, packet) : 'error');
}

/** EXTENDED_ENGINE_SEL b3:2 and ENGINE_SEL b28:26 of MAP_QUEUES (kfd_pm4_headers_ai.h mes_map_queues_*engine_sel_enum). */
function queueEngine(extended: number, select: number): MapQueueRequest['engine'] {
  if (extended === 1) return select;
  return extended === 0 ? (['compute', 'interface', 0, 1] as const)[select] : undefined;
}

const mapQueues = privileged((context, packet) => {
  const control = packet.dword(1);
  context.mapQueue({
    // QUEUE_SEL b5:4: 1 = map_to_hws_determined_queue_slots (kfd_pm4_headers_ai.h).
    scheduled: bits(control, 5, 4) === 1,
    me: bits(control, 18, 18) + 1,
    pipe: bits(control, 17, 16),
    queue: bits(control, 15, 13),
    engine: queueEngine(bits(control, 3, 2), bits(control, 28, 26)),
    doorbellDword: bits(packet.dword(2), 27, 2),
    mqdAddress: address48(packet.dword(3) & ~3, packet.dword(4)),
    wptrAddress: address48(packet.dword(5) & ~3, packet.dword(6)),
  });
  return 'next';
});

const unmapQueues = privileged((context, packet) => {
  const control = packet.dword(1);
  // ACTION b1:0: 3 = preempt without unmapping (soc15d.h PREEMPT_QUEUES_NO_UNMAP).
  if (bits(control, 1, 0) === 3) return 'next';
  // QUEUE_SEL b5:4: 0 = by doorbell, 1 = by PASID, 2 and 3 = all; NUM_QUEUES b31:29.
  const select = bits(control, 5, 4);
  if (select === 0) {
    const count = Math.min(bits(control, 31, 29), 4);
    const doorbellDwords = Array.from({ length: count }, (_, index) => bits(packet.dword(2 + index), 27, 2));
    context.unmapQueues({ doorbellDwords });
  } else context.unmapQueues(select === 1 ? { pasid: bits(packet.dword(2), 15, 0) } : { all: true });
  return 'next';
});

/** SET_RESOURCES from the queue of amdkfd (QUEUE_TYPE b31:29 = 1): VMIDs b15:0 of dword 1, compute queues in 2 and 3. */
const setResources = privileged((context, packet) => {
  const control = packet.dword(1);
  if (bits(control, 31, 29) === 1) {
    context.scheduler.setResources(bits(control, 15, 0), join(packet.dword(2), packet.dword(3)));
  }
  return 'next';
});

/** A run list chained from a run list repeats it, for time slices: there are none here. */
const runList = privileged((context, packet) => {
  const control = packet.dword(3);
  if (context.queue.depth > 1) return 'next';
  context.scheduler.beginRunList();
  const address = address48(packet.dword(1) & ~3, packet.dword(2));
  const buffer = { space: packet.space, address, sizeDwords: bits(control, 19, 0) };
  return context.queue.call(buffer, packet.lengthDwords) ? 'next' : 'error';
});

/** PASID b15:0 of dword 1, page directory base in 2 and 3 (pm4_mes_map_process and its aldebaran form agree). */
const mapProcess = privileged((context, packet) => {
  context.scheduler.mapProcess(bits(packet.dword(1), 15, 0), packet.dword(2), packet.dword(3));
  return 'next';
});

/** Commands complete in order, so whatever is asked about is done: the fence is written at once. */
const queryStatus = privileged((_context, packet) => {
  packet.space.writeU64(address48(packet.dword(3) & ~7, packet.dword(4)), join(packet.dword(5), packet.dword(6)));
  return 'next';
});

function dispatch(context: ComputeContext): Outcome {
  context.dispatch();
  return 'next';
}

const next = (): Outcome => 'next';

function implemented(name: string, op: number, run: ComputePacket['run']): ComputePacket {
  return { name, op, support: 'implemented', run };
}

/** Caches are not modelled, and neither is graphics or shader state. */
function ignored(name: string, op: number): ComputePacket {
  return { name, op, support: 'ignored', run: next };
}

export const PM4_PACKETS: readonly ComputePacket[] = [
  implemented('NOP', 0x10, next),
  implemented('ATOMIC_MEM', 0x1e, atomicMemory),
  implemented('COND_EXEC', 0x22, conditionalExecution),
  implemented('PRED_EXEC', 0x23, predicatedExecution),
  implemented('WRITE_DATA', 0x37, writeData),
  implemented('MEM_SEMAPHORE', 0x39, memorySemaphore),
  implemented('WAIT_REG_MEM', 0x3c, waitRegisterOrMemory),
  implemented('INDIRECT_BUFFER', 0x3f, indirectBuffer),
  implemented('COPY_DATA', 0x40, copyData),
  implemented('RELEASE_MEM', 0x49, releaseMemory),
  implemented('DMA_DATA', 0x50, dmaData),
  implemented('SET_CONFIG_REG', 0x68, setRegisters(REGISTER_SPACES.CONFIG)),
  implemented('SET_CONTEXT_REG', 0x69, setRegisters(REGISTER_SPACES.CONTEXT)),
  implemented('SET_SH_REG', 0x76, setRegisters(REGISTER_SPACES.SH)),
  implemented('SET_UCONFIG_REG', 0x79, setRegisters(REGISTER_SPACES.UCONFIG)),
  implemented('SET_RESOURCES', 0xa0, setResources),
  implemented('MAP_PROCESS', 0xa1, mapProcess),
  implemented('MAP_QUEUES', 0xa2, mapQueues),
  implemented('UNMAP_QUEUES', 0xa3, unmapQueues),
  implemented('QUERY_STATUS', 0xa4, queryStatus),
  implemented('RUN_LIST', 0xa5, runList),
  ignored('SET_BASE', 0x11),
  ignored('CLEAR_STATE', 0x12),
  { name: 'DISPATCH_DIRECT', op: 0x15, support: 'lie', run: dispatch },
  { name: 'DISPATCH_INDIRECT', op: 0x16, support: 'lie', run: dispatch },
  ignored('CONTEXT_CONTROL', 0x28),
  ignored('PFP_SYNC_ME', 0x42),
  ignored('SURFACE_SYNC', 0x43),
  ignored('EVENT_WRITE', 0x46),
  ignored('ACQUIRE_MEM', 0x58),
  ignored('LOAD_CONST_RAM', 0x80),
  ignored('WAIT_ON_CE_COUNTER', 0x86),
  ignored('SWITCH_BUFFER', 0x8b),
  ignored('FRAME_CONTROL', 0x90),
  ignored('INVALIDATE_TLBS', 0x98),
  ignored('RUN_CLEANER_SHADER', 0xd7),
];

const BY_OP = new Map(PM4_PACKETS.map((packet) => [packet.op, packet]));

/** A header's type and, for type 3, its packet and length; undefined: the CP would report a bad opcode. */
export function pm4Packet(header: number): { readonly packet: ComputePacket; readonly dwords: number } | undefined {
  const type = header >>> 30;
  const nop = BY_OP.get(0x10)!;
  // Type 2 is a one-dword filler.
  if (type === 2) return { packet: nop, dwords: 1 };
  if (type !== 3) return undefined;
  const packet = BY_OP.get(bits(header, 15, 8));
  if (packet === undefined) return undefined;
  const count = bits(header, 29, 16);
  // The NOP with count 0x3fff is a single dword (gfx_v9_0.c, ring->funcs->nop).
  return { packet, dwords: packet === nop && count === 0x3fff ? 1 : count + 2 };
}

export function pm4PacketName(header: number): string | undefined {
  return header >>> 30 === 3 ? BY_OP.get(bits(header, 15, 8))?.name : undefined;
}
