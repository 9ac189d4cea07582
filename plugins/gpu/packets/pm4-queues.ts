/**
 * PM4 packets that manage queues: what the kernel's interface queues tell the command processor and its hardware
 * scheduler (gfx_v9_0.c for those of amdgpu, kfd_pm4_headers_ai.h for those of amdkfd).
 */
import { BitFields32 } from 'ghostbus/kit';
import { address48 } from '../bus/registers.js';
import { qword } from './packet.js';
import type { MapQueueRequest, RunPacket } from './pm4-context.js';

/** Queue management is the kernel's: its rings run in VMID 0. */
function privileged(run: RunPacket): RunPacket {
  return (context, packet) => (packet.space.vmid === 0 ? run(context, packet) : 'error');
}

/** Ordinal 2 of MAP_QUEUES (kfd_pm4_headers_ai.h struct pm4_mes_map_queues; soc15d.h PACKET3_MAP_QUEUES_*). */
const MAP_QUEUES = new BitFields32({
  EXTENDED_ENGINE_SEL: [2, 2],
  QUEUE_SEL: [4, 2],
  QUEUE: [13, 3],
  PIPE: [16, 2],
  ME: [18, 1],
  ENGINE_SEL: [26, 3],
});
/** map_to_hws_determined_queue_slots. */
const QUEUE_SEL_SCHEDULED = 1;

/** Ordinal 2 of UNMAP_QUEUES. */
const UNMAP_QUEUES = new BitFields32({ ACTION: [0, 2], QUEUE_SEL: [4, 2], NUM_QUEUES: [29, 3] });
/** soc15d.h PREEMPT_QUEUES_NO_UNMAP. */
const ACTION_PREEMPT_ONLY = 3;
const UNMAP_BY = { DOORBELL: 0, PASID: 1 } as const;
/** Doorbells for which the packet has room. */
const MOST_UNMAPPED = 4;

const DOORBELL = new BitFields32({ DOORBELL_OFFSET: [2, 26] });
const PROCESS = new BitFields32({ PASID: [0, 16] });
const SET_RESOURCES = new BitFields32({ VMID_MASK: [0, 16], QUEUE_TYPE: [29, 3] });
/** hsa_interface_queue_hiq: the queue of amdkfd. */
const QUEUE_TYPE_HIQ = 1;
const RUN_LIST = new BitFields32({ IB_SIZE: [0, 20] });

/** The engine that the two fields of MAP_QUEUES name (kfd_pm4_headers_ai.h mes_map_queues_*engine_sel_enum). */
function queueEngine(extended: number, select: number): MapQueueRequest['engine'] {
  if (extended === 1) return select;
  return extended === 0 ? (['compute', 'interface', 0, 1] as const)[select] : undefined;
}

export const mapQueues = privileged((context, packet) => {
  const control = MAP_QUEUES.unpack(packet.dword(1));
  context.mapQueue({
    scheduled: control.QUEUE_SEL === QUEUE_SEL_SCHEDULED,
    me: control.ME + 1,
    pipe: control.PIPE,
    queue: control.QUEUE,
    engine: queueEngine(control.EXTENDED_ENGINE_SEL, control.ENGINE_SEL),
    doorbellDword: DOORBELL.get(packet.dword(2), 'DOORBELL_OFFSET'),
    mqdAddress: address48(packet.dword(3) & ~3, packet.dword(4)),
    wptrAddress: address48(packet.dword(5) & ~3, packet.dword(6)),
  });
  return 'next';
});

export const unmapQueues = privileged((context, packet) => {
  const { ACTION, QUEUE_SEL, NUM_QUEUES } = UNMAP_QUEUES.unpack(packet.dword(1));
  if (ACTION === ACTION_PREEMPT_ONLY) return 'next';
  if (QUEUE_SEL === UNMAP_BY.DOORBELL) {
    const count = Math.min(NUM_QUEUES, MOST_UNMAPPED);
    const doorbellOf = (index: number) => DOORBELL.get(packet.dword(2 + index), 'DOORBELL_OFFSET');
    context.unmapQueues({ doorbellDwords: Array.from({ length: count }, (_, index) => doorbellOf(index)) });
  } else if (QUEUE_SEL === UNMAP_BY.PASID) context.unmapQueues({ pasid: PROCESS.get(packet.dword(2), 'PASID') });
  else context.unmapQueues({ all: true });
  return 'next';
});

/** Only from the queue of amdkfd. Compute queues are in dwords 2 and 3. */
export const setResources = privileged((context, packet) => {
  const { QUEUE_TYPE, VMID_MASK } = SET_RESOURCES.unpack(packet.dword(1));
  if (QUEUE_TYPE === QUEUE_TYPE_HIQ) context.runLists.setResources(VMID_MASK, qword(packet, 2));
  return 'next';
});

/** A run list chained from a run list repeats it, for time slices: there are none here. */
export const runList = privileged((context, packet) => {
  if (context.queue.depth > 1) return 'next';
  context.runLists.beginRunList();
  const address = address48(packet.dword(1) & ~3, packet.dword(2));
  const buffer = { space: packet.space, address, sizeDwords: RUN_LIST.get(packet.dword(3), 'IB_SIZE') };
  return context.queue.call(buffer, packet.lengthDwords) ? 'next' : 'error';
});

/** Page directory base in dwords 2 and 3 (pm4_mes_map_process and its aldebaran form agree). */
export const mapProcess = privileged((context, packet) => {
  context.runLists.mapProcess(PROCESS.get(packet.dword(1), 'PASID'), packet.dword(2), packet.dword(3));
  return 'next';
});

/** Commands complete in order, so whatever is asked about is done: the fence is written at once. */
export const queryStatus = privileged((_context, packet) => {
  packet.space.writeU64(address48(packet.dword(3) & ~7, packet.dword(4)), qword(packet, 5));
  return 'next';
});
