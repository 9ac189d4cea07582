/** Of each output stream this much is kept; the rest is dropped, and whoever prints it says so. */
const LIMIT_BYTES = 16 * 1024 * 1024;
const NEWLINE = 0x0a;

const STREAMS = ['stdout', 'stderr'] as const;
export type StreamName = (typeof STREAMS)[number];

/** The beginning of what a command writes, each stream by itself or both as one text. */
export class KeptOutput {
  truncated = false;
  readonly #pieces: { readonly stream: StreamName; readonly bytes: Buffer }[] = [];
  readonly #sizesBytes: Record<StreamName, number> = { stdout: 0, stderr: 0 };

  add(stream: StreamName, chunk: Buffer): void {
    const bytes = chunk.subarray(0, LIMIT_BYTES - this.#sizesBytes[stream]);
    this.truncated ||= bytes.length < chunk.length;
    if (bytes.length === 0) return;
    this.#pieces.push({ stream, bytes });
    this.#sizesBytes[stream] += bytes.length;
  }

  text(stream: StreamName): string {
    const pieces = this.#pieces.filter((piece) => piece.stream === stream);
    return Buffer.concat(pieces.map(({ bytes }) => bytes)).toString();
  }

  /** Both streams by whole lines, in the order in which these were ended; the last line is ended too. */
  lines(): Buffer {
    const done: Buffer[] = [];
    const begun: Record<StreamName, Buffer[]> = { stdout: [], stderr: [] };
    for (const { stream, bytes } of this.#pieces) {
      const end = bytes.lastIndexOf(NEWLINE) + 1;
      if (end > 0) done.push(...begun[stream].splice(0), bytes.subarray(0, end));
      if (end < bytes.length) begun[stream].push(bytes.subarray(end));
    }
    const newline = Buffer.of(NEWLINE);
    for (const stream of STREAMS) if (begun[stream].length > 0) done.push(...begun[stream], newline);
    return Buffer.concat(done);
  }
}
