import type { RegisterBlock } from 'ghostbus';
import { BitFields32 } from 'ghostbus/kit';
import { IH_SOURCE, type InterruptHandler } from '../interrupts/ih.js';
import type { Hub } from '../memory/hub.js';
import type { MapQueueRequest, UnmapQueuesRequest } from '../packets/pm4-context.js';
import { ShaderArray } from '../shaders/shader-array.js';
import type { CommandQueue } from './command-queue.js';
import { ComputeInterrupts, GRBM_GFX_CNTL } from './cp-interrupts.js';
import { HQD_COUNT, HQD_FIRST_DWORD, Hqd, type HqdParts } from './hqd.js';
import { HardwareScheduler } from './hws.js';
import type { QueueSlot } from './queue-slot.js';

/** Compute has two micro engine complexes of 4 pipes with 8 queues each (gfx_v9_0_sw_init, GC 9.4.2). */
const MICRO_ENGINES = [1, 2] as const;
const PIPES = 4;
const QUEUES = 8;

/** CP_MEC_CNTL (gfx_v9_0_cp_compute_enable); engines start halted. */
const MEC_CNTL = new BitFields32({ ME2_HALT: [28, 1], ME1_HALT: [30, 1] });
const HALTED = MEC_CNTL.mask('ME1_HALT', 'ME2_HALT');

interface CommandProcessorParts
  extends Omit<HqdParts, 'mapQueue' | 'unmapQueues' | 'dispatch' | 'runLists' | 'computeInterrupts'> {
  readonly interrupts: InterruptHandler;
  readonly mmhub: Hub;
  /** SDMA queues for user space, by engine. */
  readonly sdmaSlots: readonly (readonly QueueSlot[])[];
}

/**
 * Command processor for compute (GC 9.4.2, driven by gfx_v9_0.c): the queue descriptors behind GRBM_GFX_CNTL, and queue
 * management for the kernel interface queue. Register numbers: asic_reg/gc/gc_9_0_offset.h.
 */
export class CommandProcessor {
  readonly #parts: CommandProcessorParts;
  readonly #scheduler: HardwareScheduler;
  readonly #queues: Hqd[] = [];
  readonly #registers: RegisterBlock<'GRBM_GFX_CNTL'>;
  readonly #interrupts: ComputeInterrupts;
  readonly #shaders: ShaderArray;

  constructor(parts: CommandProcessorParts) {
    this.#parts = parts;
    this.#shaders = new ShaderArray(parts.log);
    this.#registers = parts.mmio.declare('cp', {
      GRBM_CNTL: { dw: 0x2000 },
      // No engine lags behind what a reader could see: always idle.
      GRBM_STATUS: { dw: 0x2004, writable: 0 },
      GRBM_GFX_CNTL: { dw: 0x2022 },
      CP_MEC_CNTL: { dw: 0x208d, reset: HALTED, onWrite: (value) => this.#setHalted(value) },
      // Nothing is harvested.
      CC_GC_SHADER_ARRAY_CONFIG: { dw: 0x226f, writable: 0 },
      SCRATCH_REG: { dw: 0xc040, count: 8 },
    });
    const select = () => this.#registers.get('GRBM_GFX_CNTL');
    this.#interrupts = new ComputeInterrupts(parts.mmio, parts.interrupts, select);
    const all: HqdParts = {
      ...parts,
      computeInterrupts: this.#interrupts,
      mapQueue: (request) => this.#map(request),
      unmapQueues: (request) => this.#unmap(request),
      runLists: () => this.#scheduler,
      dispatch: (name) => this.#shaders.dispatch(name),
    };
    for (const me of MICRO_ENGINES) {
      for (let pipe = 0; pipe < PIPES; pipe++) {
        for (let queue = 0; queue < QUEUES; queue++) this.#queues.push(new Hqd(me, pipe, queue, all));
      }
    }
    this.#scheduler = new HardwareScheduler(parts.log, [parts.hub, parts.mmhub], parts.interrupts, {
      compute: this.#queues,
      sdma: parts.sdmaSlots,
    });
    this.#setHalted(HALTED);
    parts.mmio.claim('hqd', HQD_FIRST_DWORD, HQD_COUNT, {
      read: (offset) => this.#selected()?.read(offset) ?? 0,
      write: (offset, sizeBytes, value) => this.#selected()?.write(offset, sizeBytes, value),
    });
  }

  #queue(me: number, pipe: number, queue: number): Hqd | undefined {
    return me >= 1 && me <= 2 ? this.#queues[((me - 1) * PIPES + pipe) * QUEUES + queue] : undefined;
  }

  /** Whose registers the banked ones are now. */
  #selected(): Hqd | undefined {
    const { MEID, PIPEID, QUEUEID } = GRBM_GFX_CNTL.unpack(this.#registers.get('GRBM_GFX_CNTL'));
    return this.#queue(MEID, PIPEID, QUEUEID);
  }

  #setHalted(control: number): undefined {
    for (const hqd of this.#queues) hqd.queue.setPaused(MEC_CNTL.has(control, hqd.me === 1 ? 'ME1_HALT' : 'ME2_HALT'));
    return undefined;
  }

  #map(request: MapQueueRequest): void {
    if (request.scheduled) {
      this.#scheduler.mapQueue(request);
      return;
    }
    const hqd = this.#queue(request.me, request.pipe, request.queue);
    // The interface queue of amdkfd is a compute queue (amdgpu_amdkfd_gfx_v9.c kgd_gfx_v9_hiq_mqd_load).
    if ((request.engine !== 'compute' && request.engine !== 'interface') || hqd === undefined) {
      this.#parts.log
        .source('map queues')
        .warn(`MAP_QUEUES for engine ${request.engine} is not implemented; queue not mapped`);
    } else hqd.load(request.mqdAddress, request.doorbellDword);
  }

  #unmap(request: UnmapQueuesRequest): void {
    if ('all' in request) this.#scheduler.unmap();
    else if ('pasid' in request) this.#scheduler.unmap(request.pasid);
    else {
      for (const hqd of this.#queues) {
        if (hqd.active && request.doorbellDwords.includes(hqd.doorbellDword)) hqd.deactivate();
      }
    }
  }

  get commandQueues(): readonly CommandQueue[] {
    return this.#queues.map(({ queue }) => queue);
  }

  /** An uncorrectable error in the first pipe; returns whether it is reported (gfx_v9_0_set_cp_ecc_error_state). */
  eccError(vmid: number): boolean {
    return this.#interrupts.raise({ me: 1, pipe: 0, queue: 0, source: IH_SOURCE.CP_ECC_ERROR, vmid, data: 0 });
  }

  inspect(): unknown {
    const used = this.#queues.filter((hqd) => hqd.active || hqd.queue.packets > 0);
    return {
      dispatches: this.#shaders.dispatches,
      interrupts: this.#interrupts.inspect(),
      scheduler: this.#scheduler.inspect(),
      queues: Object.fromEntries(used.map(({ queue }) => [queue.name, queue.inspect()])),
    };
  }
}
