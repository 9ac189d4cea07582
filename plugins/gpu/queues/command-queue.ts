/**
 * The machinery that SDMA and the command processor share: a ring of packets in GPU memory, and indirect buffers called
 * from it, executed in turns between register accesses.
 *
 * Rings are the guest's: contents are untrusted. A packet can at most stop its own ring.
 */
import { COST, type FloodGuard, type Runnable, type Scheduler, type TurnResult, WorkBudget } from 'ghostbus/kit';
import type { CommandBuffer, Outcome, Packet, PacketRing } from '../packets/packet.js';
import { CommandReader, ReaderPacket } from './command-buffer.js';

/** Ring, indirect buffer, indirect buffer of an indirect buffer (PM4 knows IB1 and IB2). */
const MAX_NESTING = 3;

/** What decodes packets and executes them. One instance per queue; it must not throw on any input. */
export interface PacketProcessor {
  /**
   * Length in dwords of the packet that starts with `header`, at least 1; undefined: no such packet. `peek` gives a
   * later dword, undefined where the commands end; then the least length that would tell is the answer.
   */
  lengthOf(header: number, peek: (index: number) => number | undefined): number | undefined;
  execute(header: number, packet: Packet): Outcome;
  /** What the data book calls the packet, also one that is not implemented. */
  nameOf(header: number): string | undefined;
  /** The queue stops: a packet was wrong. Raises the interrupt that the hardware would. */
  illegal(header: number, reason: string): void;
  /** Reports the read pointer, counted in dwords since the ring was set up. */
  reportReadPointer(positionDwords: number): void;
}

type QueueState = 'off' | 'idle' | 'running' | 'waiting' | 'hung';

/** One ring and the indirect buffers it is in. */
export class CommandQueue implements PacketRing, Runnable {
  readonly name: string;
  readonly #scheduler: Scheduler;
  readonly #processor: PacketProcessor;
  readonly #log: FloodGuard;
  /** The ring and the indirect buffers it is in; the last one is executed. */
  #readers: CommandReader[] = [];
  #writePointer = 0;
  #state: QueueState = 'off';
  #paused = false;
  #stopReason = '';
  #reported = 0;
  /** Packets executed since power-on. */
  packets = 0;
  progress = 0;
  budget = new WorkBudget(0);

  constructor(name: string, scheduler: Scheduler, log: FloodGuard, processor: PacketProcessor) {
    this.name = name;
    this.#scheduler = scheduler;
    this.#log = log;
    this.#processor = processor;
  }

  get state(): QueueState {
    return this.#state;
  }

  /** Takes a ring into use; `readPointer` in dwords is where execution starts. */
  start(ring: CommandBuffer, readPointer: number): void {
    this.#readers = [CommandReader.ofRing(ring, readPointer)];
    this.#state = 'idle';
    this.#reported = readPointer;
    this.#stopReason = '';
    this.progress = 0;
    this.#kick();
  }

  /** Takes the ring out of use. Whatever was not executed is forgotten; a later `start` begins anew. */
  stop(): void {
    this.#state = 'off';
    this.#readers = [];
    this.#scheduler.remove(this);
  }

  /** The queue executes nothing any more until it is started anew; as a hung engine, it tells nobody. */
  hang(reason: string): void {
    this.#state = 'hung';
    this.#stopReason = reason;
    this.#scheduler.remove(this);
  }

  /** A halted engine keeps its place. */
  setPaused(paused: boolean): void {
    this.#paused = paused;
    if (!paused) this.#kick();
  }

  /** The write pointer in dwords. Starts work. */
  setWritePointer(dwords: number): void {
    this.#writePointer = dwords;
    this.#kick();
  }

  /** Dwords executed since `start`, plus the read pointer it began with. */
  get readPointer(): number {
    return this.#readers[0]?.position ?? 0;
  }

  get depth(): number {
    return this.#readers.length;
  }

  call(buffer: CommandBuffer, packetDwords: number, chain = false): boolean {
    this.budget.charge(COST.fetch);
    if (chain && this.#readers.length > 1) {
      this.#readers.pop();
    } else {
      if (this.#readers.length >= MAX_NESTING) return false;
      if (buffer.sizeDwords > 0) this.#readers.at(-1)!.advance(packetDwords);
    }
    if (buffer.sizeDwords > 0) this.#readers.push(CommandReader.ofIndirectBuffer(buffer));
    return true;
  }

  skip(dwords: number): void {
    const reader = this.#readers.at(-1)!;
    reader.advance(Math.min(dwords, reader.available));
  }

  get #isStopped(): boolean {
    return this.#state === 'off' || this.#state === 'hung' || this.#paused;
  }

  #kick(): void {
    const ring = this.#readers[0];
    if (ring === undefined || this.#isStopped) return;
    ring.setWritePointer(this.#writePointer);
    if (ring.available > 0 || this.#readers.length > 1) this.#scheduler.wake(this);
  }

  /** Executes until the budget is spent, the ring is empty, or it must wait. */
  turn(budget: WorkBudget): TurnResult {
    if (this.#isStopped) return 'idle';
    for (const reader of this.#readers) reader.refetch();
    this.#state = 'running';
    this.budget = budget;
    const before = this.packets;
    let outcome: Outcome | 'empty' = 'next';
    while (outcome === 'next' && !budget.isSpent) outcome = this.#step();
    if (this.readPointer !== this.#reported) {
      this.#reported = this.readPointer;
      this.#processor.reportReadPointer(this.#reported);
    }
    // Another ring may wait for the fence of this one.
    if (this.packets !== before) this.#scheduler.recheck();
    return this.#endTurn(outcome);
  }

  #endTurn(outcome: Outcome | 'empty'): TurnResult {
    // A packet may have stopped this very queue (an unmap, a reset).
    if (this.state !== 'running' || outcome === 'error') return 'idle';
    if (outcome === 'empty') this.#state = 'idle';
    else if (outcome === 'wait') this.#state = 'waiting';
    return outcome === 'empty' ? 'idle' : outcome === 'wait' ? 'poll' : 'ready';
  }

  #step(): Outcome | 'empty' {
    const reader = this.#readers.at(-1);
    if (reader === undefined) return 'empty';
    if (reader.available <= 0) {
      if (this.#readers.length === 1) return 'empty';
      this.#readers.pop();
      return 'next';
    }
    this.budget.charge(COST.entry);
    const header = reader.dword(0);
    const peek = (index: number) => (index < reader.available ? reader.dword(index) : undefined);
    const length = this.#processor.lengthOf(header, peek);
    if (length === undefined) return this.#refuse(header, 'not implemented');
    if (length > reader.available) {
      // The rest of a ring's packet may still be on its way; a buffer's end is final.
      if (reader.isRing && length < reader.sizeDwords) return 'empty';
      return this.#refuse(header, `${length} dwords long, ${reader.available} left`);
    }
    return this.#execute(header, reader, length);
  }

  #execute(header: number, reader: CommandReader, length: number): Outcome {
    const depth = this.#readers.length;
    const outcome = this.#processor.execute(header, new ReaderPacket(reader, length));
    if (outcome === 'error') return this.#refuse(header, 'not executable');
    if (outcome === 'again') return 'next';
    if (outcome === 'next') {
      this.packets++;
      this.progress = 0;
      // A packet that called a buffer has moved its reader itself.
      if (this.#readers.length === depth && this.#readers.at(-1) === reader) reader.advance(length);
    }
    return outcome;
  }

  #refuse(header: number, reason: string): 'error' {
    this.#state = 'hung';
    const place = this.#readers.length > 1 ? 'an indirect buffer' : 'the ring';
    const name = this.#processor.nameOf(header) ?? 'unknown';
    this.#stopReason = `packet 0x${header.toString(16).padStart(8, '0')} (${name}) in ${place}: ${reason}`;
    this.#log.source('stopped ring').warn(`${this.name} stops at ${this.#stopReason}`);
    this.#processor.illegal(header, reason);
    return 'error';
  }

  inspect(): unknown {
    return {
      state: this.#state,
      packets: this.packets,
      readPointer: this.readPointer,
      writePointer: this.#writePointer,
      ...(this.#stopReason === '' ? {} : { stopped: this.#stopReason }),
    };
  }
}
