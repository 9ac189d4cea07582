/**
 * A bus without sockets, for unit tests of device code: guest memory is an array, the clock is advanced by the test,
 * posted work runs when the test says so, interrupts are recorded. Shipped as `ghostbus/testing` for plugin authors.
 *
 * Addresses: guest memory starts at 0; every function's BARs are placed above {@link PEER_BASE}, so that functions on one
 * fake bus reach each other's BARs by DMA just as behind a PCIe switch.
 */
import { countLink, type LinkCounters } from '../memory/counters.js';
import { DmaError } from '../memory/dma-error.js';
import type {
  BarMemory,
  BarRegisters,
  CreateContext,
  CreatedFunction,
  Dma,
  FunctionModel,
  FunctionPort,
  LegacyBar,
  LegacyFunction,
  MemoryRegion,
  PcieFunction,
  RegisterHandler,
} from '../plugin/index.js';
import { ManualClock } from './manual-clock.js';
import { RecordingLog } from './recording-log.js';

/** First bus address used for BARs: above any guest memory a test would want. */
export const PEER_BASE = 0x10_0000_0000;

export interface HeapMemory extends MemoryRegion {}

/** A memory region in the heap: same behaviour as the memfd-backed one, without file descriptors. At most 4 GiB. */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: it is no region of the emulator's, and goes with this bus
export class HeapMemory implements MemoryRegion {
  readonly name: string;
  readonly sizeBytes: number;
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(name: string, sizeBytes: number) {
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.bytes = new Uint8Array(sizeBytes);
    this.#view = new DataView(this.bytes.buffer);
  }

  #range(offset: number, lengthBytes: number): Uint8Array {
    if (!(offset >= 0 && lengthBytes >= 0 && offset + lengthBytes <= this.sizeBytes)) {
      throw new RangeError(`${this.name}: ${lengthBytes} bytes at offset ${offset} leave its ${this.sizeBytes} bytes`);
    }
    return this.bytes.subarray(offset, offset + lengthBytes);
  }

  read(offset: number, target: Uint8Array): void {
    target.set(this.#range(offset, target.length));
  }

  write(offset: number, source: Uint8Array): void {
    this.#range(offset, source.length).set(source);
  }

  fill(offset: number, value: number, lengthBytes: number): void {
    this.#range(offset, lengthBytes).fill(value);
  }

  copy(destination: number, source: number, lengthBytes: number): void {
    this.#range(destination, lengthBytes).set(this.#range(source, lengthBytes));
  }

  forEachSpan(offset: number, lengthBytes: number, visit: (bytes: Uint8Array, offsetInRange: number) => void): void {
    if (lengthBytes > 0) visit(this.#range(offset, lengthBytes), 0);
  }

  readU32(offset: number): number {
    this.#range(offset, 4);
    return this.#view.getUint32(offset, true);
  }

  readU64(offset: number): bigint {
    this.#range(offset, 8);
    return this.#view.getBigUint64(offset, true);
  }

  writeU32(offset: number, value: number): void {
    this.#range(offset, 4);
    this.#view.setUint32(offset, value, true);
  }

  writeU64(offset: number, value: bigint): void {
    this.#range(offset, 8);
    this.#view.setBigUint64(offset, BigInt.asUintN(64, value), true);
  }

  /** The heap does not say; the whole size. */
  allocatedBytes(): number {
    return this.sizeBytes;
  }
}

/** What a plugin's `create` gets in a unit test. */
export function fakeContext(name = 'test0', instance = 0): CreateContext & { readonly log: RecordingLog } {
  const services = new Map<string, unknown>();
  return {
    name,
    instance,
    log: new RecordingLog(),
    createMemory: (memoryName, sizeBytes) => new HeapMemory(`${name}.${memoryName}`, sizeBytes),
    machineService: (key, create) => {
      if (!services.has(key)) services.set(key, create());
      return services.get(key) as never;
    },
  };
}

/** One function on the fake bus, as the guest's CPU sees it. */
export class FakeFunction {
  readonly name: string;
  readonly model: LegacyFunction;
  readonly log = new RecordingLog();
  /** Vectors in the order they fired. */
  readonly interrupts: number[] = [];
  /** What it moved over its private links, by the other function's name. */
  readonly links: Record<string, LinkCounters> = {};
  busMasterEnabled = true;
  /** The model called {@link FunctionPort.vanish}; the fake bus goes on serving it. */
  vanished = false;
  readonly #barAddresses: ReadonlyMap<number, number>;

  constructor(name: string, model: LegacyFunction, barAddresses: ReadonlyMap<number, number>) {
    this.name = name;
    this.model = model;
    this.#barAddresses = barAddresses;
  }

  /** Bus address of a BAR. */
  barAddress(index: number): number {
    const address = this.#barAddresses.get(index);
    if (address === undefined) throw new Error(`${this.name} has no BAR${index}`);
    return address;
  }

  read(bar: number, offset: number, sizeBytes: 1 | 2 | 4 = 4): number {
    const part = this.#part(bar, offset);
    if (part === undefined) return 0;
    if ('registers' in part) return part.registers.read(offset - part.offset, sizeBytes);
    const bytes = new Uint8Array(4);
    part.memory.read(memoryOffset(part, offset), bytes.subarray(0, sizeBytes));
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  write(bar: number, offset: number, value: number, sizeBytes: 1 | 2 | 4 = 4): void {
    const part = this.#part(bar, offset);
    if (part === undefined) return;
    if ('registers' in part) {
      part.registers.write(offset - part.offset, sizeBytes, value);
      return;
    }
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    part.memory.write(memoryOffset(part, offset), bytes.subarray(0, sizeBytes));
  }

  read64(bar: number, offset: number): bigint {
    const part = this.#part(bar, offset);
    if (part !== undefined && 'registers' in part && part.registers.read64) {
      return part.registers.read64(offset - part.offset);
    }
    return BigInt(this.read(bar, offset) >>> 0) | (BigInt(this.read(bar, offset + 4) >>> 0) << 32n);
  }

  write64(bar: number, offset: number, value: bigint): void {
    const part = this.#part(bar, offset);
    if (part !== undefined && 'registers' in part && part.registers.write64) {
      part.registers.write64(offset - part.offset, value);
      return;
    }
    this.write(bar, offset, Number(value & 0xffffffffn));
    this.write(bar, offset + 4, Number((value >> 32n) & 0xffffffffn));
  }

  /** The register range that covers `offset` of configuration space. */
  configRegisters(offset: number): RegisterHandler {
    const range = this.model.configRegisters?.find(
      (part) => offset >= part.offset && offset < part.offset + part.sizeBytes,
    );
    if (range === undefined) throw new Error(`${this.name} has no configuration registers at 0x${offset.toString(16)}`);
    return range.registers;
  }

  #part(bar: number, offset: number): BarMemory | BarRegisters | undefined {
    const found = this.model.bars.find((candidate) => candidate.index === bar);
    if (found === undefined) throw new Error(`${this.name} has no BAR${bar}`);
    if (offset >= found.sizeBytes) throw new RangeError(`BAR${bar} of ${this.name} ends at ${found.sizeBytes}`);
    return partAt(found, offset);
  }
}

/** A card in the shape that this bus knows: its BARs show the parts of the model of the time. */
function keepCurrent(card: PcieFunction): LegacyFunction {
  let port: FunctionPort;
  let model: FunctionModel;
  let powerOns = 0;
  const powerOn = (cause: Parameters<PcieFunction['powerOn']>[1]): void => {
    const own = ++powerOns;
    const unlessReset = (work: () => void) => () => {
      if (own === powerOns) work();
    };
    const ownPort: FunctionPort = Object.create(port, {
      post: { value: (work: () => void) => port.post(unlessReset(work)) },
    });
    model = card.powerOn(ownPort, cause);
  };
  return {
    identity: card.identity,
    capabilities: card.capabilities,
    bars: card.bars.map((shape) => ({
      ...shape,
      get parts() {
        return model.bars[shape.index] ?? [];
      },
    })),
    attach: (attached) => {
      port = attached;
      powerOn('attach');
    },
    reset: (kind) => {
      model.powerOff?.();
      powerOn(kind);
    },
    control: (command, args) => model.control?.(command, args),
    inspect: () => model.inspect?.(),
  };
}

function partAt(bar: LegacyBar, offset: number): BarMemory | BarRegisters | undefined {
  return bar.parts.find((part) => offset >= part.offset && offset < part.offset + part.sizeBytes);
}

function memoryOffset(part: BarMemory, barOffset: number): number {
  return (part.memoryOffset ?? part.offset) + barOffset - part.offset;
}

/** See the head of this file. */
export class FakeBus {
  readonly clock = new ManualClock();
  readonly guestMemory: HeapMemory;
  readonly functions: FakeFunction[] = [];
  readonly #work: (() => void)[] = [];
  #nextBarAddress = PEER_BASE;

  constructor(guestMemoryBytes = 16 * 1024 * 1024) {
    this.guestMemory = new HeapMemory('guest', guestMemoryBytes);
  }

  /** Places a function's BARs, attaches it, and returns the CPU's view of it. */
  add(name: string, created: CreatedFunction): FakeFunction {
    const model = 'powerOn' in created ? keepCurrent(created) : created;
    const addresses = new Map<number, number>();
    for (const bar of model.bars) {
      const base = Math.ceil(this.#nextBarAddress / bar.sizeBytes) * bar.sizeBytes;
      addresses.set(bar.index, base);
      this.#nextBarAddress = base + bar.sizeBytes;
    }
    const fake = new FakeFunction(name, model, addresses);
    this.functions.push(fake);
    model.attach(this.#port(fake));
    return fake;
  }

  /** Runs posted work, and what it posts, until none is left. Throws after `limit` pieces: an engine that never rests. */
  run(limit = 1_000_000): number {
    let pieces = 0;
    for (let work = this.#work.shift(); work !== undefined; work = this.#work.shift()) {
      if (++pieces > limit) throw new Error(`posted work did not come to rest after ${limit} pieces`);
      work();
    }
    return pieces;
  }

  /** Runs one piece of posted work; false if there was none. */
  runOne(): boolean {
    const work = this.#work.shift();
    work?.();
    return work !== undefined;
  }

  #sibling(name: string): PcieFunction | undefined {
    return this.functions.find((candidate) => candidate.name === name)?.model as never;
  }

  #port(fake: FakeFunction): FunctionPort {
    const vectors = fake.model.capabilities.reduce((count, capability) => capability.interrupts?.vectors ?? count, 0);
    return {
      name: fake.name,
      log: fake.log,
      clock: this.clock,
      dma: new FakeDma(this, fake),
      get busMasterEnabled() {
        return fake.busMasterEnabled;
      },
      interrupt: (vector) => {
        if (vector < 0 || vector >= vectors) throw new RangeError(`${fake.name} has no interrupt vector ${vector}`);
        fake.interrupts.push(vector);
      },
      post: (work) => {
        this.#work.push(work);
      },
      sibling: (name) => this.#sibling(name),
      restart: () => fake.model.reset('flr'),
      vanish: () => {
        fake.vanished = true;
      },
      link: (name) => {
        const memory = this.#sibling(name)?.linkMemory;
        return memory && { memory, count: (direction, bytes) => countLink(fake.links, name, direction, bytes) };
      },
    };
  }
}

/** Byte by byte through the CPU's view of the target: slow, obvious, right. */
class FakeDma implements Dma {
  readonly #bus: FakeBus;
  readonly #requester: FakeFunction;

  constructor(bus: FakeBus, requester: FakeFunction) {
    this.#bus = bus;
    this.#requester = requester;
  }

  read(address: number, target: Uint8Array): void {
    this.#access('read', address, target);
  }

  write(address: number, source: Uint8Array): void {
    this.#access('write', address, source);
  }

  #access(direction: 'read' | 'write', address: number, bytes: Uint8Array): void {
    if (!this.#requester.busMasterEnabled) throw new DmaError('bus-master-disabled', direction, address, bytes.length);
    if (address >= 0 && address + bytes.length <= this.#bus.guestMemory.sizeBytes) {
      if (direction === 'read') this.#bus.guestMemory.read(address, bytes);
      else this.#bus.guestMemory.write(address, bytes);
      return;
    }
    for (const peer of this.#bus.functions) {
      for (const bar of peer.model.bars) {
        const offset = address - peer.barAddress(bar.index);
        if (offset < 0 || offset + bytes.length > bar.sizeBytes) continue;
        accessBar(peer, bar, direction, offset, bytes);
        return;
      }
    }
    throw new DmaError('unsupported-request', direction, address, bytes.length);
  }

  copy(destination: number, source: number, lengthBytes: number): void {
    const bytes = new Uint8Array(lengthBytes);
    this.read(source, bytes);
    this.write(destination, bytes);
  }

  fill(address: number, value: number, lengthBytes: number): void {
    this.write(address, new Uint8Array(lengthBytes).fill(value));
  }

  writeFrom(address: number, memory: MemoryRegion, offset: number, lengthBytes: number): void {
    const bytes = new Uint8Array(lengthBytes);
    memory.read(offset, bytes);
    this.write(address, bytes);
  }

  readInto(address: number, memory: MemoryRegion, offset: number, lengthBytes: number): void {
    const bytes = new Uint8Array(lengthBytes);
    this.read(address, bytes);
    memory.write(offset, bytes);
  }

  #load(address: number, lengthBytes: number): DataView {
    const bytes = new Uint8Array(lengthBytes);
    this.read(address, bytes);
    return new DataView(bytes.buffer);
  }

  #store(address: number, lengthBytes: number, fill: (view: DataView) => void): void {
    const bytes = new Uint8Array(lengthBytes);
    fill(new DataView(bytes.buffer));
    this.write(address, bytes);
  }

  readU8(address: number): number {
    return this.#load(address, 1).getUint8(0);
  }
  readU16(address: number): number {
    return this.#load(address, 2).getUint16(0, true);
  }
  readU32(address: number): number {
    return this.#load(address, 4).getUint32(0, true);
  }
  readU64(address: number): bigint {
    return this.#load(address, 8).getBigUint64(0, true);
  }
  readU16BE(address: number): number {
    return this.#load(address, 2).getUint16(0);
  }
  readU32BE(address: number): number {
    return this.#load(address, 4).getUint32(0);
  }
  readU64BE(address: number): bigint {
    return this.#load(address, 8).getBigUint64(0);
  }
  writeU8(address: number, value: number): void {
    this.#store(address, 1, (view) => view.setUint8(0, value));
  }
  writeU16(address: number, value: number): void {
    this.#store(address, 2, (view) => view.setUint16(0, value, true));
  }
  writeU32(address: number, value: number): void {
    this.#store(address, 4, (view) => view.setUint32(0, value, true));
  }
  writeU64(address: number, value: bigint): void {
    this.#store(address, 8, (view) => view.setBigUint64(0, value, true));
  }
  writeU16BE(address: number, value: number): void {
    this.#store(address, 2, (view) => view.setUint16(0, value));
  }
  writeU32BE(address: number, value: number): void {
    this.#store(address, 4, (view) => view.setUint32(0, value));
  }
  writeU64BE(address: number, value: bigint): void {
    this.#store(address, 8, (view) => view.setBigUint64(0, value));
  }
}

/** Splits a request on a peer's BAR into parts, and into naturally aligned accesses of at most 8 bytes where it traps. */
function accessBar(
  peer: FakeFunction,
  bar: LegacyBar,
  direction: 'read' | 'write',
  start: number,
  bytes: Uint8Array,
): void {
  for (let done = 0; done < bytes.length; ) {
    const offset = start + done;
    const part = partAt(bar, offset);
    if (part !== undefined && !('registers' in part)) {
      const length = Math.min(bytes.length - done, part.offset + part.sizeBytes - offset);
      const piece = bytes.subarray(done, done + length);
      if (direction === 'read') part.memory.read(memoryOffset(part, offset), piece);
      else part.memory.write(memoryOffset(part, offset), piece);
      done += length;
      continue;
    }
    const size = ([8, 4, 2, 1] as const).find((width) => offset % width === 0 && width <= bytes.length - done) ?? 1;
    const view = new DataView(bytes.buffer, bytes.byteOffset + done, size);
    if (direction === 'read') loadFrom(peer, bar.index, offset, view);
    else storeTo(peer, bar.index, offset, view);
    done += size;
  }
}

function loadFrom(peer: FakeFunction, bar: number, offset: number, view: DataView): void {
  if (view.byteLength === 8) view.setBigUint64(0, peer.read64(bar, offset), true);
  else if (view.byteLength === 4) view.setUint32(0, peer.read(bar, offset, 4), true);
  else if (view.byteLength === 2) view.setUint16(0, peer.read(bar, offset, 2), true);
  else view.setUint8(0, peer.read(bar, offset, 1));
}

function storeTo(peer: FakeFunction, bar: number, offset: number, view: DataView): void {
  if (view.byteLength === 8) peer.write64(bar, offset, view.getBigUint64(0, true));
  else if (view.byteLength === 4) peer.write(bar, offset, view.getUint32(0, true), 4);
  else if (view.byteLength === 2) peer.write(bar, offset, view.getUint16(0, true), 2);
  else peer.write(bar, offset, view.getUint8(0), 1);
}
