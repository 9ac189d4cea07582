/**
 * For specs: brings a GPU on the test bus as far as amdgpu would, with the same registers. Guest memory of 16 MiB is
 * mapped one to one by the GART (VMID 0 address = guest address); VRAM is 64 MiB.
 */
import { openTestBuses, TestBus, type TestFunction } from 'ghostbus/testing';
import { commands } from '../commands.js';
import { Gpu, type GpuOptions } from '../gpu.js';
import { VECTOR_BYTES } from '../interrupts/ih-ring.js';
import type { GpuModel } from '../model.js';
import { HQD, MQD_FIRST_DWORD } from '../queues/hqd.js';

export const VRAM_BYTES = 64 * 2 ** 20;
/** MC address of VRAM's first byte. */
export const FB = 0x80_0000_0000;
export const GART_TABLE = 0x100_0000;

/** PTE and PDE bits (amdgpu_vm.h). A page that is VALID here can be read and written too, as the driver maps most. */
export const PTE = {
  VALID: 0x61n,
  READABLE: 0x20n,
  WRITEABLE: 0x40n,
  SYSTEM: 2n,
  PRT: 1n << 51n,
  LEAF: 1n << 54n,
  FURTHER: 1n << 56n,
} as const;
/** A directory entry that points to a table. */
export const PDE_VALID = 1n;
export const BLOCK_FRAGMENT_9 = 9n << 59n;

/** Places in guest memory. */
export const PLACE = {
  IH_RING: 0x10_0000,
  IH_WPTR: 0x14_0000,
  SDMA_RING: 0x20_0000,
  SDMA_RPTR: 0x21_0000,
  KIQ_RING: 0x30_0000,
  KCQ_RING: 0x31_0000,
  CP_RPTR: 0x32_0000,
  MQD: 0x33_0000,
  IB: 0x40_0000,
} as const;

const IH_RING_BYTES = 4096;
const RING_DWORDS = 1024;
export const SDMA_DOORBELL = 0x200;
export const KIQ_DOORBELL = 0;
export const KCQ_DOORBELL = 6;

/** One decoded interrupt vector. */
interface SeenVector {
  readonly client: number;
  readonly source: number;
  readonly ring: number;
  readonly vmid: number;
  readonly pasid: number;
  readonly data: number;
}

/** For `afterEach`: gives back what the drivers of a test held. */
export function closeBuses(): void {
  for (const bus of openTestBuses()) bus.close();
}

export class TestDriver {
  readonly bus: TestBus;
  readonly gpu: TestFunction<GpuModel>;
  #sdmaWptr = 0;
  readonly #computeWptr = new Map<number, number>();
  #ihRead = 0;

  constructor(bus = new TestBus(), name = 'gpu0', options: Partial<GpuOptions> = {}) {
    this.bus = bus;
    const card = new Gpu(bus.context(name), { id: '7af0', vram: VRAM_BYTES, ...options });
    this.gpu = bus.add(name, card, commands);
  }

  /** Of the time: a reset makes another. */
  get model(): GpuModel {
    return this.gpu.model;
  }

  control(command: string, args: Readonly<Record<string, unknown>> = {}): unknown {
    return this.gpu.control(command, args);
  }

  reg(dword: number): number {
    return this.gpu.read(5, dword * 4) >>> 0;
  }

  setReg(dword: number, value: number): void {
    this.gpu.write(5, dword * 4, value >>> 0);
  }

  vram64(offset: number, value: bigint): void {
    this.gpu.write64(0, offset, value);
  }

  guest32(address: number): number {
    return this.bus.guestMemory.readU32(address);
  }

  setGuest32(address: number, ...values: readonly number[]): void {
    values.forEach((value, index) => {
      this.bus.guestMemory.writeU32(address + 4 * index, value >>> 0);
    });
  }

  /** Context 0 of both hubs: a flat table in VRAM. */
  enableGart(): void {
    for (let page = 0; page < 4096; page++) {
      this.vram64(GART_TABLE + 8 * page, BigInt(page * 4096) | PTE.VALID | PTE.SYSTEM);
    }
    for (const base of [0x2840, 0x1ab80]) {
      this.setReg(base + 0xab, GART_TABLE | 1);
      this.setReg(base + 0xeb, 0xfff);
      this.setReg(base + 0x40, 1);
    }
  }

  /** A VMID's four-level table as the driver builds it on this ASIC (DEPTH 2, BLOCK_SIZE 9, translate further). */
  enableVmid(vmid: number, rootTable: number): void {
    for (const base of [0x2840, 0x1ab80]) {
      this.setReg(base + 0xab + 2 * vmid, rootTable | 1);
      this.setReg(base + 0xeb + 2 * vmid, 0xffff_ffff);
      this.setReg(base + 0xec + 2 * vmid, 0xf);
      this.setReg(base + 0x40 + vmid, 0x0055_54cd);
    }
  }

  /** Gives a VMID page tables in VRAM in which page 1 (0x1000) is the page of {@link PLACE}.IB. */
  mapUserPage(vmid: number): void {
    const [root, pdb1, pdb0, ptb] = [0x2000, 0x3000, 0x4000, 0x5000];
    this.vram64(root, BigInt(pdb1) | PDE_VALID);
    this.vram64(pdb1, BigInt(pdb0) | PDE_VALID | BLOCK_FRAGMENT_9);
    this.vram64(pdb0, BigInt(ptb) | PDE_VALID | PTE.FURTHER);
    this.vram64(ptb + 8, BigInt(PLACE.IB) | PTE.VALID | PTE.SYSTEM);
    this.enableVmid(vmid, root);
  }

  enableInterrupts(): void {
    this.setReg(0x1121, PLACE.IH_RING >>> 8);
    this.setReg(0x1125, 0);
    this.setReg(0x1126, PLACE.IH_WPTR);
    this.setReg(0x1127, 0x1000_02f0);
    const sizeLog2 = Math.log2(IH_RING_BYTES / 4);
    // enable, size, write-back, overflow, interrupt, bus addresses
    this.setReg(0x1120, (1 | (sizeLog2 << 1) | (1 << 8) | (1 << 16) | (1 << 17) | (1 << 28)) >>> 0);
  }

  /** Vectors that the GPU announced in memory since the last call. */
  vectors(): SeenVector[] {
    const seen: SeenVector[] = [];
    const end = this.guest32(PLACE.IH_WPTR);
    for (; this.#ihRead !== end; this.#ihRead = (this.#ihRead + VECTOR_BYTES) % IH_RING_BYTES) {
      const at = (dword: number) => this.guest32(PLACE.IH_RING + this.#ihRead + 4 * dword);
      const low = at(0);
      seen.push({
        client: low & 0xff,
        source: (low >>> 8) & 0xff,
        ring: (low >>> 16) & 0xff,
        vmid: (low >>> 24) & 0xf,
        pasid: at(3) & 0xffff,
        data: at(4),
      });
    }
    this.gpu.write(2, 0xbc0, this.#ihRead);
    return seen;
  }

  /** The kernel's SDMA ring, in guest memory through the GART. */
  enableSdma(): void {
    this.setReg(0x127c, 1);
    this.setReg(0x12e1, PLACE.SDMA_RING >>> 8);
    this.setReg(0x12e9, PLACE.SDMA_RPTR);
    this.setReg(0x130b, SDMA_DOORBELL << 2);
    this.setReg(0x12f2, 0x1000_0000);
    this.setReg(0x12e0, 1 | (Math.log2(RING_DWORDS) << 1) | (1 << 12));
    this.setReg(0x128a, 0);
  }

  /** The driver's own pointers start anew, as after a reset. */
  forget(): void {
    this.#sdmaWptr = 0;
    this.#ihRead = 0;
    this.#computeWptr.clear();
  }

  bringUp(): this {
    this.enableGart();
    this.enableInterrupts();
    this.enableSdma();
    this.enableKiq();
    return this;
  }

  /** Appends to the SDMA ring without telling the engine. */
  writeSdma(...dwords: readonly number[]): void {
    for (const dword of dwords) {
      this.setGuest32(PLACE.SDMA_RING + (this.#sdmaWptr % (4 * RING_DWORDS)), dword);
      this.#sdmaWptr += 4;
    }
  }

  get sdmaWptr(): number {
    return this.#sdmaWptr;
  }

  ringSdma(): void {
    this.gpu.write64(2, SDMA_DOORBELL * 4, BigInt(this.#sdmaWptr));
  }

  /** Submits and runs until the machine rests. */
  sdma(...dwords: readonly number[]): void {
    this.writeSdma(...dwords);
    this.ringSdma();
    this.bus.run();
  }

  /** Writes commands to a buffer at {@link PLACE}.IB. */
  writeIb(dwords: readonly number[], at: number = PLACE.IB): void {
    this.setGuest32(at, ...dwords);
  }

  /** The kernel interface queue (me 2, pipe 1, queue 0; interrupt ring id 9), set up by registers. */
  enableKiq(): void {
    this.setReg(0x208d, 0);
    // Pipes of the queues below: privileged register, bad opcode and end-of-pipe interrupts.
    for (const pipe of [0x3085, 0x308a]) this.setReg(pipe, 0x0580_0000);
    this.setReg(0x2022, 1 | (2 << 2));
    const queue = (register: number) => 0x3245 + register;
    this.setReg(queue(HQD.PQ_BASE), PLACE.KIQ_RING >>> 8);
    this.setReg(queue(HQD.PQ_RPTR_REPORT_ADDR), PLACE.CP_RPTR);
    this.setReg(queue(HQD.PQ_CONTROL), Math.log2(RING_DWORDS) - 1);
    this.setReg(queue(HQD.PQ_DOORBELL_CONTROL), ((KIQ_DOORBELL << 2) | (1 << 30)) >>> 0);
    this.setReg(queue(HQD.ACTIVE), 1);
    this.setReg(0x2022, 0);
  }

  /** Appends to a compute ring and rings its doorbell. */
  compute(ringAddress: number, doorbellDword: number, ...dwords: readonly number[]): void {
    let wptr = this.#computeWptr.get(ringAddress) ?? 0;
    for (const dword of dwords) this.setGuest32(ringAddress + 4 * (wptr++ % RING_DWORDS), dword);
    this.#computeWptr.set(ringAddress, wptr);
    this.gpu.write64(2, doorbellDword * 4, BigInt(wptr));
    this.bus.run();
  }

  kiq(...dwords: readonly number[]): void {
    this.compute(PLACE.KIQ_RING, KIQ_DOORBELL, ...dwords);
  }

  /** A compute queue (me 1, pipe 0, queue 0) through MAP_QUEUES. */
  mapComputeQueue(): void {
    const mqd = (register: number, value: number) =>
      this.setGuest32(PLACE.MQD + 4 * (MQD_FIRST_DWORD + register), value);
    mqd(HQD.PQ_BASE, PLACE.KCQ_RING >>> 8);
    mqd(HQD.PQ_RPTR_REPORT_ADDR, PLACE.CP_RPTR + 8);
    mqd(HQD.PQ_CONTROL, Math.log2(RING_DWORDS) - 1);
    mqd(HQD.PQ_DOORBELL_CONTROL, (1 << 30) >>> 0);
    this.#computeWptr.delete(PLACE.KCQ_RING);
    this.kiq(pm4(0xa2, 6), 1 << 29, KCQ_DOORBELL << 2, PLACE.MQD, 0, 0, 0);
  }

  kcq(...dwords: readonly number[]): void {
    this.compute(PLACE.KCQ_RING, KCQ_DOORBELL, ...dwords);
  }

  logged(level: 'warn' | 'error'): string[] {
    return this.gpu.log.records.filter((record) => record.level === level).map((record) => record.message);
  }
}

/** Header of a type-3 packet with `payload` dwords after it. */
export function pm4(op: number, payload: number): number {
  return ((3 << 30) | ((payload - 1) << 16) | (op << 8)) >>> 0;
}

export function low(address: number): number {
  return address % 2 ** 32;
}

export function high(address: number): number {
  return Math.floor(address / 2 ** 32);
}

/** SDMA's COPY linear. */
export function copy(to: number, from: number, bytes: number): number[] {
  return [1, bytes - 1, 0, low(from), high(from), low(to), high(to)];
}
