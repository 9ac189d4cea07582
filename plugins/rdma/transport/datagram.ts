/** Unreliable datagrams: UD queue pairs and the special ones of the general services, with multicast. */

import { DmaError } from 'ghostbus';
import type { Adapter } from '../adapter.js';
import { qpc } from '../layouts/contexts.js';
import { reportDmaError } from '../memory/dma-report.js';
import { CQE, CQE_OPCODE, operationByte } from '../queues/completion-queue.js';
import { type QueuePair, SERVICE, SYNDROME } from '../queues/queue-pair.js';
import type { Receive } from '../queues/receive-queue.js';
import {
  type AddressVector,
  OPCODE,
  type SegmentReader,
  type SendPiece,
  totalBytes,
} from '../queues/work-queue-entry.js';
import { grhBytes, headerType } from './grh.js';
import { RequestFailed, type Sending } from './requester.js';
import { PeerGone, type Side, TransferFailed, transfer, type Work } from './transfer.js';

/** Room before the payload in every receive (IB volume 1 §11.4.1.2). */
const GRH_BYTES = 40;
/** IB volume 1 §9.6.1.1.1: the queue pair that stands for all members of a multicast group. */
const MULTICAST_QPN = 0xffffff;
/** Well-known number of the general services queue pair, whatever number the driver's has. */
const GENERAL_SERVICES_QPN = 1;
const SUBNET_MANAGEMENT_QPN = 0;
/** IB volume 1 §10.2.5: a set high bit asks for the queue pair's own key. */
const QKEY_OF_QUEUE_PAIR = 0x80000000;
const DEFAULT_PKEY = 0xffff;
/** Members of a group that get their copy before others have their turn. */
const COPIES_PER_SLICE = 32;

export function* sendDatagram(sending: Sending, reader: SegmentReader): Work<number> {
  const { qp } = sending;
  const vector = reader.addressVector();
  const pieces = reader.pieces();
  const lengthBytes = totalBytes(pieces);
  if (lengthBytes > qp.adapter.vport.activeMtuBytes) {
    throw new RequestFailed(SYNDROME.LOCAL_LENGTH, `a datagram of ${lengthBytes} bytes; the MTU is ${qp.mtuBytes}`);
  }
  for (const [index, peer] of receivers(qp, vector).entries()) {
    if (index % COPIES_PER_SLICE === COPIES_PER_SLICE - 1) yield 'slice';
    // It may have left while others had their turn.
    if (!peer.canReceive || peer.isReleased) continue;
    const delivered = yield* qp.adapter.wire.deliver(sending, peer, 'send', lengthBytes, vector);
    if (delivered) yield* deliver(sending, vector, pieces, lengthBytes, peer);
  }
  qpc.set(qp.context, 'next_send_psn', (qpc.get(qp.context, 'next_send_psn') + 1) & 0xffffff);
  return lengthBytes;
}

function receivers(qp: QueuePair, vector: AddressVector): QueuePair[] {
  const { wire } = qp.adapter;
  if (vector.queuePair === MULTICAST_QPN) return wire.multicastMembers(vector).filter((member) => hears(qp, member));
  const adapter = wire.resolveVector(vector);
  const peer = adapter === undefined ? undefined : findDatagramQueuePair(adapter, vector.queuePair);
  return peer === undefined || !accepts(qp, vector, peer) ? [] : [peer];
}

/** A sender hears its own multicasts unless it asked not to (qpc.block_lb_mc). */
function hears(sender: QueuePair, member: QueuePair): boolean {
  return member !== sender || qpc.get(sender.context, 'block_lb_mc') === 0;
}

function findDatagramQueuePair(adapter: Adapter, number: number): QueuePair | undefined {
  if (number === GENERAL_SERVICES_QPN) return adapter.queuePairs.special(SERVICE.QP1);
  if (number === SUBNET_MANAGEMENT_QPN) return adapter.queuePairs.special(SERVICE.QP0);
  return adapter.queuePairs.find(number);
}

function accepts(sender: QueuePair, vector: AddressVector, peer: QueuePair): boolean {
  if (!peer.isDatagram || !peer.canReceive) return false;
  if (peer.service === SERVICE.QP0) return true;
  const given = (vector.qkey & QKEY_OF_QUEUE_PAIR) === 0 ? vector.qkey : qpc.get(sender.context, 'q_key');
  const matches = given === qpc.get(peer.context, 'q_key') || peer.service === SERVICE.QP1;
  if (!matches) peer.adapter.vport.countQkeyViolation();
  return matches;
}

function* deliver(
  sending: Sending,
  vector: AddressVector,
  pieces: readonly SendPiece[],
  lengthBytes: number,
  peer: QueuePair,
): Work {
  const { qp, waiter } = sending;
  const receive = takeReceive(peer);
  if (receive === undefined) {
    peer.adapter.counters.add(peer, 'out_of_buffer');
    return;
  }
  const total = lengthBytes + GRH_BYTES;
  if (totalBytes(receive.segments) < total) {
    failReceive(peer, receive, SYNDROME.LOCAL_LENGTH);
    return;
  }
  peer.unfinished.add(receive);
  const grh = grhBytes(qp.adapter, vector, lengthBytes);
  const source: Side = {
    adapter: qp.adapter,
    owner: qp,
    pieces: [{ inline: grh, lengthBytes: GRH_BYTES }, ...pieces],
    right: 'local-read',
  };
  const list = peer.sharedReceiveQueue;
  const domain = list?.protectionDomain ?? peer.protectionDomain;
  const target: Side = {
    adapter: peer.adapter,
    owner: { number: peer.number, protectionDomain: domain, usesReservedKey: peer.usesReservedKey },
    pieces: receive.segments,
    right: 'local-write',
    isAlive: () => peer.canReceive && !peer.isReleased && peer.unfinished.has(receive),
  };
  try {
    yield* transfer(waiter, source, target, total, qp.adapter.wire.datagramTap(sending, peer, vector, lengthBytes));
  } catch (error) {
    handleFailure(error, peer, receive);
    return;
  }
  peer.unfinished.delete(receive);
  complete(sending, vector, peer, receive, total);
}

function takeReceive(peer: QueuePair): Receive | undefined {
  try {
    return peer.receiveQueue?.take();
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    reportDmaError(peer.adapter.port.log, 'a receive queue cannot be reached', { qpn: peer.number }, error);
    return undefined;
  }
}

/** The sender's own memory is the sender's error; the receiver's is the receiver's. */
function handleFailure(error: unknown, peer: QueuePair, receive: Receive): void {
  if (error instanceof PeerGone) return;
  if (!(error instanceof TransferFailed)) throw error;
  if (error.end === 'source') throw new RequestFailed(SYNDROME.LOCAL_PROTECTION, error.message);
  failReceive(peer, receive, SYNDROME.LOCAL_PROTECTION);
}

function failReceive(peer: QueuePair, receive: Receive, syndrome: number): void {
  peer.unfinished.delete(receive);
  peer.completeReceiveError(receive, syndrome);
  peer.adapter.counters.countResponderError(peer, syndrome);
  peer.enterError();
}

function complete(
  { qp, entry: sent }: Sending,
  vector: AddressVector,
  peer: QueuePair,
  receive: Receive,
  totalLength: number,
): void {
  const entry = peer.receiveEntry(receive);
  const view = new DataView(entry.buffer);
  const hasGrh = vector.hasGrh || qp.adapter.profile.link === 'roce';
  const source = qp.service === SERVICE.QP1 ? GENERAL_SERVICES_QPN : qp.service === SERVICE.QP0 ? 0 : qp.number;
  view.setUint16(CQE.SLID, qp.adapter.vport.lid);
  view.setUint32(CQE.FLAGS_RQPN, source | (hasGrh ? 1 << 28 : 0) | (headerType(qp.adapter, vector) << 24));
  view.setUint32(CQE.IMM_INVALIDATE_PKEY, sent.opcode === OPCODE.SEND_IMM ? sent.immediate : DEFAULT_PKEY);
  view.setUint32(CQE.BYTE_COUNT, totalLength);
  const opcode = sent.opcode === OPCODE.SEND_IMM ? CQE_OPCODE.RESPONDER_SEND_IMM : CQE_OPCODE.RESPONDER_SEND;
  entry[CQE.OP_OWN] = operationByte(opcode, sent.solicited);
  peer.receiveCompletionQueue?.push(entry, sent.solicited);
}
