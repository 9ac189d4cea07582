import type { RegisterBlock } from 'ghostbus';
import { BitFields32, type Scheduler } from 'ghostbus/kit';
import type { Doorbells } from '../bus/doorbells.js';
import { address48, address256 } from '../bus/registers.js';
import { IH_SOURCE, type InterruptHandler } from '../interrupts/ih.js';
import type { AtomicResult } from '../packets/atomics.js';
import type { Outcome, Packet } from '../packets/packet.js';
import { sdmaPacket, sdmaPacketName } from '../packets/sdma.js';
import type { SdmaContext } from '../packets/sdma-context.js';
import { CommandQueue, type PacketProcessor } from './command-queue.js';
import { QueueContext, type QueueContextParts } from './queue-context.js';
import { newestWritePointer, type QueuePlacement, type QueueSlot } from './queue-slot.js';

/** Distances from a queue's RB_CNTL in dwords; the same for every queue (sdma0_4_2_offset.h). */
const QUEUE_REGISTERS = {
  RB_CNTL: 0x0,
  RB_BASE: 0x1,
  RB_BASE_HI: 0x2,
  RB_RPTR: 0x3,
  RB_RPTR_HI: 0x4,
  RB_WPTR: 0x5,
  RB_WPTR_HI: 0x6,
  RB_RPTR_ADDR_HI: 0x8,
  RB_RPTR_ADDR_LO: 0x9,
  DOORBELL: 0x12,
  DOORBELL_OFFSET: 0x2b,
} as const;

type QueueRegister = keyof typeof QUEUE_REGISTERS;

/** Fields of those registers (sdma0_4_2_sh_mask.h SDMA0_GFX_*). RB_SIZE is log2 of dwords. */
const RB_CNTL = new BitFields32({
  RB_ENABLE: [0, 1],
  RB_SIZE: [1, 6],
  RPTR_WRITEBACK_ENABLE: [12, 1],
  RB_VMID: [24, 4],
});
const DOORBELL = new BitFields32({ ENABLE: [28, 1] });
/** A dword index. */
const DOORBELL_OFFSET = new BitFields32({ OFFSET: [2, 26] });

/** Of any ring: more than a guest's memory. */
const MAX_SIZE_LOG2 = 30;

/** Dwords of a user queue's descriptor that are registers at the same distances (include/v9_structs.h v9_sdma_mqd). */
const MQD_REGISTERS = 0x13;

/** What an engine gives its queues. */
export interface SdmaQueueParts extends QueueContextParts {
  readonly interrupts: InterruptHandler;
  readonly doorbells: Doorbells;
  readonly scheduler: Scheduler;
  readonly client: number;
  readonly index: number;
  /** What TIMESTAMP set has made of the engine's own counter: its distance from the global one. */
  readonly clock: { offset: bigint };
  trapEnabled(): boolean;
  /** Keeps what an atomic operation found; true when software wants an interrupt for it. */
  keepAtomic(previous: bigint): boolean;
}

/** One ring of an SDMA engine: its registers, its doorbell, its packets. */
export class SdmaQueue extends QueueContext implements PacketProcessor, SdmaContext, QueueSlot {
  readonly queue: CommandQueue;
  readonly #engine: SdmaQueueParts;
  readonly #ringId: number;
  readonly #registers: RegisterBlock<QueueRegister>;
  #mqdAddress = 0;

  constructor(name: string, rbControl: number, ringId: number, engine: SdmaQueueParts) {
    super(engine);
    this.#engine = engine;
    this.#ringId = ringId;
    this.queue = new CommandQueue(name, engine.scheduler, engine.log, this);
    const at = (register: QueueRegister) => rbControl + QUEUE_REGISTERS[register];
    const doorbellChanged = () => this.#claimDoorbell();
    this.#registers = engine.mmio.declare(name, {
      RB_CNTL: { dw: at('RB_CNTL'), onWrite: (value, previous) => this.#writeControl(value, previous) },
      RB_BASE: { dw: at('RB_BASE') },
      RB_BASE_HI: { dw: at('RB_BASE_HI') },
      RB_RPTR: { dw: at('RB_RPTR'), onRead: (stored) => this.#readPointerLow(stored) },
      RB_RPTR_HI: { dw: at('RB_RPTR_HI') },
      RB_WPTR: { dw: at('RB_WPTR'), onWrite: (value) => this.#writePointer(value) },
      RB_WPTR_HI: { dw: at('RB_WPTR_HI') },
      RB_RPTR_ADDR_HI: { dw: at('RB_RPTR_ADDR_HI') },
      RB_RPTR_ADDR_LO: { dw: at('RB_RPTR_ADDR_LO') },
      DOORBELL: { dw: at('DOORBELL'), onWrite: doorbellChanged },
      DOORBELL_OFFSET: { dw: at('DOORBELL_OFFSET'), onWrite: doorbellChanged },
    });
  }

  get busy(): boolean {
    return this.queue.state !== 'off';
  }

  /** Takes over a user queue's descriptor: the queue's registers in their order, but for the doorbell offset. */
  connect({ mqdAddress, doorbellDword, vmid, wptrAddress }: QueuePlacement): boolean {
    const image = new Uint8Array(4 * MQD_REGISTERS);
    this.space(0).read(mqdAddress, image);
    const mqd = new Uint32Array(image.buffer);
    const registers = this.#registers;
    for (const [name, distance] of Object.entries(QUEUE_REGISTERS) as [QueueRegister, number][]) {
      if (distance < MQD_REGISTERS) registers.set(name, mqd[distance]!);
    }
    registers.set('DOORBELL', DOORBELL.mask('ENABLE'));
    registers.set('DOORBELL_OFFSET', DOORBELL_OFFSET.pack({ OFFSET: doorbellDword }));
    const described = { low: mqd[QUEUE_REGISTERS.RB_WPTR]!, high: mqd[QUEUE_REGISTERS.RB_WPTR_HI]! };
    const writePointer = newestWritePointer(this.space(vmid), wptrAddress, described);
    registers.set('RB_WPTR', writePointer.low);
    registers.set('RB_WPTR_HI', writePointer.high);
    this.#claimDoorbell();
    const control = RB_CNTL.set(RB_CNTL.set(registers.get('RB_CNTL'), 'RB_VMID', vmid), 'RB_ENABLE', 1);
    registers.set('RB_CNTL', control);
    this.#mqdAddress = mqdAddress;
    this.#start(control);
    return true;
  }

  disconnect(): void {
    const registers = this.#registers;
    const space = this.space(0);
    const at = (register: QueueRegister) => this.#mqdAddress + 4 * QUEUE_REGISTERS[register];
    space.writeU64(at('RB_RPTR'), BigInt(this.queue.readPointer) * 4n);
    space.writeU32(at('RB_WPTR'), registers.get('RB_WPTR'));
    space.writeU32(at('RB_WPTR_HI'), registers.get('RB_WPTR_HI'));
    this.queue.stop();
    registers.set('RB_CNTL', 0);
    registers.set('DOORBELL', 0);
    this.#claimDoorbell();
  }

  #claimDoorbell(): undefined {
    const registers = this.#registers;
    const enabled = DOORBELL.has(registers.get('DOORBELL'), 'ENABLE');
    const index = enabled ? DOORBELL_OFFSET.get(registers.get('DOORBELL_OFFSET'), 'OFFSET') : undefined;
    this.#engine.doorbells.claim(this, index, (low, high) => {
      registers.set('RB_WPTR', low);
      registers.set('RB_WPTR_HI', high);
      this.#writePointer(low);
    });
    return undefined;
  }

  /** Pointers are bytes. */
  #writePointer(bytes: number): undefined {
    this.queue.setWritePointer(bytes >>> 2);
    return undefined;
  }

  #readPointerLow(stored: number): number {
    return this.queue.state === 'off' ? stored : (this.queue.readPointer * 4) % 2 ** 32;
  }

  #writeControl(value: number, previous: number): undefined {
    const [enable, was] = [RB_CNTL.has(value, 'RB_ENABLE'), RB_CNTL.has(previous, 'RB_ENABLE')];
    if (enable && !was) this.#start(value);
    else if (!enable && was) {
      this.#registers.set('RB_RPTR', (this.queue.readPointer * 4) % 2 ** 32);
      this.queue.stop();
    }
    return undefined;
  }

  #start(control: number): void {
    const registers = this.#registers;
    const ring = {
      space: this.space(RB_CNTL.get(control, 'RB_VMID')),
      address: address256(registers.get('RB_BASE'), registers.get('RB_BASE_HI')),
      sizeDwords: 2 ** Math.min(RB_CNTL.get(control, 'RB_SIZE'), MAX_SIZE_LOG2),
    };
    const readPointer = registers.get('RB_RPTR') + (registers.get('RB_RPTR_HI') & 0xffff) * 2 ** 32;
    this.queue.start(ring, Math.floor(readPointer / 4));
    this.queue.setWritePointer(registers.get('RB_WPTR') >>> 2);
  }

  lengthOf(header: number, peek: (index: number) => number | undefined): number | undefined {
    const packet = sdmaPacket(header);
    return packet?.lengthOf?.(header, peek) ?? packet?.dwords;
  }

  execute(header: number, packet: Packet): Outcome {
    return sdmaPacket(header)?.run(this, packet, header) ?? 'error';
  }

  nameOf(header: number): string | undefined {
    return sdmaPacketName(header);
  }

  /**
   * irqsrcs_sdma0_4_0.h has no interrupt for a packet that does not exist: the driver learns of it by its job's
   * timeout.
   */
  illegal(): void {}

  reportReadPointer(positionDwords: number): void {
    const registers = this.#registers;
    const control = registers.get('RB_CNTL');
    if (!RB_CNTL.has(control, 'RPTR_WRITEBACK_ENABLE')) return;
    const address = address48(registers.get('RB_RPTR_ADDR_LO') & ~3, registers.get('RB_RPTR_ADDR_HI'));
    this.space(RB_CNTL.get(control, 'RB_VMID')).writeU64(address, BigInt(positionDwords) * 4n);
  }

  protected refuse(): void {
    this.#raise(IH_SOURCE.SDMA_SRBM_WRITE, 0, 0);
  }

  trap(vmid: number, context: number): void {
    if (this.#engine.trapEnabled()) this.#raise(IH_SOURCE.SDMA_TRAP, vmid, context);
  }

  get engineIndex(): number {
    return this.#engine.index;
  }

  localTimestamp(): bigint {
    return BigInt.asUintN(64, this.timestamp() + this.#engine.clock.offset);
  }

  setLocalTimestamp(value: bigint): void {
    this.#engine.clock.offset = value - this.timestamp();
  }

  keepAtomicResult({ previous, returns }: AtomicResult): void {
    if (returns && this.#engine.keepAtomic(previous)) this.#raise(IH_SOURCE.SDMA_ATOMIC_RETURN, 0, 0);
  }

  eccError(vmid: number): void {
    this.#raise(IH_SOURCE.SDMA_SRAM_ECC, vmid, 0);
  }

  #raise(source: number, vmid: number, context: number): void {
    const pasid = this.#engine.interrupts.pasid('mmhub', vmid);
    this.#engine.interrupts.raise({
      client: this.#engine.client,
      source,
      ring: this.#ringId,
      vmid,
      vmidSource: 1,
      pasid,
      data: [context, 0, 0, 0],
    });
  }
}
