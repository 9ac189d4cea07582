/**
 * The machinery that SDMA and the command processor share: a ring of packets in GPU memory, indirect buffers called from
 * it, and a scheduler that runs rings in slices between register accesses.
 *
 * Rings are the guest's: contents are untrusted. A packet can at most stop its own ring; a ring never keeps the bus for
 * longer than a slice.
 */
import { type FunctionPort, SLICE_BYTES, type Timer } from 'ghostbus';
import type { Complaints } from '../complaints.js';
import type { CommandBuffer, Outcome, Packet, PacketRing } from '../packets/packet.js';

/** Dwords fetched at once. */
const FETCH_DWORDS = 512;

/** Ring, indirect buffer, indirect buffer of an indirect buffer (PM4 knows IB1 and IB2). */
const MAX_NESTING = 3;

/** Packets of one slice, about a millisecond of decoding. */
const SLICE_PACKETS = 2000;

/** What entering a buffer costs of a slice's bytes: page walks and a fetch, far more than decoding a packet. */
const CALL_COST_BYTES = 64 * 1024;

/** A waiting ring looks again after this long, unless another ring of the GPU makes progress earlier. */
const POLL_INTERVAL_MS = 1;

interface Frame extends CommandBuffer {
  position: number;
  /** Dwords that may be executed; a ring's grows with its write pointer. */
  available: number;
  readonly wraps: boolean;
  fetchedFrom: number;
  fetched: Uint32Array;
}

function makeFrame(buffer: CommandBuffer, position: number, available: number, wraps: boolean): Frame {
  return { ...buffer, position, available, wraps, fetchedFrom: 0, fetched: new Uint32Array(0) };
}

/** A packet in a frame. */
class FramePacket implements Packet {
  readonly #frame: Frame;
  readonly lengthDwords: number;

  constructor(frame: Frame, lengthDwords: number) {
    this.#frame = frame;
    this.lengthDwords = lengthDwords;
  }

  get space() {
    return this.#frame.space;
  }

  dword(index: number): number {
    return index < this.lengthDwords ? dwordAt(this.#frame, this.#frame.position + index) : 0;
  }

  payload(first: number, count: number): Uint8Array {
    const words = new Uint32Array(count);
    for (let index = 0; index < count; index++) words[index] = this.dword(first + index);
    return new Uint8Array(words.buffer);
  }
}

function dwordAt(frame: Frame, position: number): number {
  const index = position - frame.fetchedFrom;
  if (index >= 0 && index < frame.fetched.length) return frame.fetched[index]!;
  const offset = position % frame.sizeDwords;
  const untilWrap = frame.sizeDwords - offset;
  const pending = frame.position + frame.available - position;
  const bytes = new Uint8Array(4 * Math.max(1, Math.min(FETCH_DWORDS, untilWrap, pending)));
  frame.space.read(frame.address + 4 * offset, bytes);
  frame.fetchedFrom = position;
  frame.fetched = new Uint32Array(bytes.buffer);
  return frame.fetched[0]!;
}

/** What decodes packets and executes them. One instance per queue; it must not throw on any input. */
export interface PacketProcessor {
  /**
   * Length in dwords of the packet that starts with `header`, at least 1; undefined: no such packet. `peek` gives a later
   * dword, undefined where the commands end; then the least length that would tell is the answer.
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
export class CommandQueue implements PacketRing {
  readonly name: string;
  readonly #scheduler: Scheduler;
  readonly #processor: PacketProcessor;
  readonly #complaints: Complaints;
  #frames: Frame[] = [];
  #writePointer = 0;
  #state: QueueState = 'off';
  #paused = false;
  #stopReason = '';
  #reported = 0;
  /** Packets executed since power-on. */
  packets = 0;
  /** Progress of the current packet in its own unit; zero at its start. */
  progress = 0;
  /** Set by the scheduler. */
  scheduled = false;
  timer: Timer | undefined;
  /** Bytes the current slice may still copy. */
  budgetBytes = 0;

  constructor(name: string, scheduler: Scheduler, complaints: Complaints, processor: PacketProcessor) {
    this.name = name;
    this.#scheduler = scheduler;
    this.#complaints = complaints;
    this.#processor = processor;
  }

  get state(): QueueState {
    return this.#state;
  }

  /** Takes a ring into use; `readPointer` in dwords is where execution starts. */
  start(ring: CommandBuffer, readPointer: number): void {
    this.#frames = [makeFrame(ring, readPointer, 0, true)];
    this.#state = 'idle';
    this.#reported = readPointer;
    this.#stopReason = '';
    this.progress = 0;
    this.#kick();
  }

  /** Takes the ring out of use. Whatever was not executed is forgotten; a later `start` begins anew. */
  stop(): void {
    this.#state = 'off';
    this.#frames = [];
    this.timer?.cancel();
    this.timer = undefined;
  }

  /** The queue executes nothing any more until it is started anew; as a hung engine, it tells nobody. */
  hang(reason: string): void {
    this.#state = 'hung';
    this.#stopReason = reason;
    this.timer?.cancel();
    this.timer = undefined;
  }

  /** A halted engine keeps its place. */
  setPaused(paused: boolean): void {
    this.#paused = paused;
    if (!paused) this.#kick();
  }

  /** The write pointer in dwords; rings are powers of two, so only its position in the ring counts. Starts work. */
  setWritePointer(dwords: number): void {
    this.#writePointer = dwords;
    this.#kick();
  }

  /** Dwords executed since `start`, plus the read pointer it began with. */
  get readPointer(): number {
    return this.#frames[0]?.position ?? 0;
  }

  get writePointer(): number {
    return this.#writePointer;
  }

  /** 1 in the ring, one more per indirect buffer. */
  get depth(): number {
    return this.#frames.length;
  }

  /** Continues with another buffer: called from a packet. False when nested too deeply. */
  call(buffer: CommandBuffer, packetDwords: number, chain = false): boolean {
    this.budgetBytes -= CALL_COST_BYTES;
    const frame = this.#frames.at(-1)!;
    if (chain && this.#frames.length > 1) {
      this.#frames.pop();
    } else {
      if (this.#frames.length >= MAX_NESTING) return false;
      if (buffer.sizeDwords > 0) this.#advance(frame, packetDwords);
    }
    if (buffer.sizeDwords > 0) this.#frames.push(makeFrame(buffer, 0, buffer.sizeDwords, false));
    return true;
  }

  /** Skips dwords after the current packet (a conditional execution that does not take place). */
  skip(dwords: number): void {
    const frame = this.#frames.at(-1)!;
    this.#advance(frame, Math.min(dwords, frame.available));
  }

  #advance(frame: Frame, dwords: number): void {
    frame.position += dwords;
    frame.available -= dwords;
  }

  #kick(): void {
    const ring = this.#frames[0];
    if (ring === undefined || this.#state === 'off' || this.#state === 'hung' || this.#paused) return;
    const pending = (this.#writePointer - (ring.position % ring.sizeDwords)) % ring.sizeDwords;
    ring.available = pending < 0 ? pending + ring.sizeDwords : pending;
    if (ring.available > 0 || this.#frames.length > 1) this.#scheduler.schedule(this);
  }

  /** Executes until the slice is used up, the ring is empty, or it must wait. */
  runSlice(): void {
    this.timer?.cancel();
    this.timer = undefined;
    if (this.#state === 'off' || this.#state === 'hung' || this.#paused) return;
    // Whatever wrote the ring or the buffer since the last slice must be seen.
    for (const frame of this.#frames) frame.fetched = new Uint32Array(0);
    this.#state = 'running';
    this.budgetBytes = SLICE_BYTES;
    let outcome: Outcome | 'empty' = 'next';
    for (let count = 0; count < SLICE_PACKETS && this.budgetBytes > 0 && outcome === 'next'; count++) {
      outcome = this.#step();
    }
    if (this.readPointer !== this.#reported) {
      this.#reported = this.readPointer;
      this.#processor.reportReadPointer(this.#reported);
    }
    this.#afterSlice(outcome);
  }

  #afterSlice(outcome: Outcome | 'empty'): void {
    // A packet may have stopped this very queue (an unmap, a reset).
    if (this.state !== 'running') return;
    if (outcome === 'error') return;
    if (outcome === 'empty') this.#state = 'idle';
    else if (outcome === 'wait') {
      this.#state = 'waiting';
      this.#scheduler.wait(this, POLL_INTERVAL_MS);
    } else this.#scheduler.schedule(this);
  }

  #step(): Outcome | 'empty' {
    const frame = this.#frames.at(-1);
    if (frame === undefined) return 'empty';
    if (frame.available <= 0) {
      if (this.#frames.length === 1) return 'empty';
      this.#frames.pop();
      return 'next';
    }
    const header = dwordAt(frame, frame.position);
    const peek = (index: number) => (index < frame.available ? dwordAt(frame, frame.position + index) : undefined);
    const length = this.#processor.lengthOf(header, peek);
    if (length === undefined) return this.#hang(header, 'not implemented');
    if (length > frame.available) {
      // The rest of a ring's packet may still be on its way; a buffer's end is final.
      if (frame.wraps && length < frame.sizeDwords) return 'empty';
      return this.#hang(header, `${length} dwords long, ${frame.available} left`);
    }
    const depth = this.#frames.length;
    const outcome = this.#processor.execute(header, new FramePacket(frame, length));
    if (outcome === 'error') return this.#hang(header, 'not executable');
    if (outcome === 'next') {
      this.packets++;
      this.progress = 0;
      // A packet that called a buffer has advanced its frame itself.
      if (this.#frames.length === depth && this.#frames.at(-1) === frame) this.#advance(frame, length);
    }
    return outcome === 'again' ? 'next' : outcome;
  }

  #hang(header: number, reason: string): 'error' {
    this.#state = 'hung';
    const place = this.#frames.length > 1 ? 'an indirect buffer' : 'the ring';
    const name = this.#processor.nameOf(header) ?? 'unknown';
    this.#stopReason = `packet 0x${header.toString(16).padStart(8, '0')} (${name}) in ${place}: ${reason}`;
    this.#complaints.warn('stopped ring', `${this.name} stops at ${this.#stopReason}`);
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

/** Runs queues one slice at a time from posted work. */
export class Scheduler {
  readonly #port: FunctionPort;
  readonly #waiting = new Set<CommandQueue>();
  #stopped = false;

  constructor(port: FunctionPort) {
    this.#port = port;
  }

  schedule(queue: CommandQueue): void {
    if (queue.scheduled || this.#stopped) return;
    queue.scheduled = true;
    this.post(() => {
      queue.scheduled = false;
      this.#waiting.delete(queue);
      const before = queue.packets;
      queue.runSlice();
      if (queue.packets !== before) this.#wakeOthers(queue);
    });
  }

  /** Runs `work` after the current access, unless the GPU is reset before. */
  post(work: () => void): void {
    this.#port.post(() => {
      if (!this.#stopped) work();
    });
  }

  /** Looks at a waiting queue again later. */
  wait(queue: CommandQueue, delayMs: number): void {
    this.#waiting.add(queue);
    queue.timer = this.#port.clock.after(delayMs, () => this.schedule(queue));
  }

  /** Another ring's fence may be what a queue waits for. */
  #wakeOthers(except: CommandQueue): void {
    for (const queue of this.#waiting) {
      if (queue !== except) this.schedule(queue);
    }
  }

  /** The GPU is reset: nothing of this power cycle runs any more. */
  stop(): void {
    this.#stopped = true;
    for (const queue of this.#waiting) queue.timer?.cancel();
    this.#waiting.clear();
  }
}
