/** For specs: functions on a fabric with real memory, registers that are recorded, and guest memory in a memfd. */
import { closeFd, createMemfd, duplicateFd, MappedFile } from '../../host/index.js';
import type { DmaMessageChannel } from '../dma-messages.js';
import { DmaSpace } from '../dma-space.js';
import { Fabric, type FabricMember, type FabricPort, type PeerRouting } from '../fabric.js';
import { FunctionDma } from '../function-dma.js';
import { type BackedMemoryRegion, createMemoryRegion } from '../region.js';
import type { BarWindow, FabricBar } from '../windows.js';

/** Layout of the one BAR of a {@link TestFunction}: registers, then memory, then a doorbell page. */
export const BAR_BYTES = 0x100000;
export const MEMORY_OFFSET = 0x1000;
export const MEMORY_BYTES = 0xfe000;
export const DOORBELL_OFFSET = 0xff000;
/** Where in the function's region the BAR's memory starts. */
export const REGION_SHIFT = 0x5000;

export class TestFunction implements FabricMember {
  readonly name: string;
  readonly dmaSpace = new DmaSpace();
  readonly region: BackedMemoryRegion;
  readonly bar: FabricBar;
  readonly accesses: string[] = [];
  readonly port: FabricPort;
  readonly dma: FunctionDma;
  busMasterEnabled = true;
  messages: DmaMessageChannel | undefined;
  /** Runs in the register handlers. */
  onAccess: (access: string) => void = () => {};
  #address: number | undefined;

  constructor(fabric: Fabric, name: string) {
    this.name = name;
    this.region = createMemoryRegion(name, 0x200000);
    const record = (access: string) => {
      this.accesses.push(access);
      this.onAccess(access);
    };
    this.bar = {
      sizeBytes: BAR_BYTES,
      memoryParts: [
        { offset: MEMORY_OFFSET, sizeBytes: MEMORY_BYTES, memory: this.region, memoryOffset: REGION_SHIFT },
      ],
      read: (offset, target) => {
        target.fill(0x5a);
        record(`read ${offset.toString(16)}+${target.length}`);
      },
      write: (offset, source) => record(`write ${offset.toString(16)}=${Buffer.from(source).toString('hex')}`),
    };
    this.port = fabric.join(this);
    this.dma = new FunctionDma(this.port);
  }

  windows(): readonly BarWindow[] {
    return this.#address === undefined ? [] : [{ address: this.#address, bar: this.bar }];
  }

  /** Programs the BAR, or ends its decoding. */
  decodeAt(address: number | undefined): void {
    this.#address = address;
    this.port.decodeChanged();
  }

  contents(offset: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    this.region.read(offset, bytes);
    return bytes;
  }
}

/** Guest memory of one virtual machine. */
export class TestGuest {
  readonly fd: number;
  readonly memory: MappedFile;

  constructor(sizeBytes: number) {
    this.fd = createMemfd('guest', sizeBytes);
    this.memory = new MappedFile(this.fd, sizeBytes, { writable: true });
  }

  mapInto(target: TestFunction, address: number, sizeBytes: number, offset = 0, access = 'rw'): void {
    const readable = access.includes('r');
    const writable = access.includes('w');
    target.dmaSpace.map({ address, sizeBytes, offset, readable, writable }, duplicateFd(this.fd));
  }

  contents(offset: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    this.memory.read(offset, bytes);
    return bytes;
  }
}

export class TestMachine {
  readonly fabric: Fabric;
  readonly functions: TestFunction[] = [];
  readonly guests: TestGuest[] = [];
  readonly posted: (() => void)[] = [];

  constructor(peerRouting: PeerRouting = 'address') {
    this.fabric = new Fabric({ peerRouting, schedule: (_member, work) => this.posted.push(work) });
  }

  addFunction(name: string): TestFunction {
    const added = new TestFunction(this.fabric, name);
    this.functions.push(added);
    return added;
  }

  addGuest(sizeBytes: number): TestGuest {
    const added = new TestGuest(sizeBytes);
    this.guests.push(added);
    return added;
  }

  runPosted(): void {
    for (const work of this.posted.splice(0)) work();
  }

  close(): void {
    for (const { dmaSpace, region } of this.functions) {
      dmaSpace.close();
      region.close();
    }
    for (const { memory, fd } of this.guests) {
      memory.close();
      closeFd(fd);
    }
  }
}

/** A client that answers DMA messages from an array, whose first byte is at `base`. */
export class TestClient implements DmaMessageChannel {
  readonly bytes: Uint8Array;
  readonly base: number;
  readonly messages: string[] = [];
  /** Thrown instead of an answer. */
  error: Error | undefined;
  /** Runs while the message is awaited. */
  whileWaiting: () => void = () => {};

  constructor(base: number, sizeBytes: number) {
    this.base = base;
    this.bytes = new Uint8Array(sizeBytes);
  }

  dmaRead(address: number, target: Uint8Array): void {
    this.#exchange('read', address, target.length);
    target.set(this.bytes.subarray(address - this.base, address - this.base + target.length));
  }

  dmaWrite(address: number, source: Uint8Array): void {
    this.#exchange('write', address, source.length);
    this.bytes.set(source, address - this.base);
  }

  #exchange(direction: string, address: number, lengthBytes: number): void {
    this.messages.push(`${direction} ${address.toString(16)}+${lengthBytes}`);
    this.whileWaiting();
    if (this.error !== undefined) throw this.error;
  }
}
