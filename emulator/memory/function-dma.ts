/** One function's DMA engine port: cuts each call into pieces that go to one place, and moves them. */
import { ERRNO } from '../host/index.js';
import type { Dma } from './dma.js';
import { PortClosedError } from './dma-error.js';
import type { DmaMessageChannel } from './dma-messages.js';
import type { MemoryMap } from './dma-space.js';
import type { FabricPort, Target } from './fabric.js';
import { POSTED_LIMIT_BYTES } from './posted-writes.js';
import type { MemoryRegion } from './region.js';
import type { ByteMemory, MemorySegment } from './windows.js';

/** What goes to or comes from registers or messages passes through a buffer of this size. */
const BOUNCE_BYTES = 64 * 1024;

/** Where the next piece of a transfer is: `memory` is undefined for registers and messages. */
interface Piece {
  readonly memory: ByteMemory | undefined;
  readonly offset: number;
  readonly lengthBytes: number;
  /** Counts `lengthBytes` as moved. */
  count(lengthBytes: number): void;
}

// Used within one expression each, so calls that nest cannot disturb each other.
const swapView = new DataView(new ArrayBuffer(8));

export class FunctionDma implements Dma {
  readonly #port: FabricPort;
  /** Why nothing is moved any more. */
  #closed: string | undefined;

  constructor(port: FabricPort) {
    this.#port = port;
  }

  /**
   * From now on every call throws {@link PortClosedError}, also one that waits for the answer to a message just now.
   */
  close(reason: string): void {
    this.#closed ??= reason;
  }

  read(address: number, target: Uint8Array): void {
    const port = this.#port;
    for (let done = 0; done < target.length; ) {
      const from = this.#resolve('read', address + done, target.length - done);
      const length = Math.min(target.length - done, port.limit - (address + done));
      const part = length === target.length ? target : target.subarray(done, done + length);
      this.#readPiece(from, address + done, part);
      done += length;
    }
  }

  write(address: number, source: Uint8Array): void {
    const port = this.#port;
    for (let done = 0; done < source.length; ) {
      const to = this.#resolve('write', address + done, source.length - done);
      const length = Math.min(source.length - done, port.limit - (address + done), pieceLimit(to));
      const part = length === source.length ? source : source.subarray(done, done + length);
      this.#writePiece(to, address + done, part);
      done += length;
    }
  }

  copy(destination: number, source: number, lengthBytes: number): void {
    this.#transfer(
      lengthBytes,
      (at) => this.#busPiece('read', source + at, lengthBytes - at),
      (at) => this.#busPiece('write', destination + at, lengthBytes - at),
      (at, bounce) => {
        this.read(source + at, bounce);
        this.write(destination + at, bounce);
      },
    );
  }

  fill(address: number, value: number, lengthBytes: number): void {
    requireLength(lengthBytes);
    const port = this.#port;
    for (let done = 0; done < lengthBytes; ) {
      const to = this.#resolve('write', address + done, lengthBytes - done);
      const length = Math.min(lengthBytes - done, port.limit - (address + done), pieceLimit(to));
      this.#fillPiece(to, address + done, value, length);
      done += length;
    }
  }

  writeFrom(address: number, memory: MemoryRegion, memoryOffset: number, lengthBytes: number): void {
    this.#transfer(
      lengthBytes,
      (at) => ownPiece(memory, memoryOffset + at, lengthBytes - at),
      (at) => this.#busPiece('write', address + at, lengthBytes - at),
      (at, bounce) => {
        memory.read(memoryOffset + at, bounce);
        this.write(address + at, bounce);
      },
    );
  }

  readInto(address: number, memory: MemoryRegion, memoryOffset: number, lengthBytes: number): void {
    this.#transfer(
      lengthBytes,
      (at) => this.#busPiece('read', address + at, lengthBytes - at),
      (at) => ownPiece(memory, memoryOffset + at, lengthBytes - at),
      (at, bounce) => {
        this.read(address + at, bounce);
        memory.write(memoryOffset + at, bounce);
      },
    );
  }

  readU8(address: number): number {
    const bytes = new Uint8Array(1);
    this.read(address, bytes);
    return bytes[0]!;
  }

  readU16(address: number): number {
    return this.#readView(address, 2).getUint16(0, true);
  }

  readU32(address: number): number {
    const target = this.#resolve('read', address, 4);
    if (isMemory(target) && address + 4 <= this.#port.limit) {
      this.#port.countBytes(target, 'read', 4);
      return target.memory.readU32(target.memoryOffset + (address - target.start));
    }
    return this.#readView(address, 4).getUint32(0, true);
  }

  readU64(address: number): bigint {
    const target = this.#resolve('read', address, 8);
    if (isMemory(target) && address + 8 <= this.#port.limit) {
      this.#port.countBytes(target, 'read', 8);
      return target.memory.readU64(target.memoryOffset + (address - target.start));
    }
    return this.#readView(address, 8).getBigUint64(0, true);
  }

  readU16BE(address: number): number {
    return this.#readView(address, 2).getUint16(0, false);
  }

  readU32BE(address: number): number {
    return swap32(this.readU32(address));
  }

  readU64BE(address: number): bigint {
    return swap64(this.readU64(address));
  }

  writeU8(address: number, value: number): void {
    this.write(address, Uint8Array.of(value));
  }

  writeU16(address: number, value: number): void {
    this.write(address, Uint8Array.of(value, value >>> 8));
  }

  writeU32(address: number, value: number): void {
    const target = this.#resolve('write', address, 4);
    if (isMemory(target) && address + 4 <= this.#port.limit) {
      target.memory.writeU32(target.memoryOffset + (address - target.start), value);
      this.#port.countBytes(target, 'write', 4);
      return;
    }
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value, true);
    this.write(address, new Uint8Array(view.buffer));
  }

  writeU64(address: number, value: bigint): void {
    const target = this.#resolve('write', address, 8);
    if (isMemory(target) && address + 8 <= this.#port.limit) {
      target.memory.writeU64(target.memoryOffset + (address - target.start), value);
      this.#port.countBytes(target, 'write', 8);
      return;
    }
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, value, true);
    this.write(address, new Uint8Array(view.buffer));
  }

  writeU16BE(address: number, value: number): void {
    this.write(address, Uint8Array.of(value >>> 8, value));
  }

  writeU32BE(address: number, value: number): void {
    this.writeU32(address, swap32(value));
  }

  writeU64BE(address: number, value: bigint): void {
    this.writeU64(address, swap64(value));
  }

  #resolve(direction: 'read' | 'write', address: number, lengthBytes: number): Target {
    this.#requireOpen();
    return this.#port.resolve(direction, address, lengthBytes);
  }

  #requireOpen(): void {
    if (this.#closed !== undefined) throw new PortClosedError(this.#port.member.name, this.#closed);
  }

  #readView(address: number, lengthBytes: number): DataView {
    const bytes = new Uint8Array(lengthBytes);
    this.read(address, bytes);
    return new DataView(bytes.buffer);
  }

  #readPiece(from: Target, address: number, target: Uint8Array): void {
    if (isMemory(from)) from.memory.read(from.memoryOffset + (address - from.start), target);
    else if (from.kind === 'peer-registers') this.#port.readRegisters(from, address, target);
    else this.#message('read', address, target.length, (channel) => channel.dmaRead(address, target));
    if (from.kind !== 'peer-registers') this.#port.countBytes(from, 'read', target.length);
    // The client's requests were served while a message was under way, a reset among them.
    if (from.kind === 'messages') this.#requireOpen();
  }

  #writePiece(to: Target, address: number, source: Uint8Array): void {
    if (isMemory(to)) to.memory.write(to.memoryOffset + (address - to.start), source);
    else if (to.kind === 'peer-registers') this.#port.postRegisters(to, address, source);
    else this.#message('write', address, source.length, (channel) => channel.dmaWrite(address, source));
    if (to.kind !== 'peer-registers') this.#port.countBytes(to, 'write', source.length);
    if (to.kind === 'messages') this.#requireOpen();
  }

  #fillPiece(to: Target, address: number, value: number, lengthBytes: number): void {
    if (to.kind === 'peer-memory') {
      to.memory.fill(to.memoryOffset + (address - to.start), value, lengthBytes);
    } else if (to.kind === 'guest-memory') {
      to.memory.forEachSpan(to.memoryOffset + (address - to.start), lengthBytes, (bytes) => bytes.fill(value));
    } else {
      this.#writePiece(to, address, new Uint8Array(lengthBytes).fill(value));
      return;
    }
    this.#port.countBytes(to, 'write', lengthBytes);
  }

  #message(
    direction: 'read' | 'write',
    address: number,
    lengthBytes: number,
    exchange: (channel: DmaMessageChannel) => void,
  ): void {
    const channel = this.#port.member.messages;
    if (channel === undefined) {
      throw this.#port.failed('message-failed', direction, address, lengthBytes, 'no client is connected');
    }
    try {
      exchange(channel);
    } catch (error) {
      this.#requireOpen();
      const { errno, message } = error as { errno?: number; message: string };
      if (errno === undefined) throw error;
      const failure = errno === ERRNO.EDEADLK ? 'would-deadlock' : 'message-failed';
      throw this.#port.failed(failure, direction, address, lengthBytes, message);
    }
  }

  #busPiece(direction: 'read' | 'write', address: number, left: number): Piece {
    const port = this.#port;
    const target = this.#resolve(direction, address, left);
    const lengthBytes = Math.min(left, port.limit - address);
    const count = (moved: number) => port.countBytes(target, direction, moved);
    return isMemory(target)
      ? { memory: target.memory, offset: target.memoryOffset + (address - target.start), lengthBytes, count }
      : { memory: undefined, offset: 0, lengthBytes, count };
  }

  /**
   * Moves bytes straight between memories. Where one end is none, `viaBuffer` moves a chunk: handlers or a client's
   * requests may run then and unmap anything, so no view is held and both ends are looked up again.
   */
  #transfer(
    lengthBytes: number,
    source: (at: number) => Piece,
    destination: (at: number) => Piece,
    viaBuffer: (at: number, bounce: Uint8Array) => void,
  ): void {
    requireLength(lengthBytes);
    for (let done = 0; done < lengthBytes; ) {
      const from = source(done);
      const to = destination(done);
      const length = Math.min(from.lengthBytes, to.lengthBytes);
      if (from.memory !== undefined && to.memory !== undefined) {
        copyBetween(from.memory, from.offset, to.memory, to.offset, length);
        from.count(length);
        to.count(length);
        done += length;
      } else {
        const bounce = new Uint8Array(Math.min(length, BOUNCE_BYTES));
        viaBuffer(done, bounce);
        done += bounce.length;
      }
    }
  }
}

function isMemory(target: Target): target is MemoryMap | MemorySegment<FabricPort> {
  return target.kind === 'guest-memory' || target.kind === 'peer-memory';
}

/** Writes that are copied before they are executed stay small. */
function pieceLimit(to: Target): number {
  return isMemory(to) ? Number.POSITIVE_INFINITY : Math.min(POSTED_LIMIT_BYTES, BOUNCE_BYTES);
}

function ownPiece(memory: MemoryRegion, offset: number, lengthBytes: number): Piece {
  return { memory, offset, lengthBytes, count: () => {} };
}

function copyBetween(
  source: ByteMemory,
  sourceOffset: number,
  destination: ByteMemory,
  destinationOffset: number,
  lengthBytes: number,
): void {
  source.forEachSpan(sourceOffset, lengthBytes, (bytes, at) => destination.write(destinationOffset + at, bytes));
}

function requireLength(lengthBytes: number): void {
  if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 0) {
    throw new RangeError(`a DMA length is a whole number of bytes, not ${lengthBytes}`);
  }
}

function swap32(value: number): number {
  swapView.setUint32(0, value, true);
  return swapView.getUint32(0, false);
}

function swap64(value: bigint): bigint {
  swapView.setBigUint64(0, value, true);
  return swapView.getBigUint64(0, false);
}
