/**
 * The queue between driver and management processor (CPU_IF): the driver puts buffer descriptors into a ring and rings
 * the GIC, the processor answers inside the packet itself.
 *
 * Source: gaudi.c gaudi_init_cpu_queues; common/firmware_if.c hl_fw_send_cpu_message; cpu_if_regs.h; gaudiP.h
 * GAUDI_PCI_TO_CPU_ADDR, GAUDI_CPU_TO_PCI_ADDR.
 */
import { DmaError, type FunctionPort, type Log, RegisterBlock } from 'ghostbus';
import {
  BitFields32,
  COST,
  isPowerOfTwo,
  Ring,
  type Runnable,
  type Scheduler,
  type TurnResult,
  type WorkBudget,
} from 'ghostbus/kit';
import type { Card } from '../card.js';
import { HOST_BASE, PAGE_BYTES } from '../interconnect/address-map.js';
import type { Cpucp, CpucpReply } from './cpucp.js';
import { EVENT_ENTRY_BYTES, type EventQueue } from './event-queue.js';

/** enum pq_init_status (cpucp_if.h). */
const QUEUE_INIT_STATUS = {
  readyForCp: 1,
  readyForHost: 2,
  readyForCpSingleMsi: 3,
  lengthNotPowerOfTwo: 4,
  illegalAddress: 5,
} as const;

/** sizeof(struct hl_bd), struct cpucp_packet. */
const DESCRIPTOR_BYTES = 16;
const PACKET_BYTES = 24;
/** The longest packet that makes sense: one that unmasks every event. */
const MAX_PACKET_BYTES = 4096;
const MAX_ENTRIES = 65536;
const FENCE_OFFSET = 12;
/** CPUCP_PACKET_FENCE_VAL. */
const FENCE_DONE = 0xfe8ce7a5;
/** CPUCP_PKT_CTL_RC_*, CPUCP_PKT_CTL_OPCODE_*. */
const CONTROL = new BitFields32({ code: [12, 4], opcode: [16, 13] });
/** GAUDI_CPU_PCI_MSB_ADDR: the processor's addresses have 40 bits, the upper ones come from this register. */
const MSB_MASK = 0x7ff;
const LOW_ADDRESS = 2 ** 39;

/** Where the driver's ring lies. Its counters run to twice the number of entries. */
interface PacketRing {
  readonly address: number;
  readonly ring: Ring;
}

interface CpuQueueParts {
  readonly port: FunctionPort;
  readonly scheduler: Scheduler;
  readonly card: Card;
  readonly cpucp: Cpucp;
  readonly events: EventQueue;
}

export class CpuQueue implements Runnable {
  readonly registers: ReturnType<typeof cpuInterfaceRegisters>;
  readonly #port: FunctionPort;
  readonly #scheduler: Scheduler;
  readonly #card: Card;
  readonly #cpucp: Cpucp;
  readonly #events: EventQueue;
  #place: PacketRing | undefined;
  #consumer = 0;
  readonly counters: Record<'packets', number>;

  constructor({ port, scheduler, card, cpucp, events }: CpuQueueParts) {
    this.#port = port;
    this.#scheduler = scheduler;
    this.#card = card;
    this.#cpucp = cpucp;
    this.#events = events;
    this.counters = card.statistics.of('CPU queue', 'packets');
    this.registers = cpuInterfaceRegisters(card.log);
  }

  /** GIC interrupt PI_UPDATE: the queues have been set up, or a packet waits. */
  doorbell(): void {
    const state = this.registers.get('QUEUE_INIT');
    if (state === QUEUE_INIT_STATUS.readyForCp || state === QUEUE_INIT_STATUS.readyForCpSingleMsi) this.#open();
    else this.#scheduler.wake(this);
  }

  #open(): void {
    // It never says that it is ready.
    if (this.#card.bootFailure === 'cpu-queue') return;
    const entries = this.registers.get('PQ_LENGTH') / DESCRIPTOR_BYTES;
    const eventEntries = this.registers.get('EQ_LENGTH') / EVENT_ENTRY_BYTES;
    const address = this.#registerAddress('PQ_BASE_ADDR_LOW', 'PQ_BASE_ADDR_HIGH');
    const eventAddress = this.#registerAddress('EQ_BASE_ADDR_LOW', 'EQ_BASE_ADDR_HIGH');
    if (!isPowerOfTwo(entries) || !isPowerOfTwo(eventEntries) || entries > MAX_ENTRIES || eventEntries > MAX_ENTRIES) {
      this.registers.set('QUEUE_INIT', QUEUE_INIT_STATUS.lengthNotPowerOfTwo);
    } else if (address === undefined || eventAddress === undefined) {
      this.registers.set('QUEUE_INIT', QUEUE_INIT_STATUS.illegalAddress);
    } else {
      this.#place = { address, ring: new Ring({ entries, counterRange: 2 * entries }) };
      this.#consumer = 0;
      this.#events.open({ address: eventAddress, entries: eventEntries });
      this.registers.set('QUEUE_INIT', QUEUE_INIT_STATUS.readyForHost);
    }
  }

  #registerAddress(
    low: 'PQ_BASE_ADDR_LOW' | 'EQ_BASE_ADDR_LOW',
    high: 'PQ_BASE_ADDR_HIGH' | 'EQ_BASE_ADDR_HIGH',
  ): number | undefined {
    return this.#busAddress(this.registers.get(high) * 2 ** 32 + this.registers.get(low));
  }

  /**
   * Bus address of one of the processor's; undefined if it lies outside the window to the host. A secured card's
   * processor is given the engines' addresses.
   */
  #busAddress(address: number): number | undefined {
    if (this.#card.isSecured) return address >= HOST_BASE ? address - HOST_BASE : undefined;
    const extension = this.registers.get('CPU_MSB_ADDR') & MSB_MASK;
    const bus = extension * LOW_ADDRESS + (address % LOW_ADDRESS) - HOST_BASE;
    return bus >= 0 ? bus : undefined;
  }

  /** Answers what waits; each packet costs several requests on the bus. */
  turn(budget: WorkBudget): TurnResult {
    const place = this.#place;
    if (place === undefined) return 'idle';
    while (!place.ring.isEmpty(this.registers.get('PF_PQ_PI'), this.#consumer)) {
      if (budget.isSpent) return 'ready';
      budget.charge(COST.fetch);
      const address = place.address + DESCRIPTOR_BYTES * place.ring.slot(this.#consumer);
      this.#consumer = place.ring.advance(this.#consumer);
      try {
        this.#packet(address);
      } catch (error) {
        if (!(error instanceof DmaError)) throw error;
        this.#card.log.warn(`a packet of the CPU queue cannot be reached: ${error.message}`);
      }
      if (this.#place !== place) return 'ready';
    }
    return 'idle';
  }

  #packet(descriptor: number): void {
    const { dma } = this.#port;
    const pointer = Number(dma.readU64(descriptor));
    const lengthBytes = Math.min(dma.readU32(descriptor + 8), MAX_PACKET_BYTES);
    const address = this.#busAddress(pointer);
    if (lengthBytes < PACKET_BYTES || address === undefined) {
      this.#card.log.warn('the driver queued something that is no CPU-CP packet', { pointer, lengthBytes });
      return;
    }
    const bytes = new Uint8Array(lengthBytes);
    dma.read(address, bytes);
    const view = new DataView(bytes.buffer);
    const control = view.getUint32(8, true);
    this.counters.packets++;
    const value = view.getBigUint64(0, true);
    const reply = this.#cpucp.answer({
      opcode: CONTROL.get(control, 'opcode'),
      value,
      index: view.getUint32(16, true),
      extra: bytes.subarray(PACKET_BYTES),
    });
    if (reply !== undefined) this.#reply(address, control, value, reply);
  }

  /** The fence last: the driver polls it. */
  #reply(address: number, control: number, value: bigint, reply: CpucpReply): void {
    const { dma } = this.#port;
    if (reply.buffer !== undefined) {
      const target = value < 2n ** 50n ? this.#busAddress(Number(value)) : undefined;
      if (target !== undefined) dma.write(target, reply.buffer);
    }
    dma.writeU64(address, reply.result);
    dma.writeU32(address + 8, CONTROL.set(control, 'code', reply.code));
    dma.writeU32(address + FENCE_OFFSET, FENCE_DONE);
  }
}

/** cpu_if_regs.h */
function cpuInterfaceRegisters(log: Log) {
  return new RegisterBlock(
    { name: 'CPU_IF', sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      CPU_MSB_ADDR: { offset: 0x12c },
      PF_PQ_PI: { offset: 0x200 },
      PQ_BASE_ADDR_LOW: { offset: 0x204 },
      PQ_BASE_ADDR_HIGH: { offset: 0x208 },
      PQ_LENGTH: { offset: 0x20c },
      CQ_BASE_ADDR_LOW: { offset: 0x210 },
      CQ_BASE_ADDR_HIGH: { offset: 0x214 },
      CQ_LENGTH: { offset: 0x218 },
      EQ_BASE_ADDR_LOW: { offset: 0x220 },
      EQ_BASE_ADDR_HIGH: { offset: 0x224 },
      EQ_LENGTH: { offset: 0x228 },
      EQ_RD_OFFS: { offset: 0x22c },
      QUEUE_INIT: { offset: 0x230 },
    },
  );
}
