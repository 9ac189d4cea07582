import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { BusCommand, BusReport, BusThreadData, DeviceInstance, ServedFunction } from './bus-messages.js';
import type { ResolvedDevice } from './device-spec.js';
import type { FunctionState } from './function-state.js';
import { type HandlerReport, HandlerWatch, runDelayMs, WATCH_INTERVAL_MS } from './handler-watch.js';
import { closeFd, createEventfd, signalEventfd } from './host/index.js';
import type { PeerRouting } from './memory/fabric.js';

export type { ServedFunction } from './bus-messages.js';
export type { FunctionState } from './function-state.js';

/** A spinning thread needs a core of its own beside the guest's; with fewer it only slows the guest. */
const SPINNING_CORES = 4;
/** How long to look for requests before sleeping, where that is worth it. */
export const SPIN_US = 50;

/** A logger such as pino's: fields first. */
export interface EmulatorLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface EmulatorOptions {
  /** See `resolveDevices`. */
  readonly devices: readonly ResolvedDevice[];
  readonly log: EmulatorLog;
  /** Folder for the sockets, private to the user. Default: a new one under $XDG_RUNTIME_DIR or the temporary folder. */
  readonly socketDirectory?: string;
  /**
   * Look for requests this long before sleeping, in microseconds. Default 50 where at least four cores exist, else 0.
   */
  readonly spinUs?: number;
  /**
   * How a peer's BAR is reached. Default `address`; `iommu` when every request passes a translating IOMMU of the guest
   * (`--viommu` with functions on root ports).
   */
  readonly peerRouting?: PeerRouting;
}

interface Pending {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Serves functions from a bus thread; this is the main thread's handle of it. */
export class Emulator {
  readonly functions: readonly ServedFunction[];
  readonly socketDirectory: string;
  readonly #thread: BusThread;
  readonly #removeSockets: () => void;
  #stopping: Promise<void> | undefined;

  /** @internal Use {@link startEmulator}. */
  constructor(thread: BusThread, functions: readonly ServedFunction[], directory: string, removeSockets: () => void) {
    this.#thread = thread;
    this.#removeSockets = removeSockets;
    this.functions = functions;
    this.socketDirectory = directory;
  }

  /** Settles when the bus thread ends; rejects if it died. */
  get ended(): Promise<void> {
    return this.#thread.ended;
  }

  /** Runs a function's {@link Command}. Rejects with its message when it refuses. */
  control(functionName: string, command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return this.#thread.send({ kind: 'control', function: functionName, command, args });
  }

  /** State and counters of every function. */
  async state(): Promise<FunctionState[]> {
    return (await this.#thread.send({ kind: 'state' })) as FunctionState[];
  }

  async stateOf(functionName: string): Promise<FunctionState> {
    const [state] = (await this.#thread.send({ kind: 'state', function: functionName })) as FunctionState[];
    return state!;
  }

  /** Sets every transfer and interrupt counter to zero. */
  async resetCounters(): Promise<void> {
    await this.#thread.send({ kind: 'reset-counters' });
  }

  /** Reads from the memory behind a BAR, as the host sees it. Rejects where the BAR has no memory. */
  async readBar(functionName: string, bar: number, offset: number, lengthBytes: number): Promise<Uint8Array> {
    return (await this.#thread.send({
      kind: 'read-bar',
      function: functionName,
      bar,
      offset,
      lengthBytes,
    })) as Uint8Array;
  }

  /**
   * Closes every socket, ends the bus thread and removes the sockets, with their folder unless it was given. Can be
   * called twice.
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#thread.stop().finally(this.#removeSockets);
    return this.#stopping;
  }
}

/** The threads that run; at this process's exit each is ended. One listener for all: Node warns of more than ten. */
const busThreads = new Set<BusThread>();
process.on('exit', () => {
  for (const thread of busThreads) thread.end();
});

/** The worker thread with its wake-up descriptor. */
class BusThread {
  readonly ended: Promise<void>;
  readonly #worker: Worker;
  readonly #wakeFd: number;
  readonly #pending = new Map<number, Pending>();
  readonly #watchdog: { stop(): void };
  #nextId = 1;

  constructor(data: Omit<BusThreadData, 'wakeFd' | 'busySinceMs'>, onReport: (report: BusReport) => void) {
    this.#wakeFd = createEventfd();
    const busySinceMs = new Float64Array(new SharedArrayBuffer(Float64Array.BYTES_PER_ELEMENT));
    let threadId = 0;
    this.#watchdog = watchHandlers(busySinceMs, () => runDelayMs(threadId), onReport);
    this.#worker = new Worker(new URL('./bus-worker.js', import.meta.url), {
      workerData: { ...data, wakeFd: this.#wakeFd, busySinceMs } satisfies BusThreadData,
    });
    this.#worker.on('message', (report: BusReport) => {
      if (report.kind === 'reply') this.#settle(report.id)?.resolve(report.result);
      else if (report.kind === 'refused') this.#settle(report.id)?.reject(new Error(report.message));
      else {
        if (report.kind === 'ready') threadId = report.threadId;
        onReport(report);
      }
    });
    busThreads.add(this);
    this.ended = new Promise((resolve, reject) => {
      this.#worker.once('error', (error) => {
        this.#abandon(error);
        reject(error);
      });
      this.#worker.once('exit', () => {
        this.#abandon(new Error('the bus thread has ended'));
        resolve();
      });
    });
    // Whoever waits for `ended` gets the error; without a waiter the log has it already.
    this.ended.catch((error: Error) => onReport({ kind: 'failed', message: error.stack ?? error.message }));
  }

  send(command: BusCommand): Promise<unknown> {
    if (!busThreads.has(this)) return Promise.reject(new Error('the bus thread has ended'));
    const id = this.#nextId++;
    const reply = new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    this.#worker.postMessage({ id, command });
    signalEventfd(this.#wakeFd);
    return reply;
  }

  async stop(): Promise<void> {
    await this.send({ kind: 'stop' }).catch(() => undefined);
    await this.ended.catch(() => undefined);
  }

  /**
   * Ends the thread where it is. Node joins its threads before it exits, after an uncaught exception too, and would
   * wait for one that sleeps in epoll_wait.
   */
  end(): void {
    void this.#worker.terminate();
    signalEventfd(this.#wakeFd);
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #abandon(error: Error): void {
    if (!busThreads.delete(this)) return;
    this.#watchdog.stop();
    closeFd(this.#wakeFd);
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
  }
}

/** Looks at the bus thread's handlers until it is stopped, and then says how often the host had let them be late. */
function watchHandlers(
  busySinceMs: Float64Array,
  runDelay: () => number,
  onReport: (report: BusReport) => void,
): { stop(): void } {
  const watch = new HandlerWatch(runDelay);
  const say = (report: HandlerReport) => onReport({ kind: 'log', source: 'bus', fields: {}, ...report });
  const look = () => {
    const found = watch.look(Number(process.hrtime.bigint()) / 1e6, busySinceMs[0]!);
    if (found !== undefined) say(found);
  };
  const interval = setInterval(look, WATCH_INTERVAL_MS).unref();
  return {
    stop: () => {
      clearInterval(interval);
      const message = watch.summary();
      if (message !== undefined) say({ level: 'warn', message });
    },
  };
}

/** Gives each device its instance name: the plugin's name and a number. */
function nameInstances(devices: readonly ResolvedDevice[]): DeviceInstance[] {
  const counts = new Map<string, number>();
  return devices.map(({ plugin, moduleUrl, options }) => {
    const instance = counts.get(plugin.name) ?? 0;
    counts.set(plugin.name, instance + 1);
    return { moduleUrl, options, name: `${plugin.name}${instance}`, instance };
  });
}

/** Serves the functions of the devices. Rejects with a message for people when one cannot be made, or a socket. */
export async function startEmulator(options: EmulatorOptions): Promise<Emulator> {
  const directory = options.socketDirectory ?? mkdtempSync(join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), 'ghostbus-'));
  let resolveStarted: (functions: readonly ServedFunction[]) => void = () => undefined;
  let rejectStarted: (error: Error) => void = () => undefined;
  const started = new Promise<readonly ServedFunction[]>((resolve, reject) => {
    resolveStarted = resolve;
    rejectStarted = reject;
  });
  let isServing = false;
  const thread = new BusThread(
    {
      devices: nameInstances(options.devices),
      socketDirectory: directory,
      spinUs: options.spinUs ?? (availableParallelism() >= SPINNING_CORES ? SPIN_US : 0),
      peerRouting: options.peerRouting ?? 'address',
    },
    (report) => {
      if (report.kind === 'ready') {
        isServing = true;
        resolveStarted(report.functions);
      } else if (report.kind === 'failed') {
        // Whoever starts it gets the error of a start; only a later one has the log alone.
        if (isServing) options.log.error({}, report.message);
        else rejectStarted(new Error(report.message));
      } else if (report.kind === 'log') {
        options.log[report.level]({ function: report.source, ...report.fields }, report.message);
      }
    },
  );
  try {
    const functions = await started;
    return new Emulator(thread, functions, directory, () => removeSockets(options, functions, directory));
  } catch (error) {
    await thread.stop();
    if (options.socketDirectory === undefined) rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

/** A folder that the caller named may hold what is not ours. */
function removeSockets(
  { socketDirectory }: EmulatorOptions,
  functions: readonly ServedFunction[],
  directory: string,
): void {
  if (socketDirectory === undefined) rmSync(directory, { recursive: true, force: true });
  else for (const { socketPath } of functions) rmSync(socketPath, { force: true });
}
