/** One send under way: what those that carry it, answer it or record it know of it. */
import { ads } from '../layouts/contexts.js';
import type { Link } from '../port/profile.js';
import type { GidEntry } from '../port/vport.js';
import type { Syndrome } from '../queues/completion-entry.js';
import type { QueuePair } from '../queues/queue-pair.js';
import type { AddressVector, SendEntry } from '../queues/work-queue-entry.js';
import type { Tap, Waiter } from './transfer.js';

/** The port that a message leaves by. */
export interface Origin {
  readonly link: Link;
  readonly lid: number;
  readonly mac: number;
  gid(index: number): GidEntry | undefined;
}

export interface Sending {
  readonly qp: QueuePair;
  readonly origin: Origin;
  readonly waiter: Waiter;
  readonly entry: SendEntry;
}

/** Message operations of the wire, for its counters and its captures. */
export type WireOperation = 'send' | 'write' | 'read' | 'atomic';

/** Whoever writes down what passes. Taps see the bytes of one message. */
export interface MessageRecorder {
  connected(sending: Sending, destination: number, operation: WireOperation, lengthBytes: number): Tap;
  datagram(sending: Sending, vector: AddressVector, lengthBytes: number): Tap;
  /** An atomic operation that was carried out; `old`: what memory held before. */
  atomic(sending: Sending, destination: number, old: bigint): void;
}

/** A send that completes in error. */
export class RequestFailed extends Error {
  readonly syndrome: Syndrome;

  constructor(syndrome: Syndrome, reason: string) {
    super(reason);
    this.name = 'RequestFailed';
    this.syndrome = syndrome;
  }
}

/** A message of an unreliable service that nobody takes: the sender does not learn of it. */
export class Dropped extends Error {}

/** Local ACK Timeout: 4.096 us * 2^code (IB volume 1 §9.7.6.1.3); code 0 waits for ever. */
const ACK_TIMEOUT_UNIT_MS = 0.004096;
const FOREVER_POLL_MS = 1000;

/** How long a queue pair waits for an acknowledgement before it sends again; undefined: for ever. */
function acknowledgeTimeout(qp: QueuePair): number | undefined {
  const code = ads.get(qp.path, 'ack_timeout');
  return code === 0 ? undefined : Math.max(1, ACK_TIMEOUT_UNIT_MS * 2 ** code);
}

export function waitsForEver(qp: QueuePair): boolean {
  return acknowledgeTimeout(qp) === undefined;
}

/** The same, or how often a queue pair that waits for ever looks again. */
export function acknowledgeTimeoutMs(qp: QueuePair): number {
  return acknowledgeTimeout(qp) ?? FOREVER_POLL_MS;
}

/** Packets of a message; one without bytes takes one, too. */
export function packetsOf(qp: QueuePair, lengthBytes: number): number {
  return Math.max(1, Math.ceil(lengthBytes / qp.mtuBytes));
}
