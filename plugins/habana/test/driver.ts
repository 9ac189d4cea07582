/** What a driver does with the card, without a kernel: for the specs of this folder. */
import assert from 'node:assert/strict';
import type { ResetKind } from 'ghostbus';
import { TestBus, type TestFunction } from 'ghostbus/testing';
import { commands } from '../commands.js';
import { CFG_BAR, type Device, HBM_BAR } from '../device.js';
import { HabanaFunction } from '../function.js';
import plugin from '../index.js';
import { CFG, CFG_BASE, CFG_IN_BAR2, ENGINES, HOST_BASE } from '../interconnect/address-map.js';

const GUEST_BYTES = 64 * 2 ** 20;
const QUEUE_AREA = 0x100000;
const PQ_LOG2 = 4;
const CPU_PACKETS = 0x8000;
const EVENT_RING = 0x20000;
/** MSI_REQ of the PCIe core as engines address it. */
export const MSI_ADDRESS = CFG_BASE + CFG.pcieCore + 0x100;
const MSB = 1;

/** The address that engines use for a bus address. */
export const host = (address: number): number => HOST_BASE + address;
export const register = (cfgOffset: number): number => CFG_BASE + cfgOffset;

export function qmanOf(name: string): number {
  const found = ENGINES.find((engine) => engine.name === name);
  assert.ok(found !== undefined, name);
  return found.qmanCfg;
}

export class Driver {
  readonly bus = new TestBus(GUEST_BYTES);
  readonly context = this.bus.context('habana0', 3);
  readonly fn: TestFunction<Device>;
  readonly #producers = new Map<string, number>();
  #nextBuffer = 0x400000;
  #cpuProducer = 0;

  constructor(options: Record<string, unknown> = {}) {
    const card = new HabanaFunction(this.context, plugin.options.parse({ hbm: '512M', ...options }));
    this.fn = this.bus.add('habana0', card, commands);
  }

  /** The device since the last reset. */
  get model(): Device {
    return this.fn.model;
  }

  /** By the machine or the guest. */
  reset(kind: ResetKind): void {
    this.fn.reset(kind);
  }

  /** As `ghostbus ctl` does. */
  control(command: string, args: Record<string, unknown> = {}): unknown {
    return this.fn.control(command, args);
  }

  write(cfgOffset: number, value: number): void {
    this.fn.write(CFG_BAR, CFG_IN_BAR2 + cfgOffset, value);
  }

  read(cfgOffset: number): number {
    return this.fn.read(CFG_BAR, CFG_IN_BAR2 + cfgOffset);
  }

  /** gaudi_init_pci_dma_qman for one stream of one engine, with a queue of 16 entries. */
  enable(name: string, stream = 0, configuration = 0x3fff): void {
    const qm = qmanOf(name);
    const queue = this.#queueAddress(name, stream);
    this.write(qm + 0x70 + 4 * stream, host(queue) % 2 ** 32);
    this.write(qm + 0x80 + 4 * stream, Math.floor(host(queue) / 2 ** 32));
    this.write(qm + 0x90 + 4 * stream, PQ_LOG2);
    this.write(qm + 0xa0 + 4 * stream, 0);
    this.write(qm + 0xb0 + 4 * stream, 0);
    const bases = [0x4f4000, 0x4f2000, 0x494000, 0x492000];
    bases.forEach((base, index) => {
      for (const cp of [stream, 4]) {
        this.write(qm + 0x228 + 0x28 * index + 4 * cp, register(base) % 2 ** 32);
        this.write(qm + 0x23c + 0x28 * index + 4 * cp, Math.floor(register(base) / 2 ** 32));
      }
    });
    this.write(qm + 0xcd0, register(CFG.gic + 0x40) % 2 ** 32);
    this.write(qm + 0xcd4, Math.floor(register(CFG.gic + 0x40) / 2 ** 32));
    this.write(qm, configuration);
    this.#producers.set(`${name}.${stream}`, 0);
  }

  #queueAddress(name: string, stream: number): number {
    const index = ENGINES.findIndex((engine) => engine.name === name);
    return QUEUE_AREA + (index * 4 + stream) * 0x1000;
  }

  /** Puts packets into guest memory and returns where. */
  buffer(...packets: Uint8Array[]): { address: number; lengthBytes: number } {
    const address = this.#nextBuffer;
    let at = address;
    for (const packet of packets) {
      this.bus.guestMemory.write(at, packet);
      at += packet.length;
    }
    this.#nextBuffer = Math.ceil(at / 4096) * 4096;
    return { address, lengthBytes: at - address };
  }

  /** Queues a command buffer at a device address without ringing. */
  queueBuffer(name: string, stream: number, address: number, lengthBytes: number): number {
    const key = `${name}.${stream}`;
    const producer = this.#producers.get(key)!;
    const entry = this.#queueAddress(name, stream) + 16 * (producer % 2 ** PQ_LOG2);
    this.bus.guestMemory.writeU64(entry, BigInt(address));
    this.bus.guestMemory.writeU32(entry + 8, lengthBytes);
    const next = (producer + 1) % 2 ** (PQ_LOG2 + 1);
    this.#producers.set(key, next);
    return next;
  }

  ring(name: string, stream: number): void {
    this.write(qmanOf(name) + 0xa0 + 4 * stream, this.#producers.get(`${name}.${stream}`)!);
  }

  /** Queues packets on a stream and rings; work happens in `bus.run()`. */
  submit(name: string, stream: number, ...packets: Uint8Array[]): void {
    const { address, lengthBytes } = this.buffer(...packets);
    this.queueBuffer(name, stream, host(address), lengthBytes);
    this.ring(name, stream);
  }

  run(name: string, stream: number, ...packets: Uint8Array[]): void {
    this.submit(name, stream, ...packets);
    this.bus.run();
  }

  /** gaudi_mmu_init for one ASID: its root table in HBM. */
  enableMmu(asid: number, rootTable: number): void {
    this.write(CFG.stlb + 0x04, asid);
    this.write(CFG.stlb + 0x08, rootTable / 4096);
    this.write(CFG.stlb + 0x0c, 0);
    this.write(CFG.stlb, 0x80000000);
    this.write(CFG.mmuUp + 0x0c, 1);
  }

  /** Writes page-table entries for one page through the HBM BAR, tables one after the other from `rootTable`. */
  map(rootTable: number, virtual: number, physical: number, pageShift: 12 | 21 = 12): void {
    const shifts = [48, 39, 30, 21, 12].filter((shift) => shift >= pageShift);
    let table = rootTable;
    for (const shift of shifts) {
      const index = Math.floor(virtual / 2 ** shift) % (shift === 48 ? 4 : 512);
      const entry = table + 8 * index;
      if (shift === pageShift) this.fn.write64(HBM_BAR, entry, BigInt(physical) | 0x801n);
      else {
        const present = this.fn.read64(HBM_BAR, entry);
        const next = present === 0n ? this.#newTable(rootTable) : Number(present & ~0xfffn);
        this.fn.write64(HBM_BAR, entry, BigInt(next) | 1n);
        table = next;
      }
    }
  }

  #tables = 0;
  #newTable(rootTable: number): number {
    this.#tables++;
    return rootTable + 4096 * this.#tables;
  }

  /** The user's ASID on every stream of an engine and on its DMA core. */
  useAsid(name: string, asid: number): void {
    for (let cp = 0; cp < 5; cp++) this.write(qmanOf(name) + 0x24 + 4 * cp, asid);
    if (name.startsWith('DMA')) this.write(CFG.dmaCores[Number(name.slice(3))]! + 0xf4, asid);
  }

  /** gaudi_init_cpu_queues, then the request for events. */
  openCpuQueues(entries = 64): void {
    const address = (bus: number) => [host(bus) % 2 ** 32, Math.floor(host(bus) / 2 ** 32)] as const;
    this.write(CFG.cpuInterface + 0x12c, MSB);
    const rings = [
      [0x204, 0x208, 0x10000],
      [0x220, 0x224, EVENT_RING],
    ] as const;
    for (const [low, high, bus] of rings) {
      this.write(CFG.cpuInterface + low, address(bus)[0]);
      this.write(CFG.cpuInterface + high, address(bus)[1]);
    }
    this.write(CFG.cpuInterface + 0x20c, 16 * entries);
    this.write(CFG.cpuInterface + 0x228, 64 * 64);
    this.write(CFG.cpuInterface + 0x230, 3);
    this.write(CFG.gic + 0x40, 484);
    this.bus.run();
  }

  wantEvents(): void {
    this.write(CFG.gic + 0x40, 486);
    this.bus.run();
  }

  /** Sends one CPU-CP packet and returns what came back in it. */
  cpucp(opcode: number, fields: { value?: bigint; index?: number; extra?: number[] } = {}, entries = 64) {
    const memory = this.bus.guestMemory;
    const slot = this.#cpuProducer % entries;
    memory.fill(CPU_PACKETS, 0, 4096);
    memory.writeU64(CPU_PACKETS, fields.value ?? 0n);
    memory.writeU32(CPU_PACKETS + 8, opcode * 2 ** 16);
    memory.writeU32(CPU_PACKETS + 12, 0xffffffff);
    memory.writeU32(CPU_PACKETS + 16, fields.index ?? 0);
    for (const [index, word] of (fields.extra ?? []).entries()) memory.writeU32(CPU_PACKETS + 24 + 4 * index, word);
    memory.writeU64(0x10000 + 16 * slot, BigInt(host(CPU_PACKETS)));
    memory.writeU32(0x10000 + 16 * slot + 8, 24 + 4 * (fields.extra?.length ?? 0));
    this.#cpuProducer = (this.#cpuProducer + 1) % (2 * entries);
    this.write(CFG.cpuInterface + 0x200, this.#cpuProducer);
    this.write(CFG.gic + 0x40, 484);
    this.bus.run();
    return {
      result: memory.readU64(CPU_PACKETS),
      code: (memory.readU32(CPU_PACKETS + 8) >>> 12) & 0xf,
      fence: memory.readU32(CPU_PACKETS + 12),
    };
  }

  /** Events in the ring, and makes room as the driver does. */
  takeEvents(): { type: number; index: number; data: Uint8Array }[] {
    const taken: { type: number; index: number; data: Uint8Array }[] = [];
    for (let slot = 0; slot < 64; slot++) {
      const entry = EVENT_RING + 64 * slot;
      const control = this.bus.guestMemory.readU32(entry + 4);
      if (control >>> 31 === 0) continue;
      const data = new Uint8Array(56);
      this.bus.guestMemory.read(entry + 8, data);
      taken.push({ type: (control >>> 16) & 0xfff, index: control & 0xffff, data });
      this.bus.guestMemory.writeU32(entry + 4, 0);
    }
    return taken.sort((a, b) => a.index - b.index);
  }

  guestBytes(address: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    this.bus.guestMemory.read(address, bytes);
    return bytes;
  }
}

export function pattern(lengthBytes: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, index) => (index * 131 + (index >> 8) * 7 + seed * 17) & 0xff);
}
