import type { RegisterHandler } from 'ghostbus';
import { BitFields32, type Scheduler } from 'ghostbus/kit';
import type { Doorbells } from '../bus/doorbells.js';
import { address48, address256 } from '../bus/registers.js';
import { IH_SOURCE } from '../interrupts/ih.js';
import type { Outcome, Packet } from '../packets/packet.js';
import { pm4Packet, pm4PacketName } from '../packets/pm4.js';
import type { ComputeContext, MapQueueRequest, RunLists, UnmapQueuesRequest } from '../packets/pm4-context.js';
import { CommandQueue, type PacketProcessor } from './command-queue.js';
import type { ComputeInterrupt, ComputeInterrupts } from './cp-interrupts.js';
import { QueueContext, type QueueContextParts } from './queue-context.js';
import { newestWritePointer, type QueuePlacement, type QueueSlot } from './queue-slot.js';

/**
 * First dword of a queue's registers, CP_MQD_BASE_ADDR, and how many there are up to CP_HQD_PQ_WPTR_HI
 * (gc_9_0_offset.h).
 */
export const HQD_FIRST_DWORD = 0x3245;
export const HQD_COUNT = 0x38;

/**
 * A memory queue descriptor holds the same registers in the same order from this dword on (include/v9_structs.h,
 * v9_mqd).
 */
export const MQD_FIRST_DWORD = 128;

/** Registers of a queue, counted from CP_MQD_BASE_ADDR (gc_9_0_offset.h). */
export const HQD = {
  ACTIVE: 0x02,
  VMID: 0x03,
  PQ_BASE: 0x08,
  PQ_BASE_HI: 0x09,
  PQ_RPTR: 0x0a,
  PQ_RPTR_REPORT_ADDR: 0x0b,
  PQ_RPTR_REPORT_ADDR_HI: 0x0c,
  PQ_DOORBELL_CONTROL: 0x0f,
  PQ_CONTROL: 0x11,
  DEQUEUE_REQUEST: 0x18,
  AQL_CONTROL: 0x35,
  PQ_WPTR_LO: 0x36,
  PQ_WPTR_HI: 0x37,
} as const;

/** Fields of those registers (gc_9_0_sh_mask.h CP_HQD_*). */
const VMID = new BitFields32({ VMID: [0, 4] });
const DOORBELL_CONTROL = new BitFields32({ DOORBELL_OFFSET: [2, 26], DOORBELL_EN: [30, 1] });
/** The ring has 2^(QUEUE_SIZE + 1) dwords. */
const PQ_CONTROL = new BitFields32({ QUEUE_SIZE: [0, 6] });
const DEQUEUE_REQUEST = new BitFields32({ DEQUEUE_REQ: [0, 3] });

/** Of any ring: more than a guest's memory. */
const MAX_SIZE_LOG2 = 30;

/** What the command processor gives its queues. */
export interface HqdParts extends QueueContextParts {
  readonly computeInterrupts: ComputeInterrupts;
  readonly doorbells: Doorbells;
  readonly scheduler: Scheduler;
  mapQueue(request: MapQueueRequest): void;
  unmapQueues(request: UnmapQueuesRequest): void;
  runLists(): RunLists;
  dispatch(queueName: string): void;
}

/** One hardware queue descriptor: a compute ring that is, or is not, connected to the command processor. */
export class Hqd extends QueueContext implements RegisterHandler, PacketProcessor, ComputeContext, QueueSlot {
  readonly queue: CommandQueue;
  readonly me: number;
  readonly #place: { readonly me: number; readonly pipe: number; readonly queue: number };
  readonly #parts: HqdParts;
  readonly #registers = new Uint32Array(HQD_COUNT);
  #mqdAddress = 0;
  atomicResult = 0n;

  constructor(me: number, pipe: number, queue: number, parts: HqdParts) {
    super(parts);
    this.me = me;
    this.#place = { me, pipe, queue };
    this.#parts = parts;
    const name = `mec${me} pipe ${pipe} queue ${queue}`;
    this.queue = new CommandQueue(name, parts.scheduler, parts.log, this);
  }

  get active(): boolean {
    return this.#registers[HQD.ACTIVE] === 1;
  }

  /** Dword index of this queue's doorbell. */
  get doorbellDword(): number {
    return DOORBELL_CONTROL.get(this.#registers[HQD.PQ_DOORBELL_CONTROL]!, 'DOORBELL_OFFSET');
  }

  /** `offset` is BAR5's; the registers are those of this queue. */
  read(offset: number): number {
    const register = (offset >>> 2) - HQD_FIRST_DWORD;
    if (register === HQD.PQ_RPTR && this.active) return this.#readPointer();
    return this.#registers[register] ?? 0;
  }

  write(offset: number, sizeBytes: number, value: number): void {
    if (sizeBytes === 4) this.writeRegister32((offset >>> 2) - HQD_FIRST_DWORD, value >>> 0);
  }

  writeRegister32(register: number, value: number): void {
    const previous = this.#registers[register];
    this.#registers[register] = value;
    if (register === HQD.ACTIVE) {
      this.#registers[HQD.ACTIVE] = value & 1;
      if ((value & 1) === 1 && previous !== 1) this.#activate();
      else if ((value & 1) === 0 && previous === 1) this.deactivate();
    } else if (register === HQD.DEQUEUE_REQUEST && DEQUEUE_REQUEST.has(value, 'DEQUEUE_REQ')) {
      // Commands complete in order, so a queue is always between two of them: the request is granted at once.
      this.deactivate();
    } else if (register === HQD.PQ_DOORBELL_CONTROL && this.active) this.#claimDoorbell();
    else if (register === HQD.PQ_WPTR_LO && this.active) this.queue.setWritePointer(value);
  }

  get busy(): boolean {
    return this.active;
  }

  /** Takes over the registers that a memory queue descriptor holds, and runs. */
  load(mqdAddress: number, doorbellDword: number, vmid?: number): void {
    const image = new Uint8Array(4 * HQD_COUNT);
    this.#parts.hub.space(0).read(mqdAddress + 4 * MQD_FIRST_DWORD, image);
    this.deactivate();
    const registers = this.#registers;
    registers.set(new Uint32Array(image.buffer));
    const placed = DOORBELL_CONTROL.set(registers[HQD.PQ_DOORBELL_CONTROL]!, 'DOORBELL_OFFSET', doorbellDword);
    registers[HQD.PQ_DOORBELL_CONTROL] = DOORBELL_CONTROL.set(placed, 'DOORBELL_EN', 1);
    if (vmid !== undefined) registers[HQD.VMID] = vmid;
    registers[HQD.ACTIVE] = 1;
    this.#mqdAddress = mqdAddress;
    this.#activate();
  }

  /** Queues of user space: packets of PM4. Queues of AQL packets are not modelled. */
  connect({ mqdAddress, doorbellDword, vmid, wptrAddress }: QueuePlacement): boolean {
    const aql = this.#parts.hub.space(0).readU32(mqdAddress + 4 * (MQD_FIRST_DWORD + HQD.AQL_CONTROL));
    if (aql !== 0) return false;
    this.load(mqdAddress, doorbellDword, vmid);
    const described = { low: this.#registers[HQD.PQ_WPTR_LO]!, high: this.#registers[HQD.PQ_WPTR_HI]! };
    const writePointer = newestWritePointer(this.space(vmid), wptrAddress, described);
    this.#setWritePointer(writePointer.low, writePointer.high);
    return true;
  }

  disconnect(): void {
    const space = this.#parts.hub.space(0);
    const at = (register: number) => this.#mqdAddress + 4 * (MQD_FIRST_DWORD + register);
    space.writeU32(at(HQD.PQ_RPTR), this.#readPointer());
    space.writeU32(at(HQD.PQ_WPTR_LO), this.#registers[HQD.PQ_WPTR_LO]!);
    space.writeU32(at(HQD.PQ_WPTR_HI), this.#registers[HQD.PQ_WPTR_HI]!);
    this.deactivate();
  }

  #setWritePointer(low: number, high: number): void {
    this.#registers[HQD.PQ_WPTR_LO] = low;
    this.#registers[HQD.PQ_WPTR_HI] = high;
    this.queue.setWritePointer(low);
  }

  #activate(): void {
    const registers = this.#registers;
    this.queue.start(
      {
        space: this.#space,
        address: address256(registers[HQD.PQ_BASE]!, registers[HQD.PQ_BASE_HI]!),
        sizeDwords: this.#sizeDwords(),
      },
      registers[HQD.PQ_RPTR]! % this.#sizeDwords(),
    );
    this.#claimDoorbell();
    this.queue.setWritePointer(registers[HQD.PQ_WPTR_LO]!);
  }

  get #space() {
    return this.space(VMID.get(this.#registers[HQD.VMID]!, 'VMID'));
  }

  #sizeDwords(): number {
    return 2 ** Math.min(PQ_CONTROL.get(this.#registers[HQD.PQ_CONTROL]!, 'QUEUE_SIZE') + 1, MAX_SIZE_LOG2);
  }

  #readPointer(): number {
    return this.queue.readPointer % this.#sizeDwords();
  }

  #claimDoorbell(): void {
    const registers = this.#registers;
    const enabled = DOORBELL_CONTROL.has(registers[HQD.PQ_DOORBELL_CONTROL]!, 'DOORBELL_EN');
    this.#parts.doorbells.claim(this, enabled ? this.doorbellDword : undefined, (low, high) =>
      this.#setWritePointer(low, high),
    );
  }

  /** Disconnects the queue; its registers return to power-on, so that the next owner finds a fresh one. */
  deactivate(): void {
    this.#parts.doorbells.claim(this, undefined, () => {});
    this.queue.stop();
    this.#registers.fill(0);
  }

  lengthOf(header: number): number | undefined {
    return pm4Packet(header)?.dwords;
  }

  execute(header: number, packet: Packet): Outcome {
    return pm4Packet(header)?.packet.run(this, packet) ?? 'error';
  }

  nameOf(header: number): string | undefined {
    return pm4PacketName(header);
  }

  illegal(header: number): void {
    this.#raise(IH_SOURCE.CP_BAD_OPCODE, 0, header);
  }

  reportReadPointer(): void {
    const registers = this.#registers;
    const address = address48(registers[HQD.PQ_RPTR_REPORT_ADDR]! & ~3, registers[HQD.PQ_RPTR_REPORT_ADDR_HI]!);
    if (this.active && address !== 0) this.#space.writeU32(address, this.#readPointer());
  }

  protected refuse(dword: number): void {
    this.#raise(IH_SOURCE.CP_PRIVILEGED_REGISTER, 0, dword);
  }

  endOfPipe(vmid: number, contextId: number): void {
    this.#raise(IH_SOURCE.CP_EOP, vmid, contextId);
  }

  #raise(source: ComputeInterrupt['source'], vmid: number, data: number): void {
    this.#parts.computeInterrupts.raise({ ...this.#place, source, vmid, data });
  }

  dispatch(): void {
    this.#parts.dispatch(this.queue.name);
  }

  get runLists(): RunLists {
    return this.#parts.runLists();
  }

  mapQueue(request: MapQueueRequest): void {
    this.#parts.mapQueue(request);
  }

  unmapQueues(request: UnmapQueuesRequest): void {
    this.#parts.unmapQueues(request);
  }
}
