/** Ethernet frames: headers, checksums, segmentation, the hash that spreads flows. */

import { fteMatchSetLyr24 } from '../layouts/contexts.js';
import { internetChecksum, onesComplementSum } from './checksum.js';
import { MATCH_BYTES } from './steering.js';

export const ETHERNET_HEADER_BYTES = 14;
const VLAN_TAG_BYTES = 4;
/** IEEE 802 numbers. */
const ETHERTYPE = { IPV4: 0x0800, IPV6: 0x86dd, VLAN: 0x8100 } as const;
/** IANA protocol numbers. */
export const PROTOCOL = { TCP: 6, UDP: 17 } as const;
const IPV6_HEADER_BYTES = 40;
const MIN_IPV4_HEADER_BYTES = 20;
const TCP_CHECKSUM_OFFSET = 16;
const UDP_CHECKSUM_OFFSET = 6;

/** Where the headers of a frame are; offsets are undefined when the frame has no such header. */
export interface FrameHeaders {
  readonly ethertype: number;
  readonly vlan: number | undefined;
  readonly ipVersion: 0 | 4 | 6;
  readonly ipOffset: number;
  readonly protocol: number;
  readonly isFragment: boolean;
  /** Of TCP or UDP; undefined otherwise, in later fragments and in truncated frames. */
  readonly l4Offset: number | undefined;
}

export function parseFrame(frame: Uint8Array): FrameHeaders {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  let ethertype = view.getUint16(12);
  let offset = ETHERNET_HEADER_BYTES;
  let vlan: number | undefined;
  if (ethertype === ETHERTYPE.VLAN && frame.length >= offset + VLAN_TAG_BYTES) {
    vlan = view.getUint16(14);
    ethertype = view.getUint16(16);
    offset += VLAN_TAG_BYTES;
  }
  const none = {
    ethertype,
    vlan,
    ipVersion: 0,
    ipOffset: offset,
    protocol: 0,
    isFragment: false,
    l4Offset: undefined,
  } as const;
  if (ethertype === ETHERTYPE.IPV4 && frame.length >= offset + MIN_IPV4_HEADER_BYTES) {
    const headerBytes = (view.getUint8(offset) & 0xf) * 4;
    const protocol = view.getUint8(offset + 9);
    const fragment = view.getUint16(offset + 6) & 0x3fff;
    const l4Offset = fragment === 0 ? l4At(frame, offset + headerBytes, protocol) : undefined;
    return { ethertype, vlan, ipVersion: 4, ipOffset: offset, protocol, isFragment: fragment !== 0, l4Offset };
  }
  if (ethertype === ETHERTYPE.IPV6 && frame.length >= offset + IPV6_HEADER_BYTES) {
    const protocol = view.getUint8(offset + 6);
    const l4Offset = l4At(frame, offset + IPV6_HEADER_BYTES, protocol);
    return { ethertype, vlan, ipVersion: 6, ipOffset: offset, protocol, isFragment: false, l4Offset };
  }
  return none;
}

function l4At(frame: Uint8Array, offset: number, protocol: number): number | undefined {
  const needed = protocol === PROTOCOL.TCP ? 20 : protocol === PROTOCOL.UDP ? 8 : Number.POSITIVE_INFINITY;
  return offset + needed <= frame.length ? offset : undefined;
}

export function destinationMac(frame: Uint8Array): number {
  const view = new DataView(frame.buffer, frame.byteOffset);
  return view.getUint16(0) * 2 ** 32 + view.getUint32(2);
}

/** A frame's headers as fte_match_param; what it lacks is zero. */
export function matchValueOf(frame: Uint8Array, headers: FrameHeaders): Uint8Array {
  const match = new Uint8Array(MATCH_BYTES);
  const view = new DataView(match.buffer);
  const from = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  fteMatchSetLyr24.fill(view, {
    dmac_47_16: from.getUint32(0),
    dmac_15_0: from.getUint16(4),
    smac_47_16: from.getUint32(6),
    smac_15_0: from.getUint16(10),
    ethertype: headers.ethertype,
    ip_version: headers.ipVersion,
    ip_protocol: headers.protocol,
    frag: headers.isFragment ? 1 : 0,
  });
  if (headers.vlan !== undefined) {
    fteMatchSetLyr24.fill(view, {
      cvlan_tag: 1,
      first_vid: headers.vlan & 0xfff,
      first_cfi: (headers.vlan >>> 12) & 1,
      first_prio: headers.vlan >>> 13,
    });
  }
  fillIp(match, view, frame, from, headers);
  if (headers.l4Offset !== undefined) fillL4(view, from, headers.protocol, headers.l4Offset);
  return match;
}

function fillIp(match: Uint8Array, view: DataView, frame: Uint8Array, from: DataView, headers: FrameHeaders): void {
  const { ipOffset } = headers;
  const source = fteMatchSetLyr24.byteOf('src_ipv4_src_ipv6');
  const destination = fteMatchSetLyr24.byteOf('dst_ipv4_dst_ipv6');
  if (headers.ipVersion === 4) {
    // An IPv4 address is the last dword of the 16 bytes.
    match.set(frame.subarray(ipOffset + 12, ipOffset + 16), source + 12);
    match.set(frame.subarray(ipOffset + 16, ipOffset + 20), destination + 12);
    const serviceType = from.getUint8(ipOffset + 1);
    fteMatchSetLyr24.fill(view, {
      ip_dscp: serviceType >>> 2,
      ip_ecn: serviceType & 3,
      ttl_hoplimit: from.getUint8(ipOffset + 8),
      ipv4_ihl: from.getUint8(ipOffset) & 0xf,
    });
  } else if (headers.ipVersion === 6) {
    match.set(frame.subarray(ipOffset + 8, ipOffset + 24), source);
    match.set(frame.subarray(ipOffset + 24, ipOffset + 40), destination);
    const trafficClass = (from.getUint16(ipOffset) >>> 4) & 0xff;
    fteMatchSetLyr24.fill(view, {
      ip_dscp: trafficClass >>> 2,
      ip_ecn: trafficClass & 3,
      ttl_hoplimit: from.getUint8(ipOffset + 7),
    });
  }
}

function fillL4(view: DataView, from: DataView, protocol: number, offset: number): void {
  const [source, destination] = [from.getUint16(offset), from.getUint16(offset + 2)];
  if (protocol === PROTOCOL.TCP) {
    const flags = from.getUint16(offset + 12) & 0x1ff;
    fteMatchSetLyr24.fill(view, { tcp_sport: source, tcp_dport: destination, tcp_flags: flags });
  } else {
    fteMatchSetLyr24.fill(view, { udp_sport: source, udp_dport: destination });
  }
}

/** What a receiver reports: the sum over everything behind the Ethernet header. */
export function receiveChecksum(frame: Uint8Array): number {
  return onesComplementSum(frame.subarray(ETHERNET_HEADER_BYTES));
}

/** Fills in the checksums that the driver left to the adapter. */
export function completeChecksums(frame: Uint8Array, want: { readonly l3: boolean; readonly l4: boolean }): void {
  const headers = parseFrame(frame);
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (want.l3 && headers.ipVersion === 4) {
    view.setUint16(headers.ipOffset + 10, 0);
    const headerBytes = (view.getUint8(headers.ipOffset) & 0xf) * 4;
    const header = frame.subarray(headers.ipOffset, headers.ipOffset + headerBytes);
    view.setUint16(headers.ipOffset + 10, internetChecksum(header));
  }
  if (!want.l4 || headers.l4Offset === undefined) return;
  const at = headers.l4Offset + (headers.protocol === PROTOCOL.TCP ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET);
  view.setUint16(at, 0);
  const segment = frame.subarray(headers.l4Offset, ipEnd(view, headers, frame.length));
  const sum = internetChecksum(segment, pseudoHeaderSum(frame, headers, segment.length));
  // RFC 768: zero would mean that there is no checksum.
  view.setUint16(at, sum === 0 && headers.protocol === PROTOCOL.UDP ? 0xffff : sum);
}

function ipEnd(view: DataView, { ipVersion, ipOffset }: FrameHeaders, frameBytes: number): number {
  const end =
    ipVersion === 4
      ? ipOffset + view.getUint16(ipOffset + 2)
      : ipOffset + IPV6_HEADER_BYTES + view.getUint16(ipOffset + 4);
  return Math.min(end, frameBytes);
}

function pseudoHeaderSum(
  frame: Uint8Array,
  { ipVersion, ipOffset, protocol }: FrameHeaders,
  lengthBytes: number,
): number {
  const addresses =
    ipVersion === 4 ? frame.subarray(ipOffset + 12, ipOffset + 20) : frame.subarray(ipOffset + 8, ipOffset + 40);
  return onesComplementSum(addresses) + protocol + lengthBytes;
}

/**
 * Cuts a large send into frames of `segmentBytes` of payload each. `headerBytes`: everything that repeats. Frames come
 * with lengths, sequence numbers and flags of their own; their checksums are still to be made.
 */
export function* segment(large: Uint8Array, headerBytes: number, segmentBytes: number): Generator<Uint8Array> {
  const headers = parseFrame(large.subarray(0, headerBytes));
  const payload = large.subarray(headerBytes);
  for (let done = 0, count = 0; done < payload.length; done += segmentBytes, count++) {
    const part = payload.subarray(done, done + segmentBytes);
    const frame = new Uint8Array(headerBytes + part.length);
    frame.set(large.subarray(0, headerBytes));
    frame.set(part, headerBytes);
    adjustHeaders(frame, headers, done, count, done + part.length >= payload.length);
    yield frame;
  }
}

/** TCP flags that only the last segment carries (FIN, PSH), and the one that only the first does (CWR). */
const LAST_ONLY = 0x09;
const FIRST_ONLY = 0x80;

function adjustHeaders(frame: Uint8Array, headers: FrameHeaders, done: number, count: number, isLast: boolean): void {
  const view = new DataView(frame.buffer);
  const { ipOffset, l4Offset } = headers;
  if (headers.ipVersion === 4) {
    view.setUint16(ipOffset + 2, frame.length - ipOffset);
    view.setUint16(ipOffset + 4, view.getUint16(ipOffset + 4) + count);
  } else if (headers.ipVersion === 6) {
    view.setUint16(ipOffset + 4, frame.length - ipOffset - IPV6_HEADER_BYTES);
  }
  if (l4Offset === undefined) return;
  if (headers.protocol === PROTOCOL.UDP) {
    view.setUint16(l4Offset + 4, frame.length - l4Offset);
    return;
  }
  view.setUint32(l4Offset + 4, view.getUint32(l4Offset + 4) + done);
  const flags = view.getUint8(l4Offset + 13);
  view.setUint8(l4Offset + 13, flags & ~(isLast ? 0 : LAST_ONLY) & ~(count === 0 ? 0 : FIRST_ONLY));
}

/** Addresses, and ports if asked, in the order in which the receive hash takes them (Microsoft RSS specification). */
export function hashInput(frame: Uint8Array, headers: FrameHeaders, withPorts: boolean): Uint8Array {
  const { ipVersion, ipOffset, l4Offset } = headers;
  if (ipVersion === 0) return new Uint8Array(0);
  const addresses =
    ipVersion === 4 ? frame.subarray(ipOffset + 12, ipOffset + 20) : frame.subarray(ipOffset + 8, ipOffset + 40);
  if (!withPorts || l4Offset === undefined) return addresses;
  const input = new Uint8Array(addresses.length + 4);
  input.set(addresses);
  input.set(frame.subarray(l4Offset, l4Offset + 4), addresses.length);
  return input;
}

/** The Toeplitz hash; `key` is at least 4 bytes longer than `input`. */
export function toeplitz(key: Uint8Array, input: Uint8Array): number {
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength);
  let window = view.getUint32(0);
  let hash = 0;
  for (let at = 0; at < input.length; at++) {
    const next = key[at + 4] ?? 0;
    for (let bit = 7; bit >= 0; bit--) {
      if ((input[at]! >>> bit) & 1) hash ^= window;
      window = (window << 1) | ((next >>> bit) & 1);
    }
  }
  return hash >>> 0;
}
