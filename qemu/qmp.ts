import { randomInt } from 'node:crypto';
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

interface Waiting {
  command: string;
  /** Answers that are not accepted belonged to an earlier connection and are skipped. */
  accepts: (value: unknown) => boolean;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/**
 * One QMP connection (QEMU docs/interop/qmp-spec.rst): commands are answered in order; events are emitted under their own
 * names with their `data`. The guest agent speaks the same but for greeting, ids and events.
 */
export class QmpClient extends EventEmitter {
  private readonly stream: Duplex;
  private readonly parser: JsonLineParser;
  private waiting: Waiting[] = [];

  constructor(stream: Duplex) {
    super();
    this.stream = stream;
    this.parser = new JsonLineParser((message) => this.receive(message));
    stream.on('data', (chunk: Buffer) => {
      try {
        this.parser.push(chunk);
      } catch (error) {
        this.fail(error as Error);
      }
    });
    // The end of the stream is QEMU's end, which whoever started QEMU reports.
    stream.on('error', () => {});
  }

  /** Resolves with the command's `return`. @throws QmpError when it is answered with an error. */
  execute(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return this.send(command, args, () => true);
  }

  /** Settles when the guest agent answers this request, after whatever it still answers of an earlier connection. */
  async synchronize(): Promise<void> {
    const id = randomInt(2 ** 31);
    await this.send('guest-sync', { id }, (value) => value === id);
  }

  private send(command: string, args: Record<string, unknown>, accepts: (value: unknown) => boolean): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ command, accepts, resolve, reject });
      this.stream.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  /** Rejects everything that still waits for an answer, for example because the other side was restarted. */
  fail(error: Error): void {
    const abandoned = this.waiting;
    this.waiting = [];
    for (const { reject } of abandoned) reject(error);
  }

  private receive(message: Record<string, unknown>): void {
    if (typeof message.event === 'string') {
      this.emit(message.event, message.data ?? {});
    } else if ('return' in message) {
      if (this.waiting[0]?.accepts(message.return)) this.waiting.shift()?.resolve(message.return);
    } else if ('error' in message && this.waiting[0]?.accepts(undefined)) {
      const { class: errorClass, desc } = message.error as { class: string; desc: string };
      const waiting = this.waiting.shift();
      waiting?.reject(new QmpError(waiting.command, errorClass, desc));
    }
  }
}
