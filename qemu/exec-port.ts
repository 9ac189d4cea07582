import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';

/** What the guest's end (guest-root/usr/local/lib/ghostbus/exec) tells about one command. */
export interface ExecListener {
  onStarted(pid: number): void;
  onStdout(chunk: Buffer): void;
  onStderr(chunk: Buffer): void;
  /** @param waitStatus As waitpid(2) gives it. */
  onExit(waitStatus: number): void;
}

const headerBytes = 5;
/** The guest sends at most 64 KiB at a time; more is not from our program. */
const maxFrameBytes = 64 * 1024;

/**
 * The host's end of one virtio-serial port that commands' output arrives on, one command at a time. Each command starts
 * with a random token: what a killed predecessor left in the stream is skipped.
 */
export class ExecPort {
  readonly name: string;
  #pending: Buffer = Buffer.alloc(0);
  #token: Buffer | undefined;
  #listener: ExecListener | undefined;

  constructor(name: string, stream: Duplex) {
    this.name = name;
    stream.on('data', (chunk: Buffer) => this.receive(chunk));
    stream.on('error', () => {});
  }

  get busy(): boolean {
    return this.#listener !== undefined;
  }

  /** Gets ready for the next command. Returns the token that the guest's program has to send first. */
  expect(listener: ExecListener): string {
    const token = randomBytes(16).toString('hex');
    this.#token = Buffer.from(token);
    this.#pending = Buffer.alloc(0);
    this.#listener = listener;
    return token;
  }

  /** Stops listening; whatever still arrives is dropped. */
  release(): void {
    this.#listener = undefined;
    this.#token = undefined;
    this.#pending = Buffer.alloc(0);
  }

  receive(chunk: Buffer): void {
    if (this.#listener === undefined) return;
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    if (this.#token !== undefined && !this.#skipToToken(this.#token)) return;
    while (this.#listener !== undefined && this.#pending.length >= headerBytes) {
      const length = this.#pending.readUInt32LE(1);
      // Cannot be found again in the stream; the command counts as lost, which the agent will notice.
      if (length > maxFrameBytes) {
        this.release();
        return;
      }
      if (this.#pending.length < headerBytes + length) return;
      const letter = String.fromCharCode(this.#pending[0]!);
      const payload = this.#pending.subarray(headerBytes, headerBytes + length);
      this.#pending = this.#pending.subarray(headerBytes + length);
      this.#deliver(letter, payload, this.#listener);
    }
  }

  #skipToToken(token: Buffer): boolean {
    const at = this.#pending.indexOf(token);
    if (at < 0) {
      this.#pending = this.#pending.subarray(Math.max(0, this.#pending.length - token.length));
      return false;
    }
    this.#pending = this.#pending.subarray(at + token.length);
    this.#token = undefined;
    return true;
  }

  #deliver(letter: string, payload: Buffer, listener: ExecListener): void {
    if (letter === 'o') listener.onStdout(Buffer.from(payload));
    else if (letter === 'e') listener.onStderr(Buffer.from(payload));
    else if (letter === 'p' && payload.length === 4) listener.onStarted(payload.readUInt32LE(0));
    else if (letter === 'x' && payload.length === 4) listener.onExit(payload.readUInt32LE(0));
  }
}
