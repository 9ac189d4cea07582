import { StringDecoder } from 'node:string_decoder';

/** Longer lines are refused: the guest writes them. */
const maxLineBytes = 64 * 2 ** 20;

/** Splits a byte stream into lines and parses each as JSON. What is not JSON goes to `onNoise`. */
export class JsonLineParser {
  readonly #onMessage: (message: Record<string, unknown>) => void;
  readonly #onNoise: (line: string) => void;
  #decoder = new StringDecoder('utf8');
  #pending: string[] = [];
  #pendingLength = 0;

  constructor(onMessage: (message: Record<string, unknown>) => void, onNoise: (line: string) => void = () => {}) {
    this.#onMessage = onMessage;
    this.#onNoise = onNoise;
  }

  /** @throws Error when a line grows beyond 64 MiB. */
  push(chunk: Buffer): void {
    const pieces = this.#decoder.write(chunk).split('\n');
    for (const [index, piece] of pieces.entries()) {
      this.#pending.push(piece);
      this.#pendingLength += piece.length;
      if (this.#pendingLength > maxLineBytes) throw new Error(`a line of JSON is longer than ${maxLineBytes} bytes`);
      if (index < pieces.length - 1) this.#finishLine();
    }
  }

  #finishLine(): void {
    const line = this.#pending.join('').trim();
    this.#pending = [];
    this.#pendingLength = 0;
    if (line === '') return;
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      this.#onNoise(line);
      return;
    }
    if (typeof message === 'object' && message !== null) this.#onMessage(message as Record<string, unknown>);
    else this.#onNoise(line);
  }
}
