/**
 * PM4 type-3 packets of the compute command processor as data (kernel: amdgpu/soc15d.h for layouts, gfx_v9_0.c for what
 * the driver sends). The README's support table lists exactly what stands here.
 */
import { BitFields32 } from 'ghostbus/kit';
import type { Outcome } from './packet.js';
import type { ComputeContext, RunPacket } from './pm4-context.js';
import {
  conditionalExecution,
  indirectBuffer,
  predicatedExecution,
  REGISTER_SPACES,
  setRegisters,
} from './pm4-control.js';
import {
  atomicMemory,
  copyData,
  dmaData,
  memorySemaphore,
  releaseMemory,
  waitRegisterOrMemory,
  writeData,
} from './pm4-memory.js';
import { mapProcess, mapQueues, queryStatus, runList, setResources, unmapQueues } from './pm4-queues.js';

/** `implemented`: does what hardware does. `ignored`: accepted, nothing happens, and nothing here would show it. */
type PacketSupport = 'implemented' | 'ignored' | 'lie';

interface ComputePacket {
  readonly name: string;
  readonly op: number;
  readonly support: PacketSupport;
  readonly run: RunPacket;
}

function dispatch(context: ComputeContext): Outcome {
  context.dispatch();
  return 'next';
}

const next = (): Outcome => 'next';

function implemented(name: string, op: number, run: RunPacket): ComputePacket {
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

/** soc15d.h PACKET3. */
const HEADER = new BitFields32({ OPCODE: [8, 8], COUNT: [16, 14], TYPE: [30, 2] });

const BY_OP = new Map(PM4_PACKETS.map((packet) => [packet.op, packet]));

/** A header's type and, for type 3, its packet and length; undefined: the CP would report a bad opcode. */
export function pm4Packet(header: number): { readonly packet: ComputePacket; readonly dwords: number } | undefined {
  const type = HEADER.get(header, 'TYPE');
  const nop = BY_OP.get(0x10)!;
  // Type 2 is a one-dword filler.
  if (type === 2) return { packet: nop, dwords: 1 };
  if (type !== 3) return undefined;
  const packet = BY_OP.get(HEADER.get(header, 'OPCODE'));
  if (packet === undefined) return undefined;
  const count = HEADER.get(header, 'COUNT');
  // The NOP with count 0x3fff is a single dword (gfx_v9_0.c, ring->funcs->nop).
  return { packet, dwords: packet === nop && count === 0x3fff ? 1 : count + 2 };
}

export function pm4PacketName(header: number): string | undefined {
  return HEADER.get(header, 'TYPE') === 3 ? BY_OP.get(HEADER.get(header, 'OPCODE'))?.name : undefined;
}
