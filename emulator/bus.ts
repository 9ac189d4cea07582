import type { Log } from './ambient/log.js';
import { Poller } from './host/index.js';
import { TimerQueue } from './timers.js';
import type { Watcher } from './vfio-user/server.js';

export interface BusOptions {
  readonly log: Log;
  /** Keep looking for the next request this long before sleeping; worth it only where cores are idle. Default 0. */
  readonly spinUs?: number;
  /** A handler that takes longer is reported: QEMU's other processors wait meanwhile. Default 50. */
  readonly slowHandlerMs?: number;
  /** Monotonic time; tests own it. */
  readonly nowNs?: () => bigint;
  /** Timers by the same time. Default: a queue of the bus's own. */
  readonly timers?: TimerQueue;
  /**
   * Shared with a watcher on another thread: since when a handler runs, in milliseconds of the monotonic clock, 0 when
   * none does. A handler that never returns can only be reported from there.
   */
  readonly busySinceMs?: Float64Array;
}

/** What the watchdog and the metrics show of the loop. */
export interface BusStatistics {
  readonly wakeUps: number;
  readonly workPieces: number;
  /** Handlers that took longer than they should, and the longest of them. */
  readonly slowHandlers: number;
  readonly slowest: { readonly what: string; readonly tookMs: number } | undefined;
}

interface Work {
  /** False once the owner was reset or removed: the work is dropped. */
  readonly stillWanted: () => boolean;
  readonly run: () => void;
}

/**
 * The one loop that runs every function: sockets, posted register writes, timers, posted work. Handlers are plain
 * synchronous code, called one after another from here, so their order is repeatable.
 *
 * Order of one turn: every descriptor that is readable; then timers that are due; then one piece of posted work. So
 * requests that already wait on any socket are served before a doorbell is executed (seen broken without:
 * a CPU's store to one function and its doorbell on another arrive on two sockets and must keep their order). Register
 * writes from a peer's DMA run as soon as the handler that caused them has returned, before anything else.
 */
export class Bus implements Watcher {
  readonly clock: TimerQueue;
  readonly #log: Log;
  readonly #poller = new Poller();
  readonly #watched = new Map<number, () => void>();
  readonly #tokens = new Map<number, number>();
  readonly #work: Work[] = [];
  readonly #peerWrites: (() => void)[] = [];
  readonly #spinNs: bigint;
  readonly #slowNs: bigint;
  readonly #nowNs: () => bigint;
  readonly #busySinceMs: Float64Array;
  #nextToken = 1;
  #stopped = false;
  #handlersRunning = 0;
  /** Time inside handlers that was spent serving others: not theirs. */
  #servedInsideNs = 0n;
  /** Whose code the handler that runs now is, once that is known. */
  #handledFor: string | undefined;
  #statistics: { -readonly [Name in keyof BusStatistics]: BusStatistics[Name] } = {
    wakeUps: 0,
    workPieces: 0,
    slowHandlers: 0,
    slowest: undefined,
  };

  constructor(options: BusOptions) {
    this.#log = options.log;
    this.#nowNs = options.nowNs ?? process.hrtime.bigint;
    this.#busySinceMs = options.busySinceMs ?? new Float64Array(1);
    this.clock = options.timers ?? new TimerQueue(this.#nowNs);
    this.#spinNs = BigInt(Math.round((options.spinUs ?? 0) * 1000));
    this.#slowNs = BigInt(Math.round((options.slowHandlerMs ?? 50) * 1e6));
  }

  /** Calls `onReady` whenever `fd` can be read, or on request written (level-triggered), until {@link unwatch}. */
  watch(fd: number, onReady: () => void, interest: 'read' | 'write' = 'read'): void {
    const token = this.#nextToken++;
    this.#poller.add(fd, token, interest);
    this.#watched.set(token, onReady);
    this.#tokens.set(fd, token);
  }

  /** Call it before closing the descriptor. */
  unwatch(fd: number): void {
    const token = this.#tokens.get(fd);
    if (token === undefined) return;
    this.#poller.remove(fd);
    this.#watched.delete(token);
    this.#tokens.delete(fd);
  }

  /** Queues a piece of work; it is dropped if `stillWanted` says so when its turn comes. */
  post(run: () => void, stillWanted: () => boolean): void {
    this.#work.push({ run, stillWanted });
  }

  /** Queues a register write that a peer's DMA makes; it runs when the current handler has returned. */
  postPeerWrite(run: () => void): void {
    this.#peerWrites.push(run);
  }

  /** Bounded: two functions whose registers write to each other must not keep the loop from serving requests. */
  #drainPeerWrites(): void {
    for (let left = this.#peerWrites.length; left > 0; left--) {
      this.#timed('a register write by a peer', this.#peerWrites.shift()!);
    }
  }

  /**
   * Serves every descriptor that is ready, waiting at most `timeoutMs` for one (-1: no limit). Also called from inside
   * a handler that waits for the answer to a DMA message.
   */
  serveReady(timeoutMs: number): void {
    if (this.#handlersRunning === 0) {
      this.#serveReady(timeoutMs);
      return;
    }
    const start = this.#nowNs();
    this.#serveReady(timeoutMs);
    this.#servedInsideNs += this.#nowNs() - start;
  }

  #serveReady(timeoutMs: number): void {
    const ready = this.#poller.wait(timeoutMs);
    if (ready === 0) return;
    this.#statistics.wakeUps++;
    const tokens = Array.from({ length: ready }, (_, index) => this.#poller.tokenAt(index));
    for (const token of tokens) {
      // A handler before this one may have closed it.
      const onReady = this.#watched.get(token);
      if (onReady === undefined) continue;
      this.runHandler('a request', onReady);
    }
  }

  /** Runs one handler as the loop does: timed, and followed by the register writes to peers that it caused. */
  runHandler(what: string, run: () => void): void {
    this.#timed(what, run);
    this.#drainPeerWrites();
  }

  /** To be called by a handler: what it does from here on is done for the function `name`. */
  attribute(name: string): void {
    this.#handledFor = name;
  }

  /** Runs the timers that are due now. */
  runTimers(): void {
    this.clock.runDue((callback) => this.runHandler('a timer', callback));
  }

  /** One turn of the loop, waiting at most `maxWaitMs` (-1: no limit) when there is nothing to do. */
  turn(maxWaitMs: number): void {
    const untilTimerMs = this.clock.msUntilNext();
    let waitMs = this.idle ? maxWaitMs : 0;
    if (untilTimerMs >= 0 && (waitMs < 0 || untilTimerMs < waitMs)) waitMs = untilTimerMs;
    this.serveReady(waitMs === 0 || this.#spin() ? 0 : waitMs);
    this.#drainPeerWrites();
    this.runTimers();
    const work = this.#work.shift();
    if (work?.stillWanted()) {
      this.#statistics.workPieces++;
      this.runHandler('posted work', work.run);
    }
  }

  /** Turns until {@link stop}. */
  run(): void {
    while (!this.#stopped) this.turn(-1);
  }

  stop(): void {
    this.#stopped = true;
  }

  /** True when no work and no register write of a peer waits. */
  get idle(): boolean {
    return this.#work.length === 0 && this.#peerWrites.length === 0;
  }

  /** True when there is neither work nor a timer: tests turn the loop until it rests. */
  get resting(): boolean {
    return this.idle && this.clock.msUntilNext() < 0;
  }

  statistics(): BusStatistics {
    return { ...this.#statistics };
  }

  close(): void {
    this.#poller.close();
  }

  /** Looks for a request without sleeping for up to the spin time; true if one came. */
  #spin(): boolean {
    if (this.#spinNs === 0n) return false;
    const until = this.#nowNs() + this.#spinNs;
    while (this.#nowNs() < until) {
      if (this.#poller.wait(0) > 0) return true;
    }
    return false;
  }

  #timed(what: string, run: () => void): void {
    const start = this.#nowNs();
    const servedInsideNs = this.#servedInsideNs;
    const outerSinceMs = this.#busySinceMs[0]!;
    const outerFor = this.#handledFor;
    this.#handledFor = undefined;
    this.#busySinceMs[0] = Number(start) / 1e6;
    this.#handlersRunning++;
    try {
      run();
    } catch (error) {
      // Functions catch their own faults; what arrives here is a fault of the emulator, which must not stop the others.
      this.#log.error(`${what} failed outside every function`, { stack: (error as Error).stack });
    }
    this.#handlersRunning--;
    this.#busySinceMs[0] = outerSinceMs;
    const took = this.#nowNs() - start - (this.#servedInsideNs - servedInsideNs);
    if (took > this.#slowNs) this.#countSlow(this.#handledFor ? `${what} for ${this.#handledFor}` : what, took);
    this.#handledFor = outerFor;
  }

  /** On a busy host there are dozens: each is only noted, and {@link slowHandlersSummary} has them all. */
  #countSlow(what: string, tookNs: bigint): void {
    const tookMs = Number(tookNs / 1_000_000n);
    this.#statistics.slowHandlers++;
    if (tookMs > (this.#statistics.slowest?.tookMs ?? 0)) this.#statistics.slowest = { what, tookMs };
    this.#log.debug(`${what} took ${tookMs} ms; the virtual machine's processors may have waited for it`);
  }
}

/** One line about all handlers that took too long; undefined when none did. */
export function slowHandlersSummary({ slowHandlers, slowest }: BusStatistics): string | undefined {
  if (slowest === undefined) return undefined;
  const longest = `${slowest.tookMs} ms (${slowest.what})`;
  const all =
    slowHandlers === 1
      ? `one handler took ${longest}`
      : `${slowHandlers} handlers were late, the longest took ${longest}`;
  return `${all}; the virtual machine's processors may have waited, as on a busy host (level debug tells each)`;
}
