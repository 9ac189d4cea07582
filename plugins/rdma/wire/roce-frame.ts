/**
 * RoCE frames as they would be on a cable: built only when somebody captures them. Source: IB volume 1 §5.2, §9,
 * annexes A16 and A17.
 */
import { crc32 } from 'node:zlib';
import { internetChecksum } from '../ethernet/checksum.js';
import { ROCE_UDP_PORT } from '../firmware/capabilities.js';

const ETHERTYPE = { IPV4: 0x0800, IPV6: 0x86dd, ROCE_V1: 0x8915 } as const;
const PROTOCOL_UDP = 17;
const NEXT_HEADER_IBA = 0x1b;
const BTH_BYTES = 12;
const ICRC_BYTES = 4;
const UDP_BYTES = 8;
const DEFAULT_PKEY = 0xffff;

/** BTH opcodes without the transport's prefix (IB volume 1 table 38). */
export const BTH_OPCODE = {
  SEND_FIRST: 0x00,
  SEND_MIDDLE: 0x01,
  SEND_LAST: 0x02,
  SEND_LAST_IMM: 0x03,
  SEND_ONLY: 0x04,
  SEND_ONLY_IMM: 0x05,
  WRITE_FIRST: 0x06,
  WRITE_MIDDLE: 0x07,
  WRITE_LAST: 0x08,
  WRITE_LAST_IMM: 0x09,
  WRITE_ONLY: 0x0a,
  WRITE_ONLY_IMM: 0x0b,
  READ_REQUEST: 0x0c,
  READ_FIRST: 0x0d,
  READ_MIDDLE: 0x0e,
  READ_LAST: 0x0f,
  READ_ONLY: 0x10,
  ACKNOWLEDGE: 0x11,
  ATOMIC_ACKNOWLEDGE: 0x12,
  COMPARE_SWAP: 0x13,
  FETCH_ADD: 0x14,
  SEND_LAST_INVALIDATE: 0x16,
  SEND_ONLY_INVALIDATE: 0x17,
} as const;
/** Bits 7:5 of the opcode. */
export const TRANSPORT = { RC: 0x00, UC: 0x20, UD: 0x60, XRC: 0xa0 } as const;

export interface RoceAddress {
  readonly sourceMac: number;
  readonly destinationMac: number;
  readonly sourceGid: Uint8Array;
  readonly destinationGid: Uint8Array;
  readonly version: 1 | 2;
  readonly isIpv4: boolean;
  readonly trafficClass: number;
  readonly hopLimit: number;
  readonly flowLabel: number;
  readonly sourcePort: number;
}

interface RocePacket {
  readonly opcode: number;
  readonly queuePair: number;
  readonly psn: number;
  readonly solicited: boolean;
  readonly acknowledgeRequest: boolean;
  /** Extended headers, in order. */
  readonly headers: Uint8Array;
  readonly payload: Uint8Array;
}

export function buildRoceFrame(address: RoceAddress, packet: RocePacket): Uint8Array {
  const pad = (4 - (packet.payload.length % 4)) % 4;
  const transport = new Uint8Array(BTH_BYTES + packet.headers.length + packet.payload.length + pad);
  const bth = new DataView(transport.buffer);
  bth.setUint8(0, packet.opcode);
  bth.setUint8(1, (packet.solicited ? 0x80 : 0) | 0x40 | (pad << 4));
  bth.setUint16(2, DEFAULT_PKEY);
  bth.setUint32(4, packet.queuePair);
  bth.setUint32(8, ((packet.acknowledgeRequest ? 0x80000000 : 0) | (packet.psn & 0xffffff)) >>> 0);
  transport.set(packet.headers, BTH_BYTES);
  transport.set(packet.payload, BTH_BYTES + packet.headers.length);
  const network = networkHeaders(address, transport.length + ICRC_BYTES);
  const frame = new Uint8Array(network.length + transport.length + ICRC_BYTES);
  frame.set(network);
  frame.set(transport, network.length);
  new DataView(frame.buffer).setUint32(frame.length - ICRC_BYTES, invariantCrc(frame, address, network.length), true);
  return frame;
}

function networkHeaders(address: RoceAddress, transportBytes: number): Uint8Array {
  const ipBytes = address.version === 2 && address.isIpv4 ? 20 : 40;
  const udpBytes = address.version === 2 ? UDP_BYTES : 0;
  const bytes = new Uint8Array(14 + ipBytes + udpBytes);
  const view = new DataView(bytes.buffer);
  setMac(view, 0, address.destinationMac);
  setMac(view, 6, address.sourceMac);
  const isIpv4 = ipBytes === 20;
  view.setUint16(12, address.version === 1 ? ETHERTYPE.ROCE_V1 : isIpv4 ? ETHERTYPE.IPV4 : ETHERTYPE.IPV6);
  if (isIpv4) fillIpv4(bytes, view, address, transportBytes + udpBytes);
  else fillIpv6(bytes, view, address, transportBytes + udpBytes);
  if (udpBytes > 0) {
    view.setUint16(14 + ipBytes, address.sourcePort);
    view.setUint16(14 + ipBytes + 2, ROCE_UDP_PORT);
    view.setUint16(14 + ipBytes + 4, transportBytes + UDP_BYTES);
  }
  return bytes;
}

function fillIpv4(bytes: Uint8Array, view: DataView, address: RoceAddress, payloadBytes: number): void {
  view.setUint8(14, 0x45);
  view.setUint8(15, address.trafficClass);
  view.setUint16(16, 20 + payloadBytes);
  view.setUint16(20, 0x4000);
  view.setUint8(22, address.hopLimit);
  view.setUint8(23, PROTOCOL_UDP);
  bytes.set(address.sourceGid.subarray(12), 26);
  bytes.set(address.destinationGid.subarray(12), 30);
  view.setUint16(24, internetChecksum(bytes.subarray(14, 34)));
}

function fillIpv6(bytes: Uint8Array, view: DataView, address: RoceAddress, payloadBytes: number): void {
  view.setUint32(14, ((6 << 28) | (address.trafficClass << 20) | address.flowLabel) >>> 0);
  view.setUint16(18, payloadBytes);
  view.setUint8(20, address.version === 1 ? NEXT_HEADER_IBA : PROTOCOL_UDP);
  view.setUint8(21, address.hopLimit);
  bytes.set(address.sourceGid, 22);
  bytes.set(address.destinationGid, 38);
}

/**
 * CRC over everything that no router changes: fields that may change count as ones (annex A17.3.3; IB volume 1 §7.8.1).
 */
function invariantCrc(frame: Uint8Array, address: RoceAddress, transportStart: number): number {
  const covered = new Uint8Array(8 + frame.length - 14 - ICRC_BYTES);
  covered.fill(0xff, 0, 8);
  covered.set(frame.subarray(14, frame.length - ICRC_BYTES), 8);
  const isIpv4 = address.version === 2 && address.isIpv4;
  if (isIpv4) {
    for (const offset of [1, 8, 10, 11]) covered[8 + offset] = 0xff;
  } else {
    covered[8] = covered[8]! | 0x0f;
    for (const offset of [1, 2, 3, 7]) covered[8 + offset] = 0xff;
  }
  const transport = 8 + transportStart - 14;
  if (address.version === 2) covered.fill(0xff, transport - 2, transport);
  covered[transport + 4] = 0xff;
  return crc32(covered) >>> 0;
}

function setMac(view: DataView, offset: number, mac: number): void {
  view.setUint16(offset, Math.floor(mac / 2 ** 32));
  view.setUint32(offset + 2, mac % 2 ** 32);
}
