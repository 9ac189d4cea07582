import { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import { JsonLineParser } from './json-lines.js';

/** QEMU or the guest agent answered a command with an error. */
export class QmpError extends Error {
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string) {
    super(`${command}: ${description}`);
    this.name = 'QmpError';
    this.errorClass = errorClass;
  }
}

interface ErrorAnswer {
  class: string;
  desc: string;
}

interface Waiting {
  command: string;
  line: string;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/**
 * One QMP connection (QEMU docs/interop/qmp-spec.rst): every command carries an `id`, and its answer brings it back, so
 * that an answer that is late or lost belongs to nobody else; events are emitted under their own names with their
 * `data`. The guest agent speaks the same but for greeting and events (QEMU qapi/qmp-dispatch.c, qmp_dispatch).
 */
export class QmpClient extends EventEmitter {
  readonly #stream: Duplex;
  readonly #parser: JsonLineParser;
  readonly #pipelined: boolean;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #synchronizing: number | undefined;

  /**
   * @param pipelined Whether requests are sent before the one in front is answered. Not to qemu-ga: it
   * drops an answer while input is left in its buffer, because GLib seeks before it writes to a character
   * device (g_io_channel_write_chars), and the port cannot seek. More than 4096 bytes that arrive at once
   * are enough (qga/main.c, QGA_READ_COUNT_DEFAULT).
   */
  constructor(stream: Duplex, { pipelined = true }: { pipelined?: boolean } = {}) {
    super();
    this.#stream = stream;
    this.#pipelined = pipelined;
    this.#parser = new JsonLineParser((message) => this.#receive(message));
    stream.on('data', (chunk: Buffer) => {
      try {
        this.#parser.push(chunk);
      } catch (error) {
        this.fail(error as Error);
      }
    });
    // The end of the stream is QEMU's end, which whoever started QEMU reports.
    stream.on('error', () => {});
  }

  /** Resolves with the command's `return`. @throws QmpError when it is answered with an error. */
  execute(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const line = `${JSON.stringify({ execute: command, arguments: args, id })}\n`;
      this.#waiting.set(id, { command, line, resolve, reject });
      if (this.#pipelined || this.#waiting.size === 1) this.#stream.write(line);
    });
  }

  /** Settles when the guest agent answers, after what it has to say of requests that its predecessor read half of. */
  async synchronize(): Promise<void> {
    this.#synchronizing = this.#nextId;
    await this.execute('guest-ping');
  }

  /** Rejects everything that still waits for an answer, for example because the other side was restarted. */
  fail(error: Error): void {
    const abandoned = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of abandoned) reject(error);
  }

  #receive(message: Record<string, unknown>): void {
    if (typeof message.event === 'string') {
      this.emit(message.event, message.data ?? {});
    } else if (message.id !== undefined) {
      this.#answer(message.id as number, message);
    } else if ('error' in message) {
      this.#unreadable(message.error as ErrorAnswer);
    }
  }

  #answer(id: number, message: Record<string, unknown>): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    if (!this.#pipelined) this.#sendOldest();
    if ('return' in message) {
      waiting.resolve(message.return);
    } else {
      const { class: errorClass, desc } = message.error as ErrorAnswer;
      waiting.reject(new QmpError(waiting.command, errorClass, desc));
    }
  }

  #sendOldest(): void {
    const [oldest] = this.#waiting.values();
    if (oldest !== undefined) this.#stream.write(oldest.line);
  }

  /** The other side could not parse a request and does not know which: any of those that were sent. */
  #unreadable({ class: errorClass, desc }: ErrorAnswer): void {
    for (const [id, { command, reject }] of this.#pipelined ? [...this.#waiting] : [...this.#waiting].slice(0, 1)) {
      if (id === this.#synchronizing) continue;
      this.#waiting.delete(id);
      if (!this.#pipelined) this.#sendOldest();
      reject(new QmpError(command, errorClass, desc));
    }
  }
}
