/** Unreliable datagrams: UD queue pairs and the special ones of the general services, with multicast. */
import { qpc } from '../layouts/contexts.js';
import { CQE_OPCODE, SYNDROME } from '../queues/completion-entry.js';
import { SERVICE } from '../queues/queue-pair.js';
import { REQUEST_UNITS } from '../queues/turns.js';
import {
  type AddressVector,
  MalformedEntry,
  OPCODE,
  type SegmentReader,
  type SendPiece,
  totalBytes,
} from '../queues/work-queue-entry.js';
import { GRH_BYTES, grhBytes, headerType } from './grh.js';
import type { Inbound, Responder, Responders } from './responder.js';
import { RequestFailed, type Sending, type WireOperation } from './sending.js';
import { type MemoryAccess, PeerGone, type Side, type Tap, TransferFailed, transfer, type Work } from './transfer.js';

/** IB volume 1 §9.6.1.1.1: the queue pair that stands for all members of a multicast group. */
const MULTICAST_QPN = 0xffffff;
/** Well-known numbers of the management queue pairs, whatever numbers the driver's have (IB volume 1 §3.9.2). */
export const WELL_KNOWN_QPN = { SUBNET_MANAGEMENT: 0, GENERAL_SERVICES: 1 } as const;
/** IB volume 1 §10.2.5: a set high bit asks for the queue pair's own key. */
const QKEY_OF_QUEUE_PAIR = 0x80000000;
const DEFAULT_PKEY = 0xffff;
/** A copy for one receiver: its receive is fetched, translated and completed, beside the request's own part. */
const COPY_UNITS = 2 * REQUEST_UNITS;
/** cqe.flags_rqpn, above the source queue pair: what kind of header came, and whether one did. */
const FLAGS = { HEADER_TYPE_SHIFT: 24, GRH: 1 << 28 } as const;

/** The way to responders, as a datagram needs it. */
export interface DatagramCable {
  /** The adapter that a datagram goes to. */
  respondersAt(vector: AddressVector): Responders | undefined;
  /** Members of a group on all adapters. */
  multicastMembers(vector: AddressVector): Responder[];
  /**
   * The packets of one message travel. False when an unreliable message is lost; a reliable one that cannot be brought
   * over throws RequestFailed.
   */
  deliver(
    sending: Sending,
    peer: Responder,
    operation: WireOperation,
    lengthBytes: number,
    vector?: AddressVector,
  ): Work<boolean>;
  datagramTap(sending: Sending, peer: Responder, vector: AddressVector, lengthBytes: number): Tap | undefined;
}

interface DatagramHost extends MemoryAccess {
  readonly cable: DatagramCable;
}

export function* sendDatagram(host: DatagramHost, sending: Sending, reader: SegmentReader): Work<number> {
  const { qp, entry, waiter } = sending;
  if (entry.opcode !== OPCODE.SEND && entry.opcode !== OPCODE.SEND_IMM) {
    throw new MalformedEntry(`opcode ${entry.opcode} of a datagram`);
  }
  const vector = reader.addressVector();
  const pieces = reader.pieces();
  const lengthBytes = totalBytes(pieces);
  if (lengthBytes > qp.mtuBytes) {
    throw new RequestFailed(SYNDROME.LOCAL_LENGTH, `a datagram of ${lengthBytes} bytes; the MTU is ${qp.mtuBytes}`);
  }
  for (const peer of receivers(host.cable, sending, vector)) {
    if (waiter.budget.isSpent) yield 'slice';
    waiter.budget.charge(COPY_UNITS);
    // It may have left while others had their turn.
    if (!peer.qp.canReceive) continue;
    const delivered = yield* host.cable.deliver(sending, peer, 'send', lengthBytes, vector);
    if (delivered) yield* deliver(host, sending, vector, pieces, lengthBytes, peer);
  }
  qp.advancePsn('next_send_psn', 1);
  return lengthBytes;
}

function receivers(cable: DatagramCable, { qp }: Sending, vector: AddressVector): Responder[] {
  if (vector.queuePair === MULTICAST_QPN) {
    // A sender hears its own multicasts unless it asked not to.
    const hearsItself = qpc.get(qp.context, 'block_lb_mc') === 0;
    return cable.multicastMembers(vector).filter((member) => member.qp !== qp || hearsItself);
  }
  const peer = cable.respondersAt(vector)?.findForDatagram(vector.queuePair);
  const qkey = (vector.qkey & QKEY_OF_QUEUE_PAIR) === 0 ? vector.qkey : qpc.get(qp.context, 'q_key');
  return peer?.acceptsDatagram(qkey) === true ? [peer] : [];
}

function* deliver(
  host: DatagramHost,
  sending: Sending,
  vector: AddressVector,
  pieces: readonly SendPiece[],
  lengthBytes: number,
  peer: Responder,
): Work {
  const { qp, origin, waiter } = sending;
  const inbound = peer.takeForDatagram();
  if (inbound === undefined) return;
  const total = lengthBytes + GRH_BYTES;
  if (totalBytes(inbound.receive.segments) < total) {
    peer.fail(inbound, SYNDROME.LOCAL_LENGTH);
    return;
  }
  const grh = grhBytes(origin, vector, lengthBytes);
  const source: Side = {
    access: host,
    user: qp,
    pieces: [{ inline: grh, lengthBytes: GRH_BYTES }, ...pieces],
    right: 'local-read',
  };
  const tap = host.cable.datagramTap(sending, peer, vector, lengthBytes);
  try {
    yield* transfer(waiter, source, peer.receiveSide(inbound), total, tap);
  } catch (error) {
    handleFailure(error, peer, inbound);
    return;
  }
  complete(sending, vector, peer, inbound, total);
}

/** The sender's own memory is the sender's error; the receiver's is the receiver's. */
function handleFailure(error: unknown, peer: Responder, inbound: Inbound): void {
  if (error instanceof PeerGone) return;
  if (!(error instanceof TransferFailed)) throw error;
  if (error.end === 'source') throw new RequestFailed(SYNDROME.LOCAL_PROTECTION, error.message);
  peer.fail(inbound, SYNDROME.LOCAL_PROTECTION);
}

function complete(
  { qp, origin, entry }: Sending,
  vector: AddressVector,
  peer: Responder,
  inbound: Inbound,
  lengthBytes: number,
): void {
  const hasGrh = vector.hasGrh || origin.link === 'roce';
  const flags = (hasGrh ? FLAGS.GRH : 0) | (headerType(origin, vector) << FLAGS.HEADER_TYPE_SHIFT);
  const hasImmediate = entry.opcode === OPCODE.SEND_IMM;
  peer.complete(inbound, {
    opcode: hasImmediate ? CQE_OPCODE.RESPONDER_SEND_IMM : CQE_OPCODE.RESPONDER_SEND,
    lengthBytes,
    sourceLid: origin.lid,
    source: sourceNumber(qp) | flags,
    immediate: hasImmediate ? entry.immediate : DEFAULT_PKEY,
    solicited: entry.solicited,
  });
}

function sourceNumber({ service, number }: Sending['qp']): number {
  if (service === SERVICE.QP1) return WELL_KNOWN_QPN.GENERAL_SERVICES;
  return service === SERVICE.QP0 ? WELL_KNOWN_QPN.SUBNET_MANAGEMENT : number;
}
