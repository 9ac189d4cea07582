/** Turns messages into the packets that a cable would carry, and writes them to a capture file. */
import type { Clock } from 'ghostbus';
import { ads, qpc } from '../layouts/contexts.js';
import { bytesOf } from '../layouts/layout.js';
import { type QueuePair, SERVICE } from '../queues/queue-pair.js';
import { type AddressVector, OPCODE, SegmentReader } from '../queues/work-queue-entry.js';
import { GRH_BYTES } from '../transport/grh.js';
import {
  type MessageRecorder,
  type Origin,
  packetsOf,
  type Sending,
  type WireOperation,
} from '../transport/sending.js';
import type { Tap } from '../transport/transfer.js';
import { PcapFile } from './pcap.js';
import { BTH_OPCODE, buildRoceFrame, type RoceAddress, TRANSPORT } from './roce-frame.js';

/** Opcodes of a message's first, middle, last and only packet. */
type Quartet = readonly [first: number, middle: number, last: number, only: number];

/** AETH of a positive acknowledgement without end-to-end credits (IB volume 1 §9.7.5.2.1). */
const ACKNOWLEDGED = 0x1f;
/** udp_sport 0: the adapter chooses; a flow keeps its port. */
const FIRST_SOURCE_PORT = 0xc000;
const PSN_MASK = 0xffffff;
const READ_ANSWER: Quartet = [
  BTH_OPCODE.READ_FIRST,
  BTH_OPCODE.READ_MIDDLE,
  BTH_OPCODE.READ_LAST,
  BTH_OPCODE.READ_ONLY,
];

/** Whoever writes down the Ethernet frames that pass. */
export interface FrameRecorder {
  frame(frame: Uint8Array, clock: Clock): void;
}

/** A packet to be; what is not given is empty or not set. */
interface Packet {
  readonly opcode: number;
  readonly queuePair: number;
  readonly psn: number;
  readonly headers: Uint8Array;
  readonly payload?: Uint8Array;
  readonly solicited?: boolean;
  readonly acknowledgeRequest?: boolean;
}

/** What the packets of one message have in common, and what only some of them carry. */
interface PacketTrain {
  readonly address: RoceAddress;
  readonly quartet: Quartet;
  readonly destination: number;
  readonly lengthBytes: number;
  readonly first?: Uint8Array | undefined;
  /** On the first and on the last one. */
  readonly outer?: Uint8Array;
  readonly last?: Uint8Array | undefined;
  readonly solicited?: boolean;
  /** Behind the last one. */
  readonly end?: () => void;
}

export class WireRecorder implements FrameRecorder, MessageRecorder {
  readonly #file: PcapFile;

  constructor(file: PcapFile) {
    this.#file = file;
  }

  /** An Ethernet frame as it is. */
  frame(frame: Uint8Array, clock: Clock): void {
    this.#file.write(frame, clock.nowNs());
  }

  /** A tap for a message of a connection; its packets are written as its bytes pass. */
  connected(sending: Sending, destination: number, operation: WireOperation, lengthBytes: number): Tap {
    const reader = readerOf(sending);
    if (operation === 'read') return this.#readAnswer(sending, destination, reader, lengthBytes);
    const { qp, entry } = sending;
    const address = addressOf(sending);
    const firstPsn = qpc.get(qp.context, 'next_send_psn');
    return this.#packets(sending, {
      address,
      quartet: quartetOf(entry.opcode),
      destination,
      lengthBytes,
      first: operation === 'write' ? reth(reader.remote(), lengthBytes) : undefined,
      last: immediateOf(entry.opcode, entry.immediate),
      solicited: entry.solicited,
      end: () => {
        if (!qp.isReliable) return;
        const psn = (firstPsn + packetsOf(qp, lengthBytes) - 1) & PSN_MASK;
        const opcode = transportOf(qp) | BTH_OPCODE.ACKNOWLEDGE;
        this.#write(sending, reversed(address), { opcode, queuePair: qp.number, psn, headers: aeth() });
      },
    });
  }

  atomic(sending: Sending, destination: number, old: bigint): void {
    const { qp, entry } = sending;
    const request = addressOf(sending);
    const reader = readerOf(sending);
    const prefix = transportOf(qp);
    const psn = qpc.get(qp.context, 'next_send_psn');
    const isAdd = entry.opcode === OPCODE.ATOMIC_FETCH_ADD;
    this.#write(sending, request, {
      opcode: prefix | (isAdd ? BTH_OPCODE.FETCH_ADD : BTH_OPCODE.COMPARE_SWAP),
      queuePair: destination,
      psn,
      headers: atomicEth(reader.remote(), reader.atomic()),
      acknowledgeRequest: true,
    });
    const answer = new DataView(new ArrayBuffer(8));
    answer.setBigUint64(0, old);
    this.#write(sending, reversed(request), {
      opcode: prefix | BTH_OPCODE.ATOMIC_ACKNOWLEDGE,
      queuePair: qp.number,
      psn,
      headers: concatenate(aeth(), bytesOf(answer)),
    });
  }

  /** A tap for a datagram; the first 40 bytes are the route header, which frames carry elsewhere. */
  datagram(sending: Sending, vector: AddressVector, lengthBytes: number): Tap {
    const { qp, entry } = sending;
    const address = vectorAddress(sending, vector);
    const deth = new DataView(new ArrayBuffer(8));
    deth.setUint32(0, (vector.qkey & 0x80000000) === 0 ? vector.qkey : qpc.get(qp.context, 'q_key'));
    deth.setUint32(4, qp.number);
    const opcode = entry.opcode === OPCODE.SEND_IMM ? BTH_OPCODE.SEND_ONLY_IMM : BTH_OPCODE.SEND_ONLY;
    const headers = concatenate(bytesOf(deth), immediateOf(entry.opcode, entry.immediate));
    const collected: Uint8Array[] = [];
    let left = lengthBytes + GRH_BYTES;
    return (bytes) => {
      collected.push(bytes.slice());
      left -= bytes.length;
      if (left > 0) return;
      const payload = concatenate(...collected).subarray(GRH_BYTES);
      const psn = qpc.get(qp.context, 'next_send_psn');
      const packet = { opcode: TRANSPORT.UD | opcode, queuePair: vector.queuePair, psn, headers, payload };
      this.#write(sending, address, packet);
    };
  }

  /** The request of a read goes out; what passes is its answer. */
  #readAnswer(sending: Sending, destination: number, reader: SegmentReader, lengthBytes: number): Tap {
    const { qp } = sending;
    const address = addressOf(sending);
    this.#write(sending, address, {
      opcode: transportOf(qp) | BTH_OPCODE.READ_REQUEST,
      queuePair: destination,
      psn: qpc.get(qp.context, 'next_send_psn'),
      headers: reth(reader.remote(), lengthBytes),
    });
    return this.#packets(sending, {
      address: reversed(address),
      quartet: READ_ANSWER,
      destination: qp.number,
      lengthBytes,
      outer: aeth(),
    });
  }

  #packets(sending: Sending, train: PacketTrain): Tap {
    const { qp } = sending;
    const { mtuBytes } = qp;
    const total = packetsOf(qp, train.lengthBytes);
    const firstPsn = qpc.get(qp.context, 'next_send_psn');
    let sent = 0;
    let pending = new Uint8Array(0);
    const emit = (payload: Uint8Array): void => {
      this.#write(sending, train.address, packetOf(train, transportOf(qp), sent, total, firstPsn + sent, payload));
      sent++;
      if (sent === total) train.end?.();
    };
    if (train.lengthBytes === 0) emit(pending);
    return (bytes) => {
      pending = pending.length === 0 ? bytes.slice() : concatenate(pending, bytes);
      let at = 0;
      const isRest = (): boolean => pending.length > at && sent * mtuBytes + pending.length - at >= train.lengthBytes;
      while (pending.length - at >= mtuBytes || isRest()) {
        emit(pending.subarray(at, at + mtuBytes));
        at += mtuBytes;
      }
      pending = pending.slice(at);
    };
  }

  #write({ waiter }: Sending, address: RoceAddress, packet: Packet): void {
    const standard = { payload: new Uint8Array(0), solicited: false, acknowledgeRequest: false };
    this.#file.write(buildRoceFrame(address, { ...standard, ...packet }), waiter.clock.nowNs());
  }
}

/** Packet `index` of `total`. */
function packetOf(
  train: PacketTrain,
  prefix: number,
  index: number,
  total: number,
  psn: number,
  payload: Uint8Array,
): Packet {
  const isFirst = index === 0;
  const isLast = index === total - 1;
  const [first, middle, last, only] = train.quartet;
  const opcode = isFirst ? (isLast ? only : first) : isLast ? last : middle;
  return {
    opcode: prefix | opcode,
    queuePair: train.destination,
    psn,
    headers: concatenate(
      isFirst ? train.first : undefined,
      isFirst || isLast ? train.outer : undefined,
      isLast ? train.last : undefined,
    ),
    payload,
    solicited: isLast && train.solicited === true,
    acknowledgeRequest: isLast,
  };
}

/** Behind what an XRC entry has before its operands. */
function readerOf({ qp, entry }: Sending): SegmentReader {
  const reader = new SegmentReader(entry.view);
  if (qp.service === SERVICE.XRC) reader.xrcSharedReceiveQueue();
  return reader;
}

/** The recorders of one emulator, by file: adapters that share one record each packet once. */
export class Recorders {
  readonly #recorders = new Map<string, WireRecorder>();

  /** Throws what `open` throws. */
  to(path: string): WireRecorder {
    const recorder = this.#recorders.get(path) ?? new WireRecorder(new PcapFile(path));
    this.#recorders.set(path, recorder);
    return recorder;
  }
}

function transportOf(qp: QueuePair): number {
  if (qp.service === SERVICE.UC) return TRANSPORT.UC;
  return qp.service === SERVICE.XRC ? TRANSPORT.XRC : TRANSPORT.RC;
}

function addressOf({ qp, origin }: Sending): RoceAddress {
  const { path } = qp;
  return {
    ...sourceOf(origin, ads.get(path, 'src_addr_index')),
    destinationMac: ads.get(path, 'rmac_47_32') * 2 ** 32 + ads.get(path, 'rmac_31_0'),
    destinationGid: bytesOf(ads.part(path, 'rgid_rip')),
    trafficClass: ads.get(path, 'tclass'),
    hopLimit: ads.get(path, 'hop_limit'),
    flowLabel: ads.get(path, 'flow_label'),
    sourcePort: ads.get(path, 'udp_sport') || FIRST_SOURCE_PORT | (qp.number & 0x3fff),
  };
}

function vectorAddress({ qp, origin }: Sending, vector: AddressVector): RoceAddress {
  return {
    ...sourceOf(origin, vector.sourceGidIndex),
    destinationMac: vector.mac,
    destinationGid: vector.gid,
    trafficClass: vector.trafficClass,
    hopLimit: vector.hopLimit,
    flowLabel: vector.flowLabel,
    // On Ethernet the field of the LID holds the UDP source port.
    sourcePort: vector.lid || FIRST_SOURCE_PORT | (qp.number & 0x3fff),
  };
}

type SourceAddress = Pick<RoceAddress, 'sourceMac' | 'sourceGid' | 'version' | 'isIpv4'>;

function sourceOf(origin: Origin, index: number): SourceAddress {
  const source = origin.gid(index);
  return {
    sourceMac: origin.mac,
    sourceGid: source?.gid ?? new Uint8Array(16),
    version: source?.isVersion2 === false ? 1 : 2,
    isIpv4: source?.isIpv4 === true,
  };
}

function reversed(address: RoceAddress): RoceAddress {
  return {
    ...address,
    sourceMac: address.destinationMac,
    destinationMac: address.sourceMac,
    sourceGid: address.destinationGid,
    destinationGid: address.sourceGid,
  };
}

function quartetOf(opcode: number): Quartet {
  switch (opcode) {
    case OPCODE.RDMA_WRITE:
      return [BTH_OPCODE.WRITE_FIRST, BTH_OPCODE.WRITE_MIDDLE, BTH_OPCODE.WRITE_LAST, BTH_OPCODE.WRITE_ONLY];
    case OPCODE.RDMA_WRITE_IMM:
      return [BTH_OPCODE.WRITE_FIRST, BTH_OPCODE.WRITE_MIDDLE, BTH_OPCODE.WRITE_LAST_IMM, BTH_OPCODE.WRITE_ONLY_IMM];
    case OPCODE.SEND_IMM:
      return [BTH_OPCODE.SEND_FIRST, BTH_OPCODE.SEND_MIDDLE, BTH_OPCODE.SEND_LAST_IMM, BTH_OPCODE.SEND_ONLY_IMM];
    case OPCODE.SEND_INVALIDATE:
      return [
        BTH_OPCODE.SEND_FIRST,
        BTH_OPCODE.SEND_MIDDLE,
        BTH_OPCODE.SEND_LAST_INVALIDATE,
        BTH_OPCODE.SEND_ONLY_INVALIDATE,
      ];
    default:
      return [BTH_OPCODE.SEND_FIRST, BTH_OPCODE.SEND_MIDDLE, BTH_OPCODE.SEND_LAST, BTH_OPCODE.SEND_ONLY];
  }
}

/** ImmDt or IETH: one dword in the last packet. */
function immediateOf(opcode: number, immediate: number): Uint8Array | undefined {
  if (opcode !== OPCODE.SEND_IMM && opcode !== OPCODE.RDMA_WRITE_IMM && opcode !== OPCODE.SEND_INVALIDATE) {
    return undefined;
  }
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, immediate);
  return bytesOf(view);
}

function reth(remote: { readonly address: bigint; readonly key: number }, lengthBytes: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setBigUint64(0, remote.address);
  view.setUint32(8, remote.key);
  view.setUint32(12, lengthBytes);
  return bytesOf(view);
}

function atomicEth(
  remote: { readonly address: bigint; readonly key: number },
  operands: { readonly swapOrAdd: bigint; readonly compare: bigint },
): Uint8Array {
  const view = new DataView(new ArrayBuffer(28));
  view.setBigUint64(0, remote.address);
  view.setUint32(8, remote.key);
  view.setBigUint64(12, operands.swapOrAdd);
  view.setBigUint64(20, operands.compare);
  return bytesOf(view);
}

function aeth(): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, ACKNOWLEDGED << 24);
  return bytesOf(view);
}

function concatenate(...parts: readonly (Uint8Array | undefined)[]): Uint8Array<ArrayBuffer> {
  const present = parts.filter((part) => part !== undefined);
  const bytes = new Uint8Array(present.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of present) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
