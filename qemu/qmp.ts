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
  sent: boolean;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/**
 * A byte that is in no JSON: whoever reads it drops what it has read half of, and says so (QEMU qga/qapi-schema.json,
 * guest-sync-delimited).
 */
const SENTINEL = Buffer.from([0xff]);

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
  #held = false;

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
    const answer = this.#enqueue(command, args);
    this.#sendNext();
    return answer;
  }

  /** Settles when the guest agent answers, after what it has to say of requests that its predecessor read half of. */
  async synchronize(): Promise<void> {
    this.#synchronizing = this.#nextId;
    await this.execute('guest-ping');
  }

  /** From now on nothing is sent but what synchronizes; it waits. */
  hold(): void {
    this.#held = true;
  }

  /** Sends what was held back. */
  release(): void {
    this.#held = false;
    this.#sendNext();
  }

  /**
   * As {@link synchronize}, with an agent that may have lost what it was sent: all that it does not answer before it
   * answers this is sent to it again.
   */
  async resynchronize(): Promise<void> {
    const earlier = this.#waiting.get(this.#synchronizing ?? 0);
    this.#waiting.delete(this.#synchronizing ?? 0);
    earlier?.reject(new Error(`${earlier.command} was not answered before the next one was sent`));
    const id = this.#nextId;
    this.#synchronizing = id;
    const answer = this.#enqueue('guest-ping', {});
    this.#stream.write(SENTINEL);
    this.#send(this.#waiting.get(id)!);
    await answer;
    for (const { sent, line } of this.#waiting.values()) if (sent) this.#stream.write(line);
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
    this.#sendNext();
    if ('return' in message) {
      waiting.resolve(message.return);
    } else {
      const { class: errorClass, desc } = message.error as ErrorAnswer;
      waiting.reject(new QmpError(waiting.command, errorClass, desc));
    }
  }

  #enqueue(command: string, args: Record<string, unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const line = `${JSON.stringify({ execute: command, arguments: args, id })}\n`;
      this.#waiting.set(id, { command, line, sent: false, resolve, reject });
    });
  }

  #sendNext(): void {
    if (this.#held) return;
    for (const waiting of this.#waiting.values()) {
      if (!waiting.sent) this.#send(waiting);
      if (!this.#pipelined) return;
    }
  }

  #send(waiting: Waiting): void {
    waiting.sent = true;
    this.#stream.write(waiting.line);
  }

  /** The other side could not parse a request and does not know which: any of those that were sent. */
  #unreadable({ class: errorClass, desc }: ErrorAnswer): void {
    // It is what an earlier one had left.
    if (this.#synchronizing !== undefined && this.#waiting.has(this.#synchronizing)) return;
    for (const [id, { command, sent, reject }] of [...this.#waiting]) {
      if (!sent) continue;
      this.#waiting.delete(id);
      reject(new QmpError(command, errorClass, desc));
    }
    this.#sendNext();
  }
}
