/** What a server counts: cheap enough for every message, see vfio-user.md §9.5. */
import { COMMAND_COUNT, commandName } from './messages.js';

/** Bucket i counts latencies from 2^i up to 2^(i+1) nanoseconds; the last one everything longer. */
const LATENCY_BUCKETS = 36;

export interface CommandStatistics {
  readonly count: number;
  /** Answered with an error, or, with NO_REPLY, refused. */
  readonly errors: number;
  readonly totalMs: number;
  readonly longestMs: number;
  /** From the receive that completed the request to its reply; see {@link LATENCY_BUCKETS}. */
  readonly latencyNsLog2: readonly number[];
}

export interface ServerStatistics {
  readonly connected: boolean;
  readonly connections: number;
  /** By the protocol's command name. */
  readonly commands: Readonly<Record<string, CommandStatistics>>;
  /** Largest number of messages that one receive brought. */
  readonly longestBatch: number;
  /** Bytes in the client's socket that have not been received yet. */
  readonly queuedBytes: number;
  /** Maps without a file: a peer's BAR, a ROM, or memory reachable by messages only. */
  readonly dmaMapsWithoutFile: number;
  /** DMA by messages; 0 in the normal configuration. */
  readonly dmaMessages: { readonly reads: number; readonly writes: number; readonly failures: number };
  /** Replies that nobody waited for, such as one that came after the time-out. */
  readonly unexpectedReplies: number;
}

export class CommandCounters {
  readonly #counts = new Float64Array(COMMAND_COUNT + 1);
  readonly #errors = new Float64Array(COMMAND_COUNT + 1);
  readonly #totalMs = new Float64Array(COMMAND_COUNT + 1);
  readonly #longestMs = new Float64Array(COMMAND_COUNT + 1);
  readonly #buckets = new Float64Array((COMMAND_COUNT + 1) * LATENCY_BUCKETS);

  /** Commands that the protocol does not have share one line. */
  record(command: number, latencyMs: number, failed: boolean): void {
    const row = Math.min(command, COMMAND_COUNT);
    this.#counts[row]! += 1;
    if (failed) this.#errors[row]! += 1;
    this.#totalMs[row]! += latencyMs;
    if (latencyMs > this.#longestMs[row]!) this.#longestMs[row] = latencyMs;
    const bucket = Math.min(LATENCY_BUCKETS - 1, Math.floor(Math.log2(Math.max(1, latencyMs * 1e6))));
    this.#buckets[row * LATENCY_BUCKETS + bucket]! += 1;
  }

  report(): Record<string, CommandStatistics> {
    const report: Record<string, CommandStatistics> = {};
    for (let row = 0; row <= COMMAND_COUNT; row++) {
      if (this.#counts[row] === 0) continue;
      report[row === COMMAND_COUNT ? 'unknown' : commandName(row)] = {
        count: this.#counts[row]!,
        errors: this.#errors[row]!,
        totalMs: this.#totalMs[row]!,
        longestMs: this.#longestMs[row]!,
        latencyNsLog2: Array.from(this.#buckets.subarray(row * LATENCY_BUCKETS, (row + 1) * LATENCY_BUCKETS)),
      };
    }
    return report;
  }
}
