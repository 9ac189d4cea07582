/** Turns messages into the packets that a cable would carry, and writes them to a capture file. */
import type { Adapter } from '../adapter.js';
import { ads, qpc } from '../layouts/contexts.js';
import { bytesOf } from '../layouts/layout.js';
import { type QueuePair, SERVICE } from '../queues/queue-pair.js';
import { type AddressVector, OPCODE, SegmentReader } from '../queues/work-queue-entry.js';
import type { Sending, WireOperation } from '../transport/requester.js';
import type { Tap } from '../transport/transfer.js';
import { PcapFile } from './pcap.js';
import { BTH_OPCODE, buildRoceFrame, type RoceAddress, TRANSPORT } from './roce-frame.js';

/** Opcodes of a message's first, middle, last and only packet. */
type Quartet = readonly [first: number, middle: number, last: number, only: number];

/** AETH of a positive acknowledgement without end-to-end credits (IB volume 1 §9.7.5.2.1). */
const ACKNOWLEDGED = 0x1f;
/** udp_sport 0: the adapter chooses; a flow keeps its port. */
const FIRST_SOURCE_PORT = 0xc000;

export class WireRecorder {
  readonly #file: PcapFile;

  constructor(file: PcapFile) {
    this.#file = file;
  }

  /** An Ethernet frame as it is. */
  frame(adapter: Adapter, frame: Uint8Array): void {
    this.#file.write(frame, adapter.port.clock.nowNs());
  }

  /** A tap for a message of a connection; its packets are written as its bytes pass. */
  connected({ qp, entry }: Sending, peer: QueuePair, operation: WireOperation, lengthBytes: number): Tap {
    const request = addressOf(qp);
    const answer = reversed(request);
    const reader = new SegmentReader(entry.view);
    if (qp.service === SERVICE.XRC) reader.xrcSharedReceiveQueue();
    const prefix = transportOf(qp);
    const firstPsn = qpc.get(qp.context, 'next_send_psn');
    if (operation === 'read') {
      const remote = reader.remote();
      this.#write(qp.adapter, request, {
        opcode: prefix | BTH_OPCODE.READ_REQUEST,
        queuePair: peer.number,
        psn: firstPsn,
        headers: reth(remote, lengthBytes),
      });
      const quartet: Quartet = [
        BTH_OPCODE.READ_FIRST,
        BTH_OPCODE.READ_MIDDLE,
        BTH_OPCODE.READ_LAST,
        BTH_OPCODE.READ_ONLY,
      ];
      return this.#packets(peer.adapter, answer, quartet, prefix, qp, qp.number, lengthBytes, { outer: aeth() });
    }
    const tail = this.#packets(qp.adapter, request, quartetOf(entry.opcode), prefix, qp, peer.number, lengthBytes, {
      first: operation === 'write' ? reth(reader.remote(), lengthBytes) : undefined,
      last: immediateOf(entry.opcode, entry.immediate),
      solicited: entry.solicited,
      end: () => {
        if (!qp.isReliable) return;
        const last = (firstPsn + Math.max(1, Math.ceil(lengthBytes / qp.mtuBytes)) - 1) & 0xffffff;
        const acknowledge = {
          opcode: prefix | BTH_OPCODE.ACKNOWLEDGE,
          queuePair: qp.number,
          psn: last,
          headers: aeth(),
        };
        this.#write(peer.adapter, answer, acknowledge);
      },
    });
    return tail;
  }

  /** An atomic operation and its answer, `old`: what memory held before. */
  atomic({ qp, entry }: Sending, peer: QueuePair, old: bigint): void {
    const request = addressOf(qp);
    const reader = new SegmentReader(entry.view);
    if (qp.service === SERVICE.XRC) reader.xrcSharedReceiveQueue();
    const prefix = transportOf(qp);
    const psn = qpc.get(qp.context, 'next_send_psn');
    const isAdd = entry.opcode === OPCODE.ATOMIC_FETCH_ADD;
    this.#write(qp.adapter, request, {
      opcode: prefix | (isAdd ? BTH_OPCODE.FETCH_ADD : BTH_OPCODE.COMPARE_SWAP),
      queuePair: peer.number,
      psn,
      headers: atomicEth(reader.remote(), reader.atomic()),
      acknowledgeRequest: true,
    });
    const answer = new DataView(new ArrayBuffer(8));
    answer.setBigUint64(0, old);
    this.#write(peer.adapter, reversed(request), {
      opcode: prefix | BTH_OPCODE.ATOMIC_ACKNOWLEDGE,
      queuePair: qp.number,
      psn,
      headers: concatenate(aeth(), bytesOf(answer)),
    });
  }

  /** A tap for a datagram; the first 40 bytes are the route header, which frames carry elsewhere. */
  datagram({ qp, entry }: Sending, vector: AddressVector, destination: number, lengthBytes: number): Tap {
    const address = vectorAddress(qp, vector);
    const deth = new DataView(new ArrayBuffer(8));
    deth.setUint32(0, (vector.qkey & 0x80000000) === 0 ? vector.qkey : qpc.get(qp.context, 'q_key'));
    deth.setUint32(4, qp.number);
    const opcode = entry.opcode === OPCODE.SEND_IMM ? BTH_OPCODE.SEND_ONLY_IMM : BTH_OPCODE.SEND_ONLY;
    const headers = concatenate(bytesOf(deth), immediateOf(entry.opcode, entry.immediate));
    const collected: Uint8Array[] = [];
    let left = lengthBytes + 40;
    return (bytes) => {
      collected.push(bytes.slice());
      left -= bytes.length;
      if (left > 0) return;
      const payload = concatenate(...collected).subarray(40);
      const psn = qpc.get(qp.context, 'next_send_psn');
      const packet = { opcode: TRANSPORT.UD | opcode, queuePair: destination, psn, headers, payload };
      this.#write(qp.adapter, address, packet);
    };
  }

  #packets(
    adapter: Adapter,
    address: RoceAddress,
    quartet: Quartet,
    prefix: number,
    qp: QueuePair,
    destination: number,
    lengthBytes: number,
    extra: {
      first?: Uint8Array | undefined;
      last?: Uint8Array | undefined;
      outer?: Uint8Array;
      solicited?: boolean;
      end?: () => void;
    },
  ): Tap {
    const mtu = qp.mtuBytes;
    const total = Math.max(1, Math.ceil(lengthBytes / mtu));
    const firstPsn = qpc.get(qp.context, 'next_send_psn');
    let sent = 0;
    let pending = new Uint8Array(0);
    const emit = (payload: Uint8Array): void => {
      const isFirst = sent === 0;
      const isLast = sent === total - 1;
      const opcode = isFirst ? quartet[isLast ? 3 : 0] : quartet[isLast ? 2 : 1];
      const outer = isFirst || isLast ? extra.outer : undefined;
      const headers = concatenate(isFirst ? extra.first : undefined, outer, isLast ? extra.last : undefined);
      this.#write(adapter, address, {
        opcode: prefix | opcode,
        queuePair: destination,
        psn: firstPsn + sent,
        headers,
        payload,
        solicited: isLast && extra.solicited === true,
        acknowledgeRequest: isLast,
      });
      sent++;
      if (isLast) extra.end?.();
    };
    if (lengthBytes === 0) emit(pending);
    return (bytes) => {
      pending = pending.length === 0 ? bytes.slice() : concatenate(pending, bytes);
      let at = 0;
      while (pending.length - at >= mtu || (pending.length > at && sent * mtu + pending.length - at >= lengthBytes)) {
        emit(pending.subarray(at, at + mtu));
        at += mtu;
      }
      pending = pending.slice(at);
    };
  }

  #write(
    adapter: Adapter,
    address: RoceAddress,
    packet: {
      opcode: number;
      queuePair: number;
      psn: number;
      headers: Uint8Array;
      payload?: Uint8Array;
      solicited?: boolean;
      acknowledgeRequest?: boolean;
    },
  ): void {
    const standard = { payload: new Uint8Array(0), solicited: false, acknowledgeRequest: false };
    this.#file.write(buildRoceFrame(address, { ...standard, ...packet }), adapter.port.clock.nowNs());
  }
}

const recorders = new Map<string, WireRecorder>();

/** The one recorder for `path` in this process: adapters that share it record each packet once. Throws what `open` throws. */
export function recorderFor(path: string): WireRecorder {
  const known = recorders.get(path);
  if (known !== undefined) return known;
  const recorder = new WireRecorder(new PcapFile(path));
  recorders.set(path, recorder);
  return recorder;
}

function transportOf(qp: QueuePair): number {
  if (qp.service === SERVICE.UC) return TRANSPORT.UC;
  return qp.service === SERVICE.XRC ? TRANSPORT.XRC : TRANSPORT.RC;
}

function addressOf(qp: QueuePair): RoceAddress {
  const { path } = qp;
  return {
    ...sourceOf(qp, ads.get(path, 'src_addr_index')),
    destinationMac: ads.get(path, 'rmac_47_32') * 2 ** 32 + ads.get(path, 'rmac_31_0'),
    destinationGid: bytesOf(ads.part(path, 'rgid_rip')),
    trafficClass: ads.get(path, 'tclass'),
    hopLimit: ads.get(path, 'hop_limit'),
    flowLabel: ads.get(path, 'flow_label'),
    sourcePort: ads.get(path, 'udp_sport') || FIRST_SOURCE_PORT | (qp.number & 0x3fff),
  };
}

function vectorAddress(qp: QueuePair, vector: AddressVector): RoceAddress {
  return {
    ...sourceOf(qp, vector.sourceGidIndex),
    destinationMac: vector.mac,
    destinationGid: vector.gid,
    trafficClass: vector.trafficClass,
    hopLimit: vector.hopLimit,
    flowLabel: vector.flowLabel,
    // On Ethernet the field of the LID holds the UDP source port.
    sourcePort: vector.lid || FIRST_SOURCE_PORT | (qp.number & 0x3fff),
  };
}

function sourceOf(qp: QueuePair, index: number): Pick<RoceAddress, 'sourceMac' | 'sourceGid' | 'version' | 'isIpv4'> {
  const source = qp.adapter.vport.gid(index);
  return {
    sourceMac: qp.adapter.vport.mac,
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
  if (opcode !== OPCODE.SEND_IMM && opcode !== OPCODE.RDMA_WRITE_IMM && opcode !== OPCODE.SEND_INVALIDATE)
    return undefined;
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
