/**
 * One function on one socket: the life of a connection, and which command goes where.
 *
 * Everything runs on the bus thread and returns at once; only DMA by messages waits, and serves the bus meanwhile. One
 * client at a time: a second one stays in the listen queue, unanswered, until the first has gone (QEMU's own time-out
 * then tells its user). A client that goes leaves the function ready for the next: maps and
 * eventfds dropped, state kept.
 */
import { unlinkSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import type { Log } from '../ambient/log.js';
import { acceptConnection, closeFd, ERRNO, errnoName, listenUnix, Poller } from '../host/index.js';
import { Connection, type IncomingMessage } from './connection.js';
import type { VfioDevice } from './device.js';
import { answerDeviceInfo, answerIrqInfo, answerRegionInfo, answerRegionIoFds, type Reply } from './device-info.js';
import { DmaChannel } from './dma-channel.js';
import { answerDmaMap, answerDmaUnmap } from './dma-requests.js';
import { COMMAND, commandName, EMPTY, encodeError, FLAG, HEADER_BYTES, MalformedMessage } from './messages.js';
import { RegionAccessor } from './region-access.js';
import { answerSetIrqs } from './set-irqs.js';
import { CommandCounters, type ServerStatistics } from './statistics.js';
import { decodeVersion, encodeVersionReply, type ServerLimits } from './version.js';

/** What QEMU accepts (vfio-user.md §0 rule 7). */
const DEFAULT_LIMITS: ServerLimits = {
  maxMessageFds: 16,
  maxDataTransferBytes: 1024 * 1024,
  maxDmaMaps: 65535,
};

/** Shorter than QEMU's own 5 s: a caller hears of it before the guest's processors are let down. */
const DEFAULT_DMA_TIMEOUT_MS = 4000;
const REGION_HEAD_BYTES = 32;
/** Refusals of one connection that are worth a person's attention; a broken client could fill the log. */
const LOUD_REFUSALS = 20;

/** Whoever waits for descriptors; `Bus` is one. */
export interface Watcher {
  /** Calls `onReady` whenever `fd` can be read (or, on request, written), level-triggered, until {@link unwatch}. */
  watch(fd: number, onReady: () => void, interest?: 'read' | 'write'): void;
  /** Called before the descriptor is closed or its interest changes. */
  unwatch(fd: number): void;
}

/** Shared by the servers of one bus thread: how many requests are being answered now. */
export interface AnsweringGate {
  depth: number;
}

export interface FunctionServerOptions {
  readonly log: Log;
  readonly watcher?: Watcher;
  readonly limits?: Partial<ServerLimits>;
  readonly dmaTimeoutMs?: number;
  /** One for all servers of a virtual machine: while any of them answers, QEMU may hold the lock that DMA needs. */
  readonly gate?: AnsweringGate;
  /**
   * Serves whatever socket of the bus is ready, this server's included, waiting at most `timeoutMs` for one. Default:
   * waits for this connection only, which is enough for a virtual machine with one function.
   */
  readonly serveBus?: (timeoutMs: number) => void;
}

const NO_WATCHER: Watcher = { watch() {}, unwatch() {} };

export class FunctionServer {
  readonly socketPath: string;
  readonly listenFd: number;
  readonly #device: VfioDevice;
  readonly #log: Log;
  readonly #watcher: Watcher;
  readonly #limits: ServerLimits;
  readonly #dmaTimeoutMs: number;
  readonly #gate: AnsweringGate;
  readonly #serveBus: (timeoutMs: number) => void;
  readonly #regions: RegionAccessor;
  readonly #counters = new CommandCounters();
  #connection: Connection | undefined;
  /** Set once the client has negotiated. */
  #channel: DmaChannel | undefined;
  #interest: 'read' | 'write' = 'read';
  #closed = false;
  #connections = 0;
  #refusals = 0;
  #longestBatch = 0;
  #dmaMapsWithoutFile = 0;
  #unexpectedReplies = 0;
  #pastDma = { reads: 0, writes: 0, failures: 0 };

  /** Starts to listen. @throws SystemError when `socketPath` cannot be listened on */
  constructor(device: VfioDevice, socketPath: string, options: FunctionServerOptions) {
    this.#device = device;
    this.socketPath = socketPath;
    this.#log = options.log;
    this.#watcher = options.watcher ?? NO_WATCHER;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#dmaTimeoutMs = options.dmaTimeoutMs ?? DEFAULT_DMA_TIMEOUT_MS;
    this.#gate = options.gate ?? { depth: 0 };
    this.#serveBus = options.serveBus ?? ((timeoutMs) => this.#serveOwn(timeoutMs));
    this.#regions = new RegionAccessor(device, options.log, this.#limits.maxDataTransferBytes);
    this.listenFd = listenUnix(socketPath);
    this.#watcher.watch(this.listenFd, () => this.onListenReadable());
  }

  /** Undefined while no client is there. */
  get connectionFd(): number | undefined {
    return this.#connection?.fd;
  }

  /** Takes the next client, unless one is there already. */
  onListenReadable(): void {
    if (this.#connection !== undefined || this.#closed) return;
    let fd: number | undefined;
    try {
      fd = acceptConnection(this.listenFd);
    } catch (error) {
      this.#log.error('a client could not be taken', { reason: (error as Error).message });
    }
    if (fd === undefined) return;
    this.#connection = new Connection(fd, this.#limits.maxDataTransferBytes + REGION_HEAD_BYTES);
    this.#connections++;
    this.#refusals = 0;
    this.#interest = 'read';
    this.#watcher.unwatch(this.listenFd);
    this.#watcher.watch(fd, () => this.onConnectionReadable());
    this.#log.debug('a client connected');
  }

  /**
   * Serves what the client has sent: one receive, then every whole message of it, at most `maxMessages`. To be called
   * when the connection can be read, or written if that is what the watcher was last asked for.
   * 'more': whole messages are left, call again without waiting. 'closed': the client has gone.
   */
  onConnectionReadable(maxMessages = Number.POSITIVE_INFINITY): 'idle' | 'more' | 'closed' {
    const connection = this.#connection;
    if (connection === undefined) return 'closed';
    try {
      if (connection.blocked) connection.flush();
      if (!connection.hasMessage && !connection.blocked && connection.receive() === 'closed') {
        this.#disconnect('the client closed the connection');
        return 'closed';
      }
    } catch (error) {
      this.#disconnect((error as Error).message);
      return 'closed';
    }
    return this.#serveReceived(connection, maxMessages);
  }

  #serveReceived(connection: Connection, maxMessages: number): 'idle' | 'more' | 'closed' {
    let served = 0;
    while (served < maxMessages && this.#connection === connection && !connection.blocked) {
      const message = connection.next();
      if (message === undefined) break;
      served++;
      this.#serve(connection, message);
    }
    if (served > this.#longestBatch) this.#longestBatch = served;
    if (this.#connection !== connection) return 'closed';
    this.#updateInterest(connection);
    return connection.hasMessage && !connection.blocked ? 'more' : 'idle';
  }

  /** While replies wait for room, requests wait for the replies. */
  #updateInterest(connection: Connection): void {
    const interest = connection.blocked ? 'write' : 'read';
    if (interest === this.#interest) return;
    this.#interest = interest;
    this.#watcher.unwatch(connection.fd);
    this.#watcher.watch(connection.fd, () => this.onConnectionReadable(), interest);
  }

  #serve(connection: Connection, message: IncomingMessage): void {
    const { fds } = message;
    let failed = false;
    this.#gate.depth++;
    try {
      this.#dispatch(connection, message);
    } catch (error) {
      failed = true;
      this.#refuse(connection, message, error);
    } finally {
      this.#gate.depth--;
      for (const fd of fds) closeFd(fd);
    }
    this.#counters.record(message.command, performance.now() - message.arrivedMs, failed);
    const untrusted = message.broken || (failed && this.#channel === undefined) || isOfUnknownType(message);
    if (untrusted && this.#connection === connection) this.#disconnect('the client does not keep to the protocol');
  }

  #dispatch(connection: Connection, message: IncomingMessage): void {
    if (message.broken) throw new MalformedMessage(`message size ${message.sizeBytes}`);
    const type = message.flags & FLAG.TYPE_MASK;
    if (type === FLAG.REPLY && this.#acceptReply(message)) return;
    if (type !== FLAG.COMMAND) throw new MalformedMessage(`message of type ${type} where a command should be`);
    if ((message.flags & FLAG.ERROR) !== 0) throw new MalformedMessage('a command with the error flag');
    this.#checkFds(message);
    if (this.#channel === undefined) {
      this.#negotiate(connection, message);
    } else if (message.command === COMMAND.REGION_READ) {
      this.#replyRegion(connection, message, this.#regions.read(message));
    } else if (message.command === COMMAND.REGION_WRITE) {
      this.#replyRegion(connection, message, this.#regions.write(message));
    } else if (message.command === COMMAND.REGION_WRITE_MULTI) {
      this.#replyRegion(connection, message, this.#regions.writeMulti(message));
    } else {
      this.#reply(connection, message, this.#answer(message));
    }
  }

  #checkFds({ command, fds, fdsLost }: IncomingMessage): void {
    if (fdsLost || fds.length > this.#limits.maxMessageFds) {
      throw new MalformedMessage(`${fds.length} descriptors or more, at most ${this.#limits.maxMessageFds}`);
    }
    if (fds.length > 0 && command !== COMMAND.DMA_MAP && command !== COMMAND.DEVICE_SET_IRQS) {
      throw new MalformedMessage(`${fds.length} descriptors on ${commandName(command)}, which takes none`);
    }
  }

  /** True when the message needs no answer. A late reply is not answered: QEMU would take that for another reply. */
  #acceptReply(message: IncomingMessage): boolean {
    if (message.command !== COMMAND.DMA_READ && message.command !== COMMAND.DMA_WRITE) return false;
    try {
      if (this.#channel?.accept(message)) return true;
    } catch (error) {
      this.#log.warn((error as Error).message);
      return true;
    }
    this.#unexpectedReplies++;
    this.#log.warn(`a reply to ${commandName(message.command)} ${message.id} that nobody waits for; ignored`);
    return true;
  }

  #negotiate(connection: Connection, message: IncomingMessage): void {
    if (message.command !== COMMAND.VERSION) {
      throw new MalformedMessage(`${commandName(message.command)} before VERSION`);
    }
    const client = decodeVersion(wholeMessage(message));
    this.#channel = new DmaChannel(
      {
        log: this.#log,
        timeoutMs: this.#dmaTimeoutMs,
        connected: () => this.#connection === connection,
        answering: () => this.#gate.depth > 0,
        send: (bytes, lengthBytes) => this.#send(connection, bytes, lengthBytes),
        serve: (timeoutMs) => this.#serveWhileWaiting(timeoutMs),
      },
      client.maxDataTransferBytes,
    );
    this.#reply(connection, message, { bytes: encodeVersionReply(0, this.#limits) });
    if (this.#connection === connection) this.#device.clientConnected(this.#channel);
  }

  #answer(message: IncomingMessage): Reply {
    const bytes = wholeMessage(message);
    switch (message.command) {
      case COMMAND.DMA_MAP:
        if (message.fds.length === 0) this.#dmaMapsWithoutFile++;
        return answerDmaMap(this.#device, bytes, message.fds);
      case COMMAND.DMA_UNMAP:
        return answerDmaUnmap(this.#device, bytes);
      case COMMAND.DEVICE_GET_INFO:
        return answerDeviceInfo(bytes);
      case COMMAND.DEVICE_GET_REGION_INFO:
        return answerRegionInfo(this.#device, bytes);
      case COMMAND.DEVICE_GET_REGION_IO_FDS:
        return answerRegionIoFds(this.#device, bytes);
      case COMMAND.DEVICE_GET_IRQ_INFO:
        return answerIrqInfo(this.#device, bytes);
      case COMMAND.DEVICE_SET_IRQS:
        return answerSetIrqs(this.#device, bytes, message.fds);
      case COMMAND.DEVICE_RESET:
        this.#device.reset();
        return { bytes: EMPTY.encode(0, COMMAND.DEVICE_RESET, {}, { flags: FLAG.REPLY }) };
      default:
        // Among them DEVICE_FEATURE: QEMU takes EINVAL for "not supported", any other errno for a failure.
        throw new MalformedMessage(`${commandName(message.command)} is not supported`);
    }
  }

  #replyRegion(connection: Connection, message: IncomingMessage, lengthBytes: number): void {
    if ((message.flags & FLAG.NO_REPLY) === 0) this.#send(connection, this.#regions.reply, lengthBytes);
  }

  #reply(connection: Connection, message: IncomingMessage, reply: Reply): void {
    if ((message.flags & FLAG.NO_REPLY) !== 0) return;
    reply.bytes.writeUInt16LE(message.id, 0);
    this.#send(connection, reply.bytes, reply.bytes.length, reply.fds);
  }

  #refuse(connection: Connection, message: IncomingMessage, error: unknown): void {
    const errno = errnoOf(error);
    const what = commandName(message.command);
    if (errno === undefined) {
      const stack = error instanceof Error ? error.stack : String(error);
      this.#log.error(`${what} failed in the device; the client gets EIO`, { stack });
    } else {
      this.#refusals++;
      const level = this.#refusals <= LOUD_REFUSALS && !isCustomary(message.command, errno) ? 'warn' : 'debug';
      this.#log[level](`${what} refused`, { reason: (error as Error).message, errno: errnoName(errno) });
    }
    if ((message.flags & FLAG.NO_REPLY) !== 0) return;
    this.#send(connection, encodeError(message.id, message.command, errno ?? ERRNO.EIO), HEADER_BYTES);
  }

  /** A client that has gone is noticed here first when it does not wait for its replies. */
  #send(connection: Connection, bytes: Buffer, lengthBytes: number, fds?: readonly number[]): void {
    if (this.#connection !== connection) return;
    try {
      connection.send(bytes, lengthBytes, fds);
    } catch (error) {
      this.#disconnect((error as Error).message);
    }
  }

  /** One step of the wait for a DMA message's reply. */
  #serveWhileWaiting(timeoutMs: number): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    this.#updateInterest(connection);
    // What was received behind the request that led here is not seen by any poller.
    if (connection.hasMessage && !connection.blocked) this.#serveReceived(connection, Number.POSITIVE_INFINITY);
    else this.#serveBus(timeoutMs);
  }

  #serveOwn(timeoutMs: number): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const poller = new Poller();
    try {
      poller.add(connection.fd, 0, this.#interest);
      if (poller.wait(timeoutMs) > 0) this.onConnectionReadable();
    } finally {
      poller.close();
    }
  }

  #disconnect(reason: string): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    this.#connection = undefined;
    this.#watcher.unwatch(connection.fd);
    connection.close();
    const channel = this.#channel;
    this.#channel = undefined;
    if (channel !== undefined) {
      this.#addPastDma(channel);
      this.#clientGone();
    }
    this.#log.debug('the client is gone', { reason });
    if (!this.#closed) this.#watcher.watch(this.listenFd, () => this.onListenReadable());
  }

  #clientGone(): void {
    try {
      this.#device.clientDisconnected();
    } catch (error) {
      this.#log.error('the device failed while its client was taken away', { stack: (error as Error).stack });
    }
  }

  #addPastDma({ reads, writes, failures }: DmaChannel): void {
    this.#pastDma.reads += reads;
    this.#pastDma.writes += writes;
    this.#pastDma.failures += failures;
  }

  statistics(): ServerStatistics {
    const { reads, writes, failures } = this.#pastDma;
    const now = this.#channel;
    return {
      connected: this.#channel !== undefined,
      connections: this.#connections,
      commands: this.#counters.report(),
      longestBatch: this.#longestBatch,
      queuedBytes: this.#connection?.queuedBytes ?? 0,
      dmaMapsWithoutFile: this.#dmaMapsWithoutFile,
      dmaMessages: {
        reads: reads + (now?.reads ?? 0),
        writes: writes + (now?.writes ?? 0),
        failures: failures + (now?.failures ?? 0),
      },
      unexpectedReplies: this.#unexpectedReplies,
    };
  }

  /** Lets the client go, stops listening and removes the socket's file. Safe to call twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#connection === undefined) this.#watcher.unwatch(this.listenFd);
    else this.#disconnect('the server is closed');
    closeFd(this.listenFd);
    try {
      unlinkSync(this.socketPath);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}

function wholeMessage({ bytes, start, sizeBytes }: IncomingMessage): Buffer {
  return bytes.subarray(start, start + sizeBytes);
}

/**
 * A type that the protocol does not have makes the size field doubtful too, unless there is nothing behind the header.
 */
function isOfUnknownType({ flags, sizeBytes }: IncomingMessage): boolean {
  return (flags & FLAG.TYPE_MASK) > FLAG.REPLY && sizeBytes !== HEADER_BYTES;
}

/**
 * QEMU asks and can do without: for features we do not have, and, behind a vIOMMU, to unmap what was never mapped
 * (hw/i386/intel_iommu.c vtd_address_space_unmap covers everything).
 */
function isCustomary(command: number, errno: number): boolean {
  return command === COMMAND.DEVICE_FEATURE || (command === COMMAND.DMA_UNMAP && errno === ERRNO.ENOENT);
}

/** Linux errno of a refusal; undefined for an error that is somebody's bug. */
function errnoOf(error: unknown): number | undefined {
  const errno = (error as { errno?: unknown } | undefined)?.errno;
  // Node's own errors carry it negated.
  return typeof errno === 'number' && Number.isInteger(errno) && errno !== 0 ? Math.abs(errno) : undefined;
}
