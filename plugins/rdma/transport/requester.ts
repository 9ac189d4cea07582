/** What a queue pair does with one send: every verb of RC, UC, XRC and UD. */

import { DmaError } from 'ghostbus';
import { ads, qpc } from '../layouts/contexts.js';
import { reportDmaError } from '../memory/dma-report.js';
import { PageMissing, type Requester, type Right } from '../memory/memory-key.js';
import { CQE, CQE_OPCODE, operationByte } from '../queues/completion-queue.js';
import { EVENT } from '../queues/event-queue.js';
import { type QueuePair, SERVICE, SYNDROME } from '../queues/queue-pair.js';
import type { Receive } from '../queues/receive-queue.js';
import type { SharedReceiveQueue } from '../queues/shared-receive-queue.js';
import {
  MalformedEntry,
  OPCODE,
  type RemotePlace,
  SegmentReader,
  type SendEntry,
  type SendPiece,
  totalBytes,
} from '../queues/work-queue-entry.js';
import { sendDatagram } from './datagram.js';
import {
  locateBoth,
  PeerGone,
  type Side,
  type Tap,
  TransferFailed,
  transfer,
  type Waiter,
  type Work,
} from './transfer.js';
import { executeUmr } from './umr.js';

/** A send that completes in error. */
export class RequestFailed extends Error {
  readonly syndrome: number;

  constructor(syndrome: number, reason: string) {
    super(reason);
    this.name = 'RequestFailed';
    this.syndrome = syndrome;
  }
}

/** A message of an unreliable connection that nobody takes: the sender does not learn of it. */
class Dropped extends Error {}

export interface Sending {
  readonly qp: QueuePair;
  readonly waiter: Waiter;
  readonly entry: SendEntry;
}

/** Message operations of the wire, for its counters and its captures. */
export type WireOperation = 'send' | 'write' | 'read' | 'atomic';

/** cmd_hca_cap.log_max_msg. */
export const MAX_MESSAGE_BYTES = 2 ** 30;
const ATOMIC_BYTES = 8;
/** Local ACK Timeout: 4.096 us * 2^code (IB volume 1 §9.7.6.1.3); code 0 waits for ever. */
const ACK_TIMEOUT_UNIT_MS = 0.004096;
const FOREVER_POLL_MS = 1000;
/** RNR timer codes in milliseconds (IB volume 1 table 46). */
// biome-ignore format: a table
const RNR_TIMER_MS = [
  655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92, 2.56, 3.84, 5.12,
  7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76, 327.68, 491.52,
];
const RNR_RETRY_FOREVER = 7;
/** Posting a receive moves only its doorbell record, so a waiting sender looks again this often, at least. */
const RNR_POLL_MS = { SHORTEST: 1, LONGEST: 16 } as const;

/** Executes one send; its result is the number of bytes moved. Throws {@link RequestFailed}. */
export function* perform(sending: Sending): Work<number> {
  try {
    return yield* performVerb(sending);
  } catch (error) {
    if (error instanceof Dropped) return 0;
    if (error instanceof PeerGone) {
      if (!sending.qp.isReliable) return 0;
      // The sender only learns it from acknowledgements that stay away.
      yield* sleep(sending, acknowledgeTimeoutMs(sending.qp) * (qpc.get(sending.qp.context, 'retry_count') + 1));
      throw new RequestFailed(SYNDROME.TRANSPORT_RETRIES, 'the other queue pair went away');
    }
    if (error instanceof MalformedEntry) throw new RequestFailed(SYNDROME.LOCAL_QP_OPERATION, error.message);
    throw error;
  }
}

function* performVerb(sending: Sending): Work<number> {
  const { qp, entry } = sending;
  const reader = new SegmentReader(entry.view);
  const { opcode } = entry;
  if (opcode === OPCODE.NOP) return 0;
  if (opcode === OPCODE.UMR) return yield* executeUmr(sending, reader);
  if (qp.service === SERVICE.REG_UMR) throw new MalformedEntry(`opcode ${opcode} on a queue pair for registrations`);
  if (qp.isDatagram) {
    if (opcode !== OPCODE.SEND && opcode !== OPCODE.SEND_IMM)
      throw new MalformedEntry(`opcode ${opcode} of a datagram`);
    return yield* sendDatagram(sending, reader);
  }
  const shared = qp.service === SERVICE.XRC ? reader.xrcSharedReceiveQueue() : undefined;
  switch (opcode) {
    case OPCODE.SEND:
    case OPCODE.SEND_IMM:
    case OPCODE.SEND_INVALIDATE:
      return yield* send(sending, reader.pieces(), shared);
    case OPCODE.RDMA_WRITE:
    case OPCODE.RDMA_WRITE_IMM:
      return yield* write(sending, reader, shared);
    case OPCODE.RDMA_READ:
    case OPCODE.ATOMIC_COMPARE_SWAP:
    case OPCODE.ATOMIC_FETCH_ADD:
      if (!qp.isReliable) throw new MalformedEntry(`opcode ${opcode} on an unreliable connection`);
      return yield* opcode === OPCODE.RDMA_READ ? read(sending, reader, shared) : atomic(sending, reader, shared);
    default:
      throw new MalformedEntry(`opcode 0x${opcode.toString(16)} is not known`);
  }
}

function* send(sending: Sending, pieces: SendPiece[], shared: number | undefined): Work<number> {
  const { qp, entry } = sending;
  const lengthBytes = messageBytes(pieces);
  const peer = yield* findPeer(sending);
  const inbound = yield* takeReceive(sending, peer, shared);
  const capacity = totalBytes(inbound.receive.segments);
  if (capacity < lengthBytes) refuseTooLong(sending, inbound, lengthBytes, capacity);
  const source: Side = { adapter: qp.adapter, owner: qp, pieces, right: 'local-read' };
  const target: Side = {
    adapter: peer.adapter,
    owner: inbound.owner,
    pieces: inbound.receive.segments,
    right: 'local-write',
    isAlive: () => peer.canReceive && !peer.isReleased && peer.unfinished.has(inbound.receive),
  };
  yield* pass(sending, peer, 'send', source, target, lengthBytes, {
    target: (cause) => {
      failReceive(inbound, SYNDROME.LOCAL_PROTECTION);
      return new RequestFailed(SYNDROME.REMOTE_OPERATION, cause);
    },
  });
  if (entry.opcode === OPCODE.SEND_INVALIDATE) invalidateRemote(sending, inbound);
  completeReceive(sending, inbound, sendCompletion(entry.opcode), lengthBytes);
  return lengthBytes;
}

function* write(sending: Sending, reader: SegmentReader, shared: number | undefined): Work<number> {
  const { qp, entry } = sending;
  const remote = reader.remote();
  const pieces = reader.pieces();
  const lengthBytes = messageBytes(pieces);
  const peer = yield* findPeer(sending);
  const source: Side = { adapter: qp.adapter, owner: qp, pieces, right: 'local-read' };
  const target = remoteSide(responder(peer, shared), peer, remote, lengthBytes, 'remote-write');
  requireRemoteRight(peer, 'rwe', lengthBytes);
  yield* pass(sending, peer, 'write', source, target, lengthBytes, { target: remoteRefusal(peer) });
  if (entry.opcode === OPCODE.RDMA_WRITE_IMM) {
    const inbound = yield* takeReceive(sending, peer, shared);
    completeReceive(sending, inbound, CQE_OPCODE.RESPONDER_WRITE_IMM, lengthBytes);
  }
  return lengthBytes;
}

function* read(sending: Sending, reader: SegmentReader, shared: number | undefined): Work<number> {
  const { qp } = sending;
  const remote = reader.remote();
  const pieces = reader.pieces();
  const lengthBytes = messageBytes(pieces);
  const peer = yield* findPeer(sending);
  requireRemoteRight(peer, 'rre', lengthBytes);
  const source = remoteSide(responder(peer, shared), peer, remote, lengthBytes, 'remote-read');
  const target: Side = { adapter: qp.adapter, owner: qp, pieces, right: 'local-write' };
  yield* pass(sending, peer, 'read', source, target, lengthBytes, { source: remoteRefusal(peer) });
  return lengthBytes;
}

function* atomic(sending: Sending, reader: SegmentReader, shared: number | undefined): Work<number> {
  const { qp, entry, waiter } = sending;
  const remote = reader.remote();
  const operands = reader.atomic();
  const pieces = reader.pieces();
  if (totalBytes(pieces) !== ATOMIC_BYTES) {
    throw new RequestFailed(SYNDROME.LOCAL_LENGTH, 'the answer of an atomic operation has 8 bytes');
  }
  const peer = yield* findPeer(sending);
  requireRemoteRight(peer, 'rae', ATOMIC_BYTES);
  if (remote.address % 8n !== 0n) {
    remoteInvalid(peer);
    throw new RequestFailed(SYNDROME.REMOTE_INVALID_REQUEST, `an atomic operation at 0x${remote.address.toString(16)}`);
  }
  yield* qp.adapter.wire.deliver(sending, peer, 'atomic', ATOMIC_BYTES);
  const source = remoteSide(responder(peer, shared), peer, remote, ATOMIC_BYTES, 'remote-atomic');
  const target: Side = { adapter: qp.adapter, owner: qp, pieces, right: 'local-write' };
  try {
    // Both ends are known to be there before the one that cannot be undone changes.
    const { from, to } = yield* locateBoth(waiter, source, target, 0, ATOMIC_BYTES);
    const place = from[0]!;
    if ('inline' in place) throw new MalformedEntry('an atomic operation on inline data');
    const old = exchange(peer, place.address, entry.opcode, operands);
    writeAnswer(qp, to, old);
    qp.adapter.wire.recordAtomic(sending, peer, old);
  } catch (error) {
    throw failureOf(error, { source: remoteRefusal(peer) });
  }
  advancePsn(qp, 'next_send_psn', 1);
  advancePsn(peer, 'next_rcv_psn', 1);
  return ATOMIC_BYTES;
}

/** Operands are numbers in the entry; memory has the byte order of the guest (atomic_req_8B_endianness_mode, §6.6). */
function exchange(
  peer: QueuePair,
  address: number,
  opcode: number,
  { swapOrAdd, compare }: { swapOrAdd: bigint; compare: bigint },
): bigint {
  if (address < 0) return 0n;
  const { dma } = peer.adapter;
  try {
    const old = dma.readU64(address);
    if (opcode === OPCODE.ATOMIC_FETCH_ADD) dma.writeU64(address, BigInt.asUintN(64, old + swapOrAdd));
    else if (old === compare) dma.writeU64(address, swapOrAdd);
    return old;
  } catch (error) {
    if (error instanceof DmaError) throw new TransferFailed('source', error);
    throw error;
  }
}

function writeAnswer(
  qp: QueuePair,
  to: readonly ({ address: number; lengthBytes: number } | { inline: Uint8Array; lengthBytes: number })[],
  old: bigint,
): void {
  const answer = new DataView(new ArrayBuffer(ATOMIC_BYTES));
  answer.setBigUint64(0, old, true);
  let done = 0;
  for (const chunk of to) {
    try {
      if ('address' in chunk && chunk.address >= 0) {
        qp.adapter.dma.write(chunk.address, new Uint8Array(answer.buffer, done, chunk.lengthBytes));
      }
    } catch (error) {
      if (error instanceof DmaError) throw new TransferFailed('target', error);
      throw error;
    }
    done += chunk.lengthBytes;
  }
}

/** How a failure at one end becomes the sender's completion; without an entry it is the sender's own protection error. */
interface Blame {
  readonly source?: (reason: string, failed: TransferFailed) => Error;
  readonly target?: (reason: string, failed: TransferFailed) => Error;
}

/** The wire and then the bytes. */
function* pass(
  sending: Sending,
  peer: QueuePair,
  operation: WireOperation,
  source: Side,
  target: Side,
  lengthBytes: number,
  blame: Blame,
): Work {
  const { qp, waiter } = sending;
  const delivered = yield* qp.adapter.wire.deliver(sending, peer, operation, lengthBytes);
  if (!delivered) throw new Dropped();
  const tap: Tap | undefined = qp.adapter.wire.tap(sending, peer, operation, lengthBytes);
  try {
    yield* transfer(waiter, source, target, lengthBytes, tap);
  } catch (error) {
    throw failureOf(error, blame);
  }
  const packets = Math.max(1, Math.ceil(lengthBytes / qp.mtuBytes));
  advancePsn(qp, 'next_send_psn', packets);
  advancePsn(peer, 'next_rcv_psn', packets);
}

function failureOf(error: unknown, blame: Blame): unknown {
  if (!(error instanceof TransferFailed)) return error;
  const remote = error.end === 'source' ? blame.source : blame.target;
  return remote === undefined
    ? new RequestFailed(SYNDROME.LOCAL_PROTECTION, error.message)
    : remote(error.message, error);
}

function advancePsn(qp: QueuePair, field: 'next_send_psn' | 'next_rcv_psn', packets: number): void {
  qpc.set(qp.context, field, (qpc.get(qp.context, field) + packets) & 0xffffff);
}

function messageBytes(pieces: readonly SendPiece[]): number {
  const lengthBytes = totalBytes(pieces);
  if (lengthBytes > MAX_MESSAGE_BYTES) {
    throw new RequestFailed(SYNDROME.LOCAL_LENGTH, `a message of ${lengthBytes} bytes`);
  }
  return lengthBytes;
}

/** On whose behalf remote memory is reached: an XRC message brings the protection domain of the shared queue it names. */
function responder(peer: QueuePair, sharedNumber: number | undefined): Requester {
  if (sharedNumber === undefined) return peer;
  const { list } = xrcQueue(peer, sharedNumber);
  return { number: peer.number, protectionDomain: list.protectionDomain, usesReservedKey: false };
}

function remoteSide(owner: Requester, peer: QueuePair, remote: RemotePlace, lengthBytes: number, right: Right): Side {
  return {
    adapter: peer.adapter,
    owner,
    pieces: [{ key: remote.key, address: remote.address, lengthBytes }],
    right,
    isAlive: () => peer.canReceive && !peer.isReleased,
  };
}

/** The queue pair's own permission (qpc.rre, rwe, rae); a message of no bytes needs none. */
function requireRemoteRight(peer: QueuePair, field: 'rre' | 'rwe' | 'rae', lengthBytes: number): void {
  if (lengthBytes === 0 || qpc.get(peer.context, field) === 1) return;
  throw remoteRefusal(peer)(`queue pair ${peer.number} does not permit it`);
}

/** The other side refuses by NAK: an event there, an error here; both stop. On unreliable connections it is silent. */
function remoteRefusal(peer: QueuePair): (reason: string, failed?: TransferFailed) => Error {
  return (reason, failed) => {
    if (!peer.isReliable) return new Dropped(reason);
    const cause = failed?.cause;
    peer.enterError();
    if (cause instanceof PageMissing) return new RequestFailed(SYNDROME.REMOTE_OPERATION, reason);
    peer.postEvent(EVENT.WQ_ACCESS_ERROR);
    peer.adapter.counters.add(peer, 'resp_remote_access_errors');
    return new RequestFailed(SYNDROME.REMOTE_ACCESS, reason);
  };
}

function remoteInvalid(peer: QueuePair): void {
  peer.enterError();
  peer.postEvent(EVENT.WQ_INVALID_REQUEST);
}

/** The queue pair at the other end of the connection; waits and retries as the acknowledge timeout says. */
function* findPeer(sending: Sending): Work<QueuePair> {
  const { qp } = sending;
  const waitsForEver = ads.get(qp.path, 'ack_timeout') === 0;
  const pauseMs = acknowledgeTimeoutMs(qp);
  const retries = qpc.get(qp.context, 'retry_count');
  for (let attempt = 0; ; attempt++) {
    const peer = lookUpPeer(qp);
    if (peer !== undefined) {
      peer.announceCommunication();
      return peer;
    }
    if (!qp.isReliable) throw new Dropped();
    if (!waitsForEver && attempt > retries) {
      throw new RequestFailed(SYNDROME.TRANSPORT_RETRIES, 'nobody answers at the other end');
    }
    qp.adapter.counters.add(qp, 'local_ack_timeout_err');
    yield* sleep(sending, pauseMs);
  }
}

/** How long a queue pair waits for an acknowledgement before it sends again. */
export function acknowledgeTimeoutMs(qp: QueuePair): number {
  const code = ads.get(qp.path, 'ack_timeout');
  return code === 0 ? FOREVER_POLL_MS : Math.max(1, ACK_TIMEOUT_UNIT_MS * 2 ** code);
}

function lookUpPeer(qp: QueuePair): QueuePair | undefined {
  const remote = qp.adapter.wire.resolvePath(qp.path);
  const peer = remote?.queuePairs.find(qpc.get(qp.context, 'remote_qpn'));
  if (peer === undefined || !peer.canReceive || peer.service !== qp.service) return undefined;
  return qpc.get(peer.context, 'remote_qpn') === qp.number ? peer : undefined;
}

/** A receive that a message has taken: where its completion goes, and on whose behalf memory is written. */
interface Inbound {
  readonly peer: QueuePair;
  readonly receive: Receive;
  readonly owner: Requester;
  /** XRC: completions belong to the shared queue. */
  readonly shared: { readonly completionQueue: number; readonly userIndex: number } | undefined;
}

function* takeReceive(sending: Sending, peer: QueuePair, sharedNumber: number | undefined): Work<Inbound> {
  const { qp } = sending;
  const delayMs = RNR_TIMER_MS[qpc.get(peer.context, 'min_rnr_nak')]!;
  const retries = qpc.get(qp.context, 'rnr_retry');
  const pauseMs = Math.min(RNR_POLL_MS.LONGEST, Math.max(RNR_POLL_MS.SHORTEST, delayMs));
  for (let waitedMs = 0; ; waitedMs += pauseMs) {
    if (!peer.canReceive || peer.isReleased) throw new PeerGone();
    const inbound = tryReceive(peer, sharedNumber);
    if (inbound !== undefined) return inbound;
    if (!qp.isReliable) throw new Dropped();
    if (retries !== RNR_RETRY_FOREVER && waitedMs >= retries * Math.max(delayMs, RNR_POLL_MS.SHORTEST)) {
      qp.adapter.counters.add(qp, 'rnr_nak_retry_err');
      throw new RequestFailed(SYNDROME.RNR_RETRIES, 'the other side has posted no receive');
    }
    if (waitedMs === 0) peer.adapter.counters.add(peer, 'out_of_buffer');
    yield* sleep(sending, pauseMs);
  }
}

function tryReceive(peer: QueuePair, sharedNumber: number | undefined): Inbound | undefined {
  try {
    if (sharedNumber !== undefined) return tryXrcReceive(peer, sharedNumber);
    const receive = peer.receiveQueue?.take();
    if (receive === undefined) return undefined;
    peer.unfinished.add(receive);
    const list = peer.sharedReceiveQueue;
    const owner: Requester =
      list === undefined
        ? peer
        : { number: peer.number, protectionDomain: list.protectionDomain, usesReservedKey: peer.usesReservedKey };
    return { peer, receive, owner, shared: undefined };
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    reportDmaError(peer.adapter.port.log, 'a receive queue cannot be reached', { qpn: peer.number }, error);
    peer.enterError();
    peer.postEvent(EVENT.WQ_CATASTROPHIC);
    throw new RequestFailed(SYNDROME.REMOTE_OPERATION, error.message);
  }
}

/** The queue that an XRC message names. Throws {@link RequestFailed} when the responder must not use it. */
function xrcQueue(
  peer: QueuePair,
  number: number,
): SharedReceiveQueue & { xrc: NonNullable<SharedReceiveQueue['xrc']> } {
  const shared = peer.adapter.sharedReceiveQueues.find(number);
  const xrc = shared?.xrc;
  if (shared !== undefined && xrc !== undefined && xrc.domain === qpc.get(peer.context, 'xrcd'))
    return { ...shared, xrc };
  remoteInvalid(peer);
  throw new RequestFailed(SYNDROME.REMOTE_INVALID_REQUEST, `there is no XRC shared receive queue ${number}`);
}

function tryXrcReceive(peer: QueuePair, sharedNumber: number): Inbound | undefined {
  const shared = xrcQueue(peer, sharedNumber);
  const receive = shared.list.take();
  if (receive === undefined) return undefined;
  peer.unfinished.add(receive);
  const owner = { number: peer.number, protectionDomain: shared.list.protectionDomain, usesReservedKey: false };
  return { peer, receive, owner, shared: shared.xrc };
}

function refuseTooLong(sending: Sending, inbound: Inbound, lengthBytes: number, capacity: number): never {
  const reason = `${lengthBytes} bytes for a receive of ${capacity}`;
  if (!sending.qp.isReliable) {
    inbound.peer.unfinished.delete(inbound.receive);
    throw new Dropped(reason);
  }
  failReceive(inbound, SYNDROME.LOCAL_LENGTH);
  throw new RequestFailed(SYNDROME.REMOTE_INVALID_REQUEST, reason);
}

function failReceive({ peer, receive, shared }: Inbound, syndrome: number): void {
  peer.unfinished.delete(receive);
  const entry = peer.receiveEntry(receive);
  entry[CQE.SYNDROME] = syndrome;
  entry[CQE.OP_OWN] = operationByte(CQE_OPCODE.RESPONDER_ERROR, false);
  pushReceive(peer, shared, entry, true);
  peer.adapter.counters.countResponderError(peer, syndrome);
  peer.enterError();
}

function completeReceive(
  sending: Sending,
  { peer, receive, shared }: Inbound,
  opcode: number,
  lengthBytes: number,
): void {
  const { entry: sent, qp } = sending;
  peer.unfinished.delete(receive);
  const entry = peer.receiveEntry(receive);
  const view = new DataView(entry.buffer);
  view.setUint16(CQE.SLID, qp.adapter.vport.lid);
  view.setUint32(CQE.FLAGS_RQPN, qp.number | (ads.get(qp.path, 'grh') << 28));
  view.setUint32(CQE.IMM_INVALIDATE_PKEY, sent.immediate);
  view.setUint32(CQE.BYTE_COUNT, lengthBytes);
  entry[CQE.OP_OWN] = operationByte(opcode, sent.solicited);
  pushReceive(peer, shared, entry, sent.solicited);
}

function pushReceive(peer: QueuePair, shared: Inbound['shared'], entry: Uint8Array, solicited: boolean): void {
  if (shared === undefined) {
    peer.receiveCompletionQueue?.push(entry, solicited);
    return;
  }
  new DataView(entry.buffer).setUint32(CQE.SRQN_USER_INDEX, shared.userIndex);
  peer.adapter.completionQueues.find(shared.completionQueue)?.push(entry, solicited);
}

function sendCompletion(opcode: number): number {
  if (opcode === OPCODE.SEND_IMM) return CQE_OPCODE.RESPONDER_SEND_IMM;
  return opcode === OPCODE.SEND_INVALIDATE ? CQE_OPCODE.RESPONDER_SEND_INVALIDATE : CQE_OPCODE.RESPONDER_SEND;
}

/** The sender asks to take a key of the receiver out of use (IB volume 1 §9.4.1.1.3). */
function invalidateRemote({ entry }: Sending, inbound: Inbound): void {
  const { peer } = inbound;
  const key = peer.adapter.memoryKeys.find(entry.immediate);
  if (key?.invalidateRemotely(inbound.owner) === true) return;
  failReceive(inbound, SYNDROME.REMOTE_ACCESS);
  throw new RequestFailed(SYNDROME.REMOTE_ACCESS, `key 0x${entry.immediate.toString(16)} cannot be invalidated`);
}

/** Waits at least `delayMs`. */
export function* sleep({ qp, waiter }: Sending, delayMs: number): Work {
  let over = false;
  const timer = qp.adapter.port.clock.after(delayMs, () => {
    over = true;
    waiter.wake();
  });
  waiter.onAbandon(() => timer.cancel());
  while (!over) yield 'wait';
  waiter.onAbandon(undefined);
}
