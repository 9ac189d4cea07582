/**
 * The queue between driver and management processor (CPU_IF): the driver puts buffer descriptors into a ring and rings the
 * GIC, the processor answers inside the packet itself.
 *
 * Source: gaudi.c gaudi_init_cpu_queues; common/firmware_if.c hl_fw_send_cpu_message; cpu_if_regs.h; gaudiP.h
 * GAUDI_PCI_TO_CPU_ADDR, GAUDI_CPU_TO_PCI_ADDR.
 */
import { DmaError, type FunctionPort, type Log, RegisterBlock } from 'ghostbus';
import { HOST_BASE, PAGE_BYTES } from '../interconnect/address-map.js';
import type { Cpucp, CpucpReply } from './cpucp.js';
import { EVENT_ENTRY_BYTES, type EventQueue } from './event-queue.js';

/** enum pq_init_status (cpucp_if.h). */
export const queueInit = {
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
const CODE_SHIFT = 12;
/** GAUDI_CPU_PCI_MSB_ADDR: the processor's addresses have 40 bits, the upper ones come from this register. */
const MSB_MASK = 0x7ff;
const LOW_ADDRESS = 2 ** 39;
const PACKETS_PER_SLICE = 16;

interface Ring {
  readonly address: number;
  readonly entries: number;
}

export class CpuQueue {
  readonly registers: ReturnType<typeof cpuInterfaceRegisters>;
  readonly #cpucp: Cpucp;
  readonly #events: EventQueue;
  readonly #isSecured: boolean;
  #port: FunctionPort | undefined;
  #ring: Ring | undefined;
  #consumer = 0;
  #isPosted = false;
  /** It never says that it is ready (a boot failure). */
  isDead = false;
  readonly counters = { packets: 0 };

  constructor(cpucp: Cpucp, events: EventQueue, isSecured: boolean, log?: Log) {
    this.#cpucp = cpucp;
    this.#events = events;
    this.#isSecured = isSecured;
    this.registers = cpuInterfaceRegisters(log);
  }

  attach(port: FunctionPort): void {
    this.#port = port;
  }

  reset(): void {
    this.registers.reset();
    this.#ring = undefined;
    this.#consumer = 0;
    this.#isPosted = false;
  }

  /** GIC interrupt PI_UPDATE: the queues have been set up, or a packet waits. */
  doorbell(): void {
    const state = this.registers.get('QUEUE_INIT');
    if (state === queueInit.readyForCp || state === queueInit.readyForCpSingleMsi) this.#open();
    else this.#postWork();
  }

  #open(): void {
    if (this.isDead) return;
    const entries = this.registers.get('PQ_LENGTH') / DESCRIPTOR_BYTES;
    const eventEntries = this.registers.get('EQ_LENGTH') / EVENT_ENTRY_BYTES;
    const address = this.#registerAddress('PQ_BASE_ADDR_LOW', 'PQ_BASE_ADDR_HIGH');
    const eventAddress = this.#registerAddress('EQ_BASE_ADDR_LOW', 'EQ_BASE_ADDR_HIGH');
    if (!isPowerOfTwo(entries) || !isPowerOfTwo(eventEntries) || entries > MAX_ENTRIES || eventEntries > MAX_ENTRIES) {
      this.registers.set('QUEUE_INIT', queueInit.lengthNotPowerOfTwo);
    } else if (address === undefined || eventAddress === undefined) {
      this.registers.set('QUEUE_INIT', queueInit.illegalAddress);
    } else {
      this.#ring = { address, entries };
      this.#consumer = 0;
      this.#events.open({ address: eventAddress, entries: eventEntries });
      this.registers.set('QUEUE_INIT', queueInit.readyForHost);
    }
  }

  #registerAddress(
    low: 'PQ_BASE_ADDR_LOW' | 'EQ_BASE_ADDR_LOW',
    high: 'PQ_BASE_ADDR_HIGH' | 'EQ_BASE_ADDR_HIGH',
  ): number | undefined {
    return this.#busAddress(this.registers.get(high) * 2 ** 32 + this.registers.get(low));
  }

  /**
   * Bus address of one of the processor's; undefined if it lies outside the window to the host. A secured card's processor is given
   * the engines' addresses.
   */
  #busAddress(address: number): number | undefined {
    if (this.#isSecured) return address >= HOST_BASE ? address - HOST_BASE : undefined;
    const extension = this.registers.get('CPU_MSB_ADDR') & MSB_MASK;
    const bus = extension * LOW_ADDRESS + (address % LOW_ADDRESS) - HOST_BASE;
    return bus >= 0 ? bus : undefined;
  }

  #postWork(): void {
    const port = this.#port;
    if (this.#isPosted || port === undefined || this.#ring === undefined) return;
    this.#isPosted = true;
    const ring = this.#ring;
    port.post(() => {
      if (this.#ring !== ring) return;
      this.#isPosted = false;
      this.#process(port, ring);
    });
  }

  get #pending(): number {
    const range = 2 * (this.#ring?.entries ?? 1);
    return (((this.registers.get('PF_PQ_PI') - this.#consumer) % range) + range) % range;
  }

  #process(port: FunctionPort, ring: Ring): void {
    for (let count = 0; this.#pending > 0; count++) {
      if (count === PACKETS_PER_SLICE) {
        this.#postWork();
        return;
      }
      const address = ring.address + DESCRIPTOR_BYTES * (this.#consumer % ring.entries);
      this.#consumer = (this.#consumer + 1) % (2 * ring.entries);
      try {
        this.#packet(port, address);
      } catch (error) {
        if (!(error instanceof DmaError)) throw error;
        port.log.warn(`a packet of the CPU queue cannot be reached: ${error.message}`);
      }
      if (this.#ring !== ring) return;
    }
  }

  #packet(port: FunctionPort, descriptor: number): void {
    const pointer = Number(port.dma.readU64(descriptor));
    const lengthBytes = Math.min(port.dma.readU32(descriptor + 8), MAX_PACKET_BYTES);
    const address = this.#busAddress(pointer);
    if (lengthBytes < PACKET_BYTES || address === undefined) {
      port.log.warn('the driver queued something that is no CPU-CP packet', { pointer, lengthBytes });
      return;
    }
    const bytes = new Uint8Array(lengthBytes);
    port.dma.read(address, bytes);
    const view = new DataView(bytes.buffer);
    const control = view.getUint32(8, true);
    this.counters.packets++;
    const value = view.getBigUint64(0, true);
    const reply = this.#cpucp.answer({
      opcode: (control >>> 16) & 0x1fff,
      value,
      index: view.getUint32(16, true),
      extra: bytes.subarray(PACKET_BYTES),
    });
    if (reply !== undefined) this.#reply(port, address, control, value, reply);
  }

  /** The fence last: the driver polls it. */
  #reply(port: FunctionPort, address: number, control: number, value: bigint, reply: CpucpReply): void {
    if (reply.buffer !== undefined) {
      const target = value < 2n ** 50n ? this.#busAddress(Number(value)) : undefined;
      if (target !== undefined) port.dma.write(target, reply.buffer);
    }
    port.dma.writeU64(address, reply.result);
    port.dma.writeU32(address + 8, ((control & ~(0xf << CODE_SHIFT)) | (reply.code << CODE_SHIFT)) >>> 0);
    port.dma.writeU32(address + FENCE_OFFSET, FENCE_DONE);
  }
}

function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(value) && value > 0 && (value & (value - 1)) === 0;
}

/** cpu_if_regs.h */
function cpuInterfaceRegisters(log: Log | undefined) {
  return new RegisterBlock(
    { name: 'CPU_IF', sizeBytes: PAGE_BYTES, undeclared: 'storage', ...(log && { log }) },
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
