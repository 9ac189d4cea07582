/**
 * One command processor (CP) of a queue manager with its completion of command buffers: takes buffers from its queue
 * (CQ), fetches them in chunks, executes packet after packet. Upper CPs 0 to 3 are the streams; the lower CP, number 4,
 * executes what the upper ones hand it with CP_DMA.
 *
 * A stream executes strictly in order: the next packet starts when a DMA has ended. That satisfies every barrier bit.
 */

import { COST, type WorkBudget } from 'ghostbus/kit';
import type { DmaCore, Transfer } from '../engines/dma-core.js';
import { addressOf } from '../interconnect/address-map.js';
import { DeviceFault } from '../interconnect/device-fault.js';
import type { Interconnect, Requester } from '../interconnect/interconnect.js';
import {
  ARB_POINT_CONFIGURATION,
  BULK_CONFIGURATION,
  FENCE_CONFIGURATION,
  HEADER_BYTES,
  LOAD_AND_EXE,
  LONGEST_PACKET_BYTES,
  MESSAGE_CONTROL,
  OPCODE,
  PACKET_BYTES,
  PACKET_CONTROL,
  SHORT_CONTROL,
  WAIT_CONFIGURATION,
  WREG_CONTROL,
} from './packets.js';

/** DMA0_QM_GLBL_STS1_* (dma0_qm_masks.h). */
export const QMAN_ERROR = {
  pqFetch: 1 << 0,
  cqFetch: 1 << 1,
  cpRead: 1 << 2,
  undefinedOpcode: 1 << 3,
  stopped: 1 << 4,
  messageWrite: 1 << 5,
  registerWrite: 1 << 6,
  fenceOverflow: (fence: number) => 1 << (8 + fence),
  fenceUnderflow: (fence: number) => 1 << (12 + fence),
} as const;

export const LOWER_CP = 4;
/** Buffers that wait in one CQ; an upper CP that meets a full lower one waits. */
const MAX_BUFFERS = 16;
const CHUNK_BYTES = 2048;
/** Quadwords of a WREG_BULK written in one go. */
const BULK_QUADWORDS = 64;
const PREDICATE_BYTES = 128;
const SCALAR_BYTES = 16;
/** What a message writes (GAUDI_PKT_LONG_CTL_OP): its value, or the time. */
const WRITE_TIMESTAMP = 1;
/** The bits of a LIN_DMA's control word that `DMA_CONTROL` names. */
const DMA_FLAGS = 0x7f;
/** DST_BASE_HI of a LIN_DMA: the upper byte is a context number (GAUDI_PKT_LIN_DMA_DST_ADDR_MASK). */
const DESTINATION_HIGH = 0xffffff;

const HAS_PREDICATE: ReadonlySet<number> = new Set([
  OPCODE.wreg32,
  OPCODE.wregBulk,
  OPCODE.msgLong,
  OPCODE.msgProt,
  OPCODE.fence,
  OPCODE.arbPoint,
  OPCODE.loadAndExe,
  OPCODE.cpDma,
]);

export interface CommandBuffer {
  readonly address: number;
  readonly lengthBytes: number;
}

/** What a CP needs of its queue manager. */
export interface CpHost {
  readonly interconnect: Interconnect;
  /** Undefined where the engine is no DMA core. */
  readonly core: DmaCore | undefined;
  /** Identity for fetching buffers, and for the messages they contain. */
  fetchRequester(cp: number): Requester;
  messageRequester(cp: number): Requester;
  messageBase(base: number, cp: number): number;
  /** The next prime-queue entry of a stream; undefined when there is none. */
  nextBuffer(cp: number): CommandBuffer | undefined;
  /** Hands a buffer to the lower CP; false when it has no room. */
  pushLower(buffer: CommandBuffer): boolean;
  writeRegister(offset: number, value: number): void;
  addToFence(fence: number, cp: number, increment: number): void;
  /** Takes `decrement` off a fence that has reached `target`; false if it has not. */
  passFence(fence: number, cp: number, target: number, decrement: number): boolean;
  /** True when the stream need not wait for the arbiter. */
  requestArbiter(cp: number, priority: number): boolean;
  releaseArbiter(cp: number): void;
  /** Records an error of this CP; may stop it. */
  error(cp: number, cause: number, detail: string): void;
  timestamp(): number;
  afterMessage(): void;
  jobSeen(cp: number, what: string): void;
  wake(): void;
}

/** Over all resets. */
type CpCounters = Record<'packets' | 'buffers', number>;

export class CommandProcessor {
  readonly index: number;
  readonly #host: CpHost;
  readonly #queue: CommandBuffer[] = [];
  #current: CommandBuffer | undefined;
  /** Bytes of the current buffer that have been executed. */
  #position = 0;
  readonly #chunk = new Uint8Array(CHUNK_BYTES);
  readonly #view = new DataView(this.#chunk.buffer);
  #chunkStart = 0;
  #chunkBytes = 0;
  #transfer: Transfer | undefined;
  #fence: { id: number; target: number; decrement: number } | undefined;
  #waitsForArbiter = false;
  #bulk: { offset: number; quadwords: number } | undefined;
  readonly #predicates = new Uint8Array(32);
  readonly #scalars = new Uint8Array(SCALAR_BYTES);
  #isStopped = false;
  #header: readonly [number, number] = [0, 0];
  readonly counters: CpCounters;

  constructor(index: number, host: CpHost, counters: CpCounters) {
    this.index = index;
    this.#host = host;
    this.counters = counters;
    this.#predicates[0] = 1;
  }

  get isIdle(): boolean {
    return this.#current === undefined && this.#transfer === undefined && this.#fence === undefined;
  }

  get isQueueEmpty(): boolean {
    return this.#queue.length === 0 && this.#remaining === 0;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  get waitsForFence(): number | undefined {
    return this.#fence?.id;
  }

  /** The packet executed last, as CP_CURRENT_INST shows it. */
  get currentInstruction(): readonly [number, number] {
    return this.#header;
  }

  /** Where the next packet will be fetched, and how much of the buffer is left. */
  get fetchPointer(): CommandBuffer {
    if (this.#current === undefined) return { address: 0, lengthBytes: 0 };
    return { address: this.#current.address + this.#position, lengthBytes: this.#remaining };
  }

  get hasRoom(): boolean {
    return this.#queue.length < MAX_BUFFERS;
  }

  push(buffer: CommandBuffer): boolean {
    if (!this.hasRoom) return false;
    this.#queue.push(buffer);
    return true;
  }

  stop(): void {
    this.#isStopped = true;
  }

  grant(): void {
    this.#waitsForArbiter = false;
  }

  /** Executes packets until the budget is spent, or it waits or has nothing to do. False if it did nothing. */
  step(budget: WorkBudget): boolean {
    let worked = false;
    while (!budget.isSpent && !this.#isStopped && this.#once(budget)) worked = true;
    return worked;
  }

  #once(budget: WorkBudget): boolean {
    if (this.#transfer !== undefined) return this.#advanceTransfer(this.#transfer, budget);
    if (this.#fence !== undefined) {
      const { id, target, decrement } = this.#fence;
      if (!this.#host.passFence(id, this.index, target, decrement)) return false;
      this.#fence = undefined;
    }
    if (this.#waitsForArbiter) return false;
    if (this.#bulk !== undefined) {
      this.#continueBulk(this.#bulk, budget);
      return true;
    }
    if (this.#remaining === 0 && !this.#takeBuffer()) return false;
    return this.#packet(budget);
  }

  #advanceTransfer(transfer: Transfer, budget: WorkBudget): boolean {
    const core = this.#host.core!;
    const moved = core.advance(transfer, budget);
    if (core.isDone(transfer) && this.#transfer === transfer) this.#transfer = undefined;
    return moved;
  }

  get #remaining(): number {
    return this.#current === undefined ? 0 : this.#current.lengthBytes - this.#position;
  }

  #dropCurrent(): void {
    this.#current = undefined;
    this.#position = 0;
    this.#chunkBytes = 0;
    this.#bulk = undefined;
  }

  #takeBuffer(): boolean {
    this.#dropCurrent();
    const buffer = this.#queue.shift() ?? this.#host.nextBuffer(this.index);
    if (buffer === undefined) return false;
    if (this.index === LOWER_CP) this.#host.wake();
    this.#current = buffer;
    this.counters.buffers++;
    return true;
  }

  /** Makes the next `bytes` of the buffer available; false if the buffer ends before or cannot be read. */
  #load(bytes: number): boolean {
    const current = this.#current!;
    if (this.#remaining < bytes) {
      this.#abandon(QMAN_ERROR.undefinedOpcode, `${this.#remaining} bytes are left of a packet of ${bytes}`);
      return false;
    }
    const at = this.#position - this.#chunkStart;
    if (this.#chunkBytes > 0 && at >= 0 && at + bytes <= this.#chunkBytes) return true;
    const length = Math.min(CHUNK_BYTES, this.#remaining);
    const address = current.address + this.#position;
    try {
      const target = this.#chunk.subarray(0, length);
      this.#host.interconnect.read(address, target, this.#host.fetchRequester(this.index));
    } catch (error) {
      if (!(error instanceof DeviceFault)) throw error;
      if (this.#current === current) this.#abandon(QMAN_ERROR.cqFetch, error.message);
      return false;
    }
    this.#chunkStart = this.#position;
    this.#chunkBytes = length;
    return this.#current === current;
  }

  #abandon(cause: number, detail: string): void {
    this.#dropCurrent();
    this.#host.error(this.index, cause, detail);
  }

  /** False if the packet has to wait. */
  #packet(budget: WorkBudget): boolean {
    budget.charge(COST.entry);
    if (!this.#load(HEADER_BYTES)) return true;
    const control = this.#view.getUint32(this.#position - this.#chunkStart + 4, true);
    const code = PACKET_CONTROL.get(control, 'opcode');
    const bytes = PACKET_BYTES[code]!;
    if (bytes === 0) {
      this.#header = [this.#view.getUint32(this.#position - this.#chunkStart, true), control];
      this.#abandon(QMAN_ERROR.undefinedOpcode, `opcode 0x${code.toString(16)}`);
      return true;
    }
    if (!this.#load(bytes)) return true;
    if (code === OPCODE.cpDma && this.index !== LOWER_CP && !this.#lowerHasRoom(control)) return false;
    const view = new DataView(this.#chunk.buffer, this.#position - this.#chunkStart, bytes);
    this.#position += bytes;
    this.counters.packets++;
    this.#header = [view.getUint32(0, true), control];
    this.#guarded(code, () => this.#execute(code, control, view));
    return true;
  }

  /** CP_DMA waits, unexecuted, until the lower CP has room. */
  #lowerHasRoom(control: number): boolean {
    if (!this.#isTrue(control)) return true;
    const at = this.#position - this.#chunkStart;
    const buffer = {
      address: addressOf(this.#view.getUint32(at + 8, true), this.#view.getUint32(at + 12, true)),
      lengthBytes: this.#view.getUint32(at, true),
    };
    return this.#host.pushLower(buffer);
  }

  #guarded(code: number, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof DeviceFault)) throw error;
      const cause = code === OPCODE.loadAndExe ? QMAN_ERROR.cpRead : QMAN_ERROR.messageWrite;
      this.#host.error(this.index, cause, error.message);
    }
  }

  #isTrue(control: number): boolean {
    return this.#predicates[WREG_CONTROL.get(control, 'predicate')] !== 0;
  }

  #execute(code: number, control: number, view: DataView): void {
    const word = view.getUint32(0, true);
    if (HAS_PREDICATE.has(code) && !this.#isTrue(control)) {
      if (code === OPCODE.wregBulk) this.#skip(8 * BULK_CONFIGURATION.get(word, 'size64'));
      return;
    }
    switch (code) {
      case OPCODE.wreg32:
        this.#host.writeRegister(WREG_CONTROL.get(control, 'offset'), word);
        return;
      case OPCODE.wregBulk:
        this.#bulk = { offset: WREG_CONTROL.get(control, 'offset'), quadwords: BULK_CONFIGURATION.get(word, 'size64') };
        return;
      case OPCODE.msgLong:
      case OPCODE.msgProt:
        this.#message(addressOf(view.getUint32(8, true), view.getUint32(12, true)), word, control);
        return;
      case OPCODE.msgShort:
        this.#messageShort(control, word);
        return;
      case OPCODE.fence:
        this.#fence = FENCE_CONFIGURATION.unpack(word);
        return;
      case OPCODE.linDma:
        this.#linDma(control, view);
        return;
      case OPCODE.stop:
        this.#isStopped = true;
        this.#host.error(this.index, QMAN_ERROR.stopped, 'STOP packet');
        return;
      case OPCODE.arbPoint:
        this.#arbPoint(word);
        return;
      case OPCODE.wait:
        this.#wait(word);
        return;
      case OPCODE.loadAndExe:
        this.#loadAndExecute(word, addressOf(view.getUint32(8, true), view.getUint32(12, true)));
        return;
      case OPCODE.repeat:
        this.#host.jobSeen(this.index, 'REPEAT (executed as NOP)');
        return;
      default:
        // NOP, and CP_DMA that #lowerHasRoom has handed over.
        return;
    }
  }

  #messageShort(control: number, value: number): void {
    const base = this.#host.messageBase(SHORT_CONTROL.get(control, 'base'), this.index);
    this.#message(base + SHORT_CONTROL.get(control, 'offset'), value, control);
  }

  #message(address: number, value: number, control: number): void {
    const written = MESSAGE_CONTROL.get(control, 'operation') === WRITE_TIMESTAMP ? this.#host.timestamp() : value;
    this.#host.interconnect.write32(address, written, this.#host.messageRequester(this.index));
    this.#host.afterMessage();
  }

  #linDma(control: number, view: DataView): void {
    const { core } = this.#host;
    if (core === undefined) {
      this.#host.error(this.index, QMAN_ERROR.undefinedOpcode, 'LIN_DMA on an engine that is no DMA core');
      return;
    }
    const source = [view.getUint32(8, true), view.getUint32(12, true)] as const;
    const destination = [view.getUint32(16, true), view.getUint32(20, true) & DESTINATION_HIGH] as const;
    const lengthBytes = view.getUint32(0, true);
    core.registers.set('SRC_BASE_LO', source[0]);
    core.registers.set('SRC_BASE_HI', source[1]);
    core.registers.set('DST_BASE_LO', destination[0]);
    core.registers.set('DST_BASE_HI', destination[1]);
    core.registers.set('DST_TSIZE_0', lengthBytes);
    this.#transfer = core.begin(control & DMA_FLAGS, lengthBytes, source, addressOf(...destination));
  }

  #arbPoint(word: number): void {
    if (this.index === LOWER_CP) return;
    const { release, priority } = ARB_POINT_CONFIGURATION.unpack(word);
    if (release === 1) this.#host.releaseArbiter(this.index);
    else this.#waitsForArbiter = !this.#host.requestArbiter(this.index, priority);
  }

  /** The cycles themselves pass in no time; what the packet promises is the fence that it feeds afterwards. */
  #wait(word: number): void {
    const { fence, increment } = WAIT_CONFIGURATION.unpack(word);
    this.#host.addToFence(fence, this.index, increment);
  }

  #skip(bytes: number): void {
    this.#position = Math.min(this.#position + bytes, this.#current!.lengthBytes);
  }

  #continueBulk(bulk: { offset: number; quadwords: number }, budget: WorkBudget): void {
    for (let done = 0; done < BULK_QUADWORDS && bulk.quadwords > 0; done++) {
      budget.charge(2 * COST.registerAccess);
      if (!this.#load(8)) return;
      const at = this.#position - this.#chunkStart;
      this.#position += 8;
      bulk.quadwords--;
      this.#host.writeRegister(bulk.offset, this.#view.getUint32(at, true));
      this.#host.writeRegister(bulk.offset + 4, this.#view.getUint32(at + 4, true));
      bulk.offset += 8;
    }
    if (bulk.quadwords === 0 && this.#bulk === bulk) this.#bulk = undefined;
  }

  /** hl-thunk, test_cs_load_predicates: 32 words, bit 0 of each is a predicate, the first stays true. */
  #loadAndExecute(configuration: number, address: number): void {
    if ((configuration & LOAD_AND_EXE.load) !== 0) {
      const toScalars = (configuration & LOAD_AND_EXE.toScalars) !== 0;
      const data = new Uint8Array(toScalars ? SCALAR_BYTES : PREDICATE_BYTES);
      this.#host.interconnect.read(address, data, this.#host.messageRequester(this.index));
      if (toScalars) this.#scalars.set(data);
      else for (let index = 1; index < 32; index++) this.#predicates[index] = data[4 * index]! & 1;
    }
    if ((configuration & LOAD_AND_EXE.execute) !== 0)
      this.#executeScalars((configuration & LOAD_AND_EXE.upperPair) !== 0);
  }

  /** A packet made of the four scalar registers, or of the upper two. */
  #executeScalars(upperPair: boolean): void {
    const start = upperPair ? 8 : 0;
    const view = new DataView(this.#scalars.buffer, start, SCALAR_BYTES - start);
    const control = view.getUint32(4, true);
    const code = PACKET_CONTROL.get(control, 'opcode');
    const bytes = PACKET_BYTES[code]!;
    const isPossible = bytes > 0 && bytes <= view.byteLength && bytes < LONGEST_PACKET_BYTES;
    if (!isPossible || code === OPCODE.loadAndExe || code === OPCODE.wregBulk) {
      this.#host.error(this.index, QMAN_ERROR.undefinedOpcode, `opcode 0x${code.toString(16)} in the scalar registers`);
      return;
    }
    if (code === OPCODE.cpDma) {
      const buffer = {
        address: addressOf(view.getUint32(8, true), view.getUint32(12, true)),
        lengthBytes: view.getUint32(0, true),
      };
      if (!this.#host.pushLower(buffer)) {
        this.#host.error(this.index, QMAN_ERROR.cpRead, 'the queue of the lower CP is full');
      }
      return;
    }
    this.#execute(code, control, view);
  }
}
