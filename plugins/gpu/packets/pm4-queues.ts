/**
 * PM4 packets that manage queues: what the kernel's interface queues tell the command processor and its hardware scheduler
 * (gfx_v9_0.c for those of amdgpu, kfd_pm4_headers_ai.h for those of amdkfd).
 */
import { address48, bits } from '../bus/registers.js';
import { qword } from './packet.js';
import type { MapQueueRequest, RunPacket } from './pm4-context.js';

/** Queue management is the kernel's: its rings run in VMID 0. */
function privileged(run: RunPacket): RunPacket {
  return (context, packet) => (packet.space.vmid === 0 ? run(context, packet) : 'error');
}

/** EXTENDED_ENGINE_SEL b3:2 and ENGINE_SEL b28:26 of MAP_QUEUES (kfd_pm4_headers_ai.h mes_map_queues_*engine_sel_enum). */
function queueEngine(extended: number, select: number): MapQueueRequest['engine'] {
  if (extended === 1) return select;
  return extended === 0 ? (['compute', 'interface', 0, 1] as const)[select] : undefined;
}

export const mapQueues = privileged((context, packet) => {
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

export const unmapQueues = privileged((context, packet) => {
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
export const setResources = privileged((context, packet) => {
  const control = packet.dword(1);
  if (bits(control, 31, 29) === 1) {
    context.runLists.setResources(bits(control, 15, 0), qword(packet, 2));
  }
  return 'next';
});

/** A run list chained from a run list repeats it, for time slices: there are none here. */
export const runList = privileged((context, packet) => {
  const control = packet.dword(3);
  if (context.queue.depth > 1) return 'next';
  context.runLists.beginRunList();
  const address = address48(packet.dword(1) & ~3, packet.dword(2));
  const buffer = { space: packet.space, address, sizeDwords: bits(control, 19, 0) };
  return context.queue.call(buffer, packet.lengthDwords) ? 'next' : 'error';
});

/** PASID b15:0 of dword 1, page directory base in 2 and 3 (pm4_mes_map_process and its aldebaran form agree). */
export const mapProcess = privileged((context, packet) => {
  context.runLists.mapProcess(bits(packet.dword(1), 15, 0), packet.dword(2), packet.dword(3));
  return 'next';
});

/** Commands complete in order, so whatever is asked about is done: the fence is written at once. */
export const queryStatus = privileged((_context, packet) => {
  packet.space.writeU64(address48(packet.dword(3) & ~7, packet.dword(4)), qword(packet, 5));
  return 'next';
});
