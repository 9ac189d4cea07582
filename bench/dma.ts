import { Bus } from '../emulator/bus.js';
import { EmulatedFunction } from '../emulator/function.js';
import { createMemfd, duplicateFd } from '../emulator/host/index.js';
import { Fabric } from '../emulator/memory/fabric.js';
import { type BackedMemoryRegion, createMemoryRegion } from '../emulator/memory/region.js';
import type { FunctionModel, FunctionPort, PcieFunction } from '../emulator/plugin/index.js';
import { RecordingLog } from '../emulator/testing/index.js';
import { REGION } from '../emulator/vfio-user/device.js';

const MEMORY_BYTES = 64 * 1024 * 1024;
const GUEST_BYTES = 64 * 1024 * 1024;
/** Bytes to move for one measurement, and the most pieces that may take. */
const TOTAL_BYTES = 256 * 1024 * 1024;
const MAX_ROUNDS = 1_000_000;

/** Configuration space, as include/uapi/linux/pci_regs.h has it: PCI_COMMAND, PCI_BASE_ADDRESS_0. */
const CONFIG = { COMMAND: 0x04, BASE_ADDRESS_0: 0x10 } as const;
/** PCI_COMMAND_MEMORY, PCI_COMMAND_MASTER. */
const COMMAND = { MEMORY: 1 << 1, MASTER: 1 << 2 } as const;
/** A 64-bit BAR is two registers of 32 bits (PCI Local Bus 3.0 §6.2.5.1). */
const BAR_BYTES = 8;
/** Where the two functions' memory starts on the bus: above guest memory and below 4 GiB, as a PC's PCI hole. */
const BAR_BASE = 0x80000000;
/** Where in guest memory the writes go; any page does. */
const GUEST_TARGET = 0x1000;

/** A function that is nothing but memory behind BAR0. */
class MemoryFunction implements PcieFunction {
  readonly identity = {
    vendorId: 0x1234,
    deviceId: 1,
    subsystemVendorId: 0,
    subsystemId: 0,
    classCode: 0x050000,
    revisionId: 0,
  };
  readonly memory: BackedMemoryRegion = createMemoryRegion('bench', MEMORY_BYTES);
  readonly bars = [
    {
      index: 0,
      kind: 'memory64',
      prefetchable: true,
      sizeBytes: MEMORY_BYTES,
    },
  ] as const;
  readonly capabilities = [];
  port!: FunctionPort;
  powerOn(port: FunctionPort): FunctionModel {
    this.port = port;
    return { bars: { 0: [{ offset: 0, sizeBytes: MEMORY_BYTES, memory: this.memory }] } };
  }
}

function enable(emulated: EmulatedFunction, address: number): void {
  const bytes = new Uint8Array(BAR_BYTES);
  new DataView(bytes.buffer).setUint32(0, address, true);
  emulated.regionWrite(REGION.CONFIG, CONFIG.BASE_ADDRESS_0, bytes);
  emulated.regionWrite(REGION.CONFIG, CONFIG.COMMAND, Uint8Array.of(COMMAND.MEMORY | COMMAND.MASTER, 0));
}

function meanNs(sizeBytes: number, move: () => void): number {
  const rounds = Math.min(MAX_ROUNDS, Math.ceil(TOTAL_BYTES / sizeBytes));
  for (let i = 0; i < rounds / 10 + 1; i++) move();
  const start = process.hrtime.bigint();
  for (let i = 0; i < rounds; i++) move();
  return Number(process.hrtime.bigint() - start) / rounds;
}

/** Nanoseconds of one DMA write of each size: from a function's memory into guest RAM, and into a peer's memory. */
export function measureDma(sizes: readonly number[]): Map<number, { guestNs: number; peerNs: number }> {
  const bus = new Bus({ log: new RecordingLog() });
  const fabric = new Fabric({ schedule: (_member, work) => bus.postPeerWrite(work) });
  const guestFd = createMemfd('guest', GUEST_BYTES);
  const models = [new MemoryFunction(), new MemoryFunction()] as const;
  const surroundings = { bus, fabric, log: new RecordingLog(), sibling: () => undefined };
  models.forEach((model, index) => {
    const emulated = new EmulatedFunction(`bench${index}`, model, surroundings);
    const map = { address: 0, sizeBytes: GUEST_BYTES, readable: true, writable: true, offset: 0 };
    emulated.dmaMap(map, index === 0 ? duplicateFd(guestFd) : guestFd);
    enable(emulated, BAR_BASE + index * MEMORY_BYTES);
  });
  const [own] = models;
  const { dma } = own.port;
  return new Map(
    sizes.map((sizeBytes) => [
      sizeBytes,
      {
        guestNs: meanNs(sizeBytes, () => dma.writeFrom(GUEST_TARGET, own.memory, 0, sizeBytes)),
        peerNs: meanNs(sizeBytes, () => dma.writeFrom(BAR_BASE + MEMORY_BYTES, own.memory, 0, sizeBytes)),
      },
    ]),
  );
}
