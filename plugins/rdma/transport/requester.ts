/** What a queue pair does with one send: every verb of RC, UC, XRC and UD. */
import { ads, qpc } from '../layouts/contexts.js';
import type { Counters } from '../port/counters.js';
import { CQE_OPCODE, SYNDROME, type Syndrome } from '../queues/completion-entry.js';
import { SERVICE } from '../queues/queue-pair.js';
import { MalformedEntry, OPCODE, SegmentReader, type SendPiece, totalBytes } from '../queues/work-queue-entry.js';
import { type DatagramCable, sendDatagram } from './datagram.js';
import { type Inbound, Nak, type NakCode, type Responder } from './responder.js';
import {
  acknowledgeTimeoutMs,
  Dropped,
  packetsOf,
  RequestFailed,
  type Sending,
  type WireOperation,
  waitsForEver,
} from './sending.js';
import {
  type Chunk,
  guarded,
  locateBoth,
  PeerGone,
  type Side,
  sleep,
  type Tap,
  TransferFailed,
  transfer,
  type Work,
} from './transfer.js';
import { executeUmr, type UmrHost } from './umr.js';

/** cmd_hca_cap.log_max_msg. */
const MAX_MESSAGE_BYTES = 2 ** 30;
const ATOMIC_BYTES = 8;
const RNR_RETRY_FOREVER = 7;
/** Posting a receive moves only its doorbell record, so a waiting sender looks again this often, at least. */
const RNR_POLL_MS = { SHORTEST: 1, LONGEST: 16 } as const;
/** cqe.flags_rqpn: a global route header came with the message. */
const GRH_SHIFT = 28;

const NAK_SYNDROME: Readonly<Record<NakCode, Syndrome>> = {
  'invalid request': SYNDROME.REMOTE_INVALID_REQUEST,
  'remote access': SYNDROME.REMOTE_ACCESS,
  'remote operation': SYNDROME.REMOTE_OPERATION,
};

/** The way to responders, as a requester needs it. */
export interface Cable extends DatagramCable {
  /** The other end of the sender's connection; undefined while nobody is there. */
  findResponder(sending: Sending): Responder | undefined;
  /** Sees the bytes of a connection's message, if anybody records them. */
  tap(sending: Sending, peer: Responder, operation: WireOperation, lengthBytes: number): Tap | undefined;
  recordAtomic(sending: Sending, peer: Responder, old: bigint): void;
}

/** What a requester needs of its adapter. */
export interface RequesterHost extends UmrHost {
  readonly cable: Cable;
  readonly counters: Pick<Counters, 'add'>;
}

/** How a failure at the responder's end is told; without an entry it is the sender's own protection error. */
interface Blame {
  readonly source?: (reason: string, failed: TransferFailed) => Error;
  readonly target?: (reason: string, failed: TransferFailed) => Error;
}

export class Requester {
  readonly #host: RequesterHost;

  constructor(host: RequesterHost) {
    this.#host = host;
  }

  /** Executes one send; its result is the number of bytes moved. Throws {@link RequestFailed}. */
  *perform(sending: Sending): Work<number> {
    const { qp, waiter } = sending;
    try {
      return yield* this.#performVerb(sending);
    } catch (error) {
      if (error instanceof Dropped) return 0;
      if (error instanceof Nak) throw new RequestFailed(NAK_SYNDROME[error.code], error.message);
      if (error instanceof MalformedEntry) throw new RequestFailed(SYNDROME.LOCAL_QP_OPERATION, error.message);
      if (!(error instanceof PeerGone)) throw error;
      if (!qp.isReliable) return 0;
      // The sender only learns it from acknowledgements that stay away.
      yield* sleep(waiter, acknowledgeTimeoutMs(qp) * (qpc.get(qp.context, 'retry_count') + 1));
      throw new RequestFailed(SYNDROME.TRANSPORT_RETRIES, 'the other queue pair went away');
    }
  }

  *#performVerb(sending: Sending): Work<number> {
    const { qp, entry } = sending;
    const reader = new SegmentReader(entry.view);
    const { opcode } = entry;
    if (opcode === OPCODE.NOP) return 0;
    if (opcode === OPCODE.UMR) return yield* executeUmr(this.#host, sending, reader);
    if (qp.service === SERVICE.REG_UMR) throw new MalformedEntry(`opcode ${opcode} on a queue pair for registrations`);
    if (qp.isDatagram) return yield* sendDatagram(this.#host, sending, reader);
    const shared = qp.service === SERVICE.XRC ? reader.xrcSharedReceiveQueue() : undefined;
    switch (opcode) {
      case OPCODE.SEND:
      case OPCODE.SEND_IMM:
      case OPCODE.SEND_INVALIDATE:
        return yield* this.#send(sending, reader.pieces(), shared);
      case OPCODE.RDMA_WRITE:
      case OPCODE.RDMA_WRITE_IMM:
        return yield* this.#write(sending, reader, shared);
      case OPCODE.RDMA_READ:
      case OPCODE.ATOMIC_COMPARE_SWAP:
      case OPCODE.ATOMIC_FETCH_ADD:
        if (!qp.isReliable) throw new MalformedEntry(`opcode ${opcode} on an unreliable connection`);
        return yield* opcode === OPCODE.RDMA_READ
          ? this.#read(sending, reader, shared)
          : this.#atomic(sending, reader, shared);
      default:
        throw new MalformedEntry(`opcode 0x${opcode.toString(16)} is not known`);
    }
  }

  *#send(sending: Sending, pieces: SendPiece[], shared: number | undefined): Work<number> {
    const { entry } = sending;
    const lengthBytes = messageBytes(pieces);
    const peer = yield* this.#findPeer(sending);
    const inbound = yield* this.#takeReceive(sending, peer, shared);
    peer.requireRoom(inbound, lengthBytes);
    yield* this.#pass(sending, peer, 'send', this.#ownSide(sending, pieces), peer.receiveSide(inbound), lengthBytes, {
      target: (reason) => {
        peer.fail(inbound, SYNDROME.LOCAL_PROTECTION);
        return new Nak('remote operation', reason);
      },
    });
    if (entry.opcode === OPCODE.SEND_INVALIDATE) peer.invalidate(inbound, entry.immediate);
    completeReceive(sending, peer, inbound, sendCompletion(entry.opcode), lengthBytes);
    return lengthBytes;
  }

  *#write(sending: Sending, reader: SegmentReader, shared: number | undefined): Work<number> {
    const remote = reader.remote();
    const pieces = reader.pieces();
    const lengthBytes = messageBytes(pieces);
    const peer = yield* this.#findPeer(sending);
    const target = peer.remoteSide(remote, lengthBytes, 'remote-write', shared);
    peer.requireRight('rwe', lengthBytes);
    yield* this.#pass(sending, peer, 'write', this.#ownSide(sending, pieces), target, lengthBytes, {
      target: (reason, failed) => peer.refusal(reason, failed),
    });
    if (sending.entry.opcode === OPCODE.RDMA_WRITE_IMM) {
      const inbound = yield* this.#takeReceive(sending, peer, shared);
      completeReceive(sending, peer, inbound, CQE_OPCODE.RESPONDER_WRITE_IMM, lengthBytes);
    }
    return lengthBytes;
  }

  *#read(sending: Sending, reader: SegmentReader, shared: number | undefined): Work<number> {
    const remote = reader.remote();
    const pieces = reader.pieces();
    const lengthBytes = messageBytes(pieces);
    const peer = yield* this.#findPeer(sending);
    peer.requireRight('rre', lengthBytes);
    const source = peer.remoteSide(remote, lengthBytes, 'remote-read', shared);
    const target: Side = { ...this.#ownSide(sending, pieces), right: 'local-write' };
    yield* this.#pass(sending, peer, 'read', source, target, lengthBytes, {
      source: (reason, failed) => peer.refusal(reason, failed),
    });
    return lengthBytes;
  }

  *#atomic(sending: Sending, reader: SegmentReader, shared: number | undefined): Work<number> {
    const { qp, entry, waiter } = sending;
    const remote = reader.remote();
    const operands = reader.atomic();
    const pieces = reader.pieces();
    if (totalBytes(pieces) !== ATOMIC_BYTES) {
      throw new RequestFailed(SYNDROME.LOCAL_LENGTH, 'the answer of an atomic operation has 8 bytes');
    }
    const peer = yield* this.#findPeer(sending);
    peer.requireRight('rae', ATOMIC_BYTES);
    if (remote.address % BigInt(ATOMIC_BYTES) !== 0n) {
      throw peer.invalidRequest(`an atomic operation at 0x${remote.address.toString(16)}`);
    }
    yield* this.#host.cable.deliver(sending, peer, 'atomic', ATOMIC_BYTES);
    const source = peer.remoteSide(remote, ATOMIC_BYTES, 'remote-atomic', shared);
    const target: Side = { ...this.#ownSide(sending, pieces), right: 'local-write' };
    try {
      // Both ends are known to be there before the one that cannot be undone changes.
      const { from, to } = yield* locateBoth(waiter, source, target, 0, ATOMIC_BYTES);
      const old = peer.exchange(from[0]!, entry.opcode, operands);
      this.#writeAnswer(to, old);
      this.#host.cable.recordAtomic(sending, peer, old);
    } catch (error) {
      throw failureOf(error, { source: (reason, failed) => peer.refusal(reason, failed) });
    }
    qp.advancePsn('next_send_psn', 1);
    peer.qp.advancePsn('next_rcv_psn', 1);
    return ATOMIC_BYTES;
  }

  #writeAnswer(to: readonly Chunk[], old: bigint): void {
    const answer = new DataView(new ArrayBuffer(ATOMIC_BYTES));
    answer.setBigUint64(0, old, true);
    let done = 0;
    for (const chunk of to) {
      const part = new Uint8Array(answer.buffer, done, chunk.lengthBytes);
      if (chunk.kind !== 'inline') guarded('target', () => this.#host.memory.write(chunk, 0, part));
      done += chunk.lengthBytes;
    }
  }

  /** The wire and then the bytes. */
  *#pass(
    sending: Sending,
    peer: Responder,
    operation: WireOperation,
    source: Side,
    target: Side,
    lengthBytes: number,
    blame: Blame,
  ): Work {
    const { qp, waiter } = sending;
    const { cable } = this.#host;
    const delivered = yield* cable.deliver(sending, peer, operation, lengthBytes);
    if (!delivered) throw new Dropped();
    const tap = cable.tap(sending, peer, operation, lengthBytes);
    try {
      yield* transfer(waiter, source, target, lengthBytes, tap);
    } catch (error) {
      throw failureOf(error, blame);
    }
    const packets = packetsOf(qp, lengthBytes);
    qp.advancePsn('next_send_psn', packets);
    peer.qp.advancePsn('next_rcv_psn', packets);
  }

  /** Memory of the sender itself. */
  #ownSide({ qp }: Sending, pieces: readonly SendPiece[]): Side {
    return { access: this.#host, user: qp, pieces, right: 'local-read' };
  }

  /** The responder at the other end of the connection; waits and retries as the acknowledge timeout says. */
  *#findPeer(sending: Sending): Work<Responder> {
    const { qp, waiter } = sending;
    const pauseMs = acknowledgeTimeoutMs(qp);
    const retries = waitsForEver(qp) ? Number.POSITIVE_INFINITY : qpc.get(qp.context, 'retry_count');
    for (let attempt = 0; ; attempt++) {
      const peer = this.#host.cable.findResponder(sending);
      if (peer !== undefined) {
        peer.announceCommunication();
        return peer;
      }
      if (!qp.isReliable) throw new Dropped();
      if (attempt > retries) throw new RequestFailed(SYNDROME.TRANSPORT_RETRIES, 'nobody answers at the other end');
      this.#host.counters.add(qp, 'local_ack_timeout_err');
      yield* sleep(waiter, pauseMs);
    }
  }

  /** A receive at the other end; waits and retries as the responder's RNR timer says. */
  *#takeReceive(sending: Sending, peer: Responder, sharedNumber: number | undefined): Work<Inbound> {
    const { qp, waiter } = sending;
    const delayMs = peer.receiverNotReadyMs;
    const retries = qpc.get(qp.context, 'rnr_retry');
    const pauseMs = Math.min(RNR_POLL_MS.LONGEST, Math.max(RNR_POLL_MS.SHORTEST, delayMs));
    for (let waitedMs = 0; ; waitedMs += pauseMs) {
      const inbound = peer.takeReceive(sharedNumber);
      if (inbound !== undefined) return inbound;
      if (!qp.isReliable) throw new Dropped();
      if (retries !== RNR_RETRY_FOREVER && waitedMs >= retries * Math.max(delayMs, RNR_POLL_MS.SHORTEST)) {
        this.#host.counters.add(qp, 'rnr_nak_retry_err');
        throw new RequestFailed(SYNDROME.RNR_RETRIES, 'the other side has posted no receive');
      }
      if (waitedMs === 0) peer.count('out_of_buffer');
      yield* sleep(waiter, pauseMs);
    }
  }
}

function failureOf(error: unknown, blame: Blame): unknown {
  if (!(error instanceof TransferFailed)) return error;
  const remote = error.end === 'source' ? blame.source : blame.target;
  if (remote !== undefined) return remote(error.message, error);
  return new RequestFailed(SYNDROME.LOCAL_PROTECTION, error.message);
}

function messageBytes(pieces: readonly SendPiece[]): number {
  const lengthBytes = totalBytes(pieces);
  if (lengthBytes > MAX_MESSAGE_BYTES) {
    throw new RequestFailed(SYNDROME.LOCAL_LENGTH, `a message of ${lengthBytes} bytes`);
  }
  return lengthBytes;
}

function completeReceive(
  { qp, entry, origin }: Sending,
  peer: Responder,
  inbound: Inbound,
  opcode: number,
  lengthBytes: number,
): void {
  peer.complete(inbound, {
    opcode,
    lengthBytes,
    sourceLid: origin.lid,
    source: qp.number | (ads.get(qp.path, 'grh') << GRH_SHIFT),
    immediate: entry.immediate,
    solicited: entry.solicited,
  });
}

function sendCompletion(opcode: number): number {
  if (opcode === OPCODE.SEND_IMM) return CQE_OPCODE.RESPONDER_SEND_IMM;
  return opcode === OPCODE.SEND_INVALIDATE ? CQE_OPCODE.RESPONDER_SEND_INVALIDATE : CQE_OPCODE.RESPONDER_SEND;
}
