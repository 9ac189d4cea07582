/** The 40 bytes before a datagram's payload: a global route header, or the IP header that stands for it on Ethernet. */
import { internetChecksum } from '../ethernet/checksum.js';
import type { AddressVector } from '../queues/work-queue-entry.js';
import type { Origin } from './sending.js';

/** Room before the payload in every receive (IB volume 1 §11.4.1.2). */
export const GRH_BYTES = 40;
/** IB volume 1 §8.3.3: next header of a transport packet; RoCEv2 annex: UDP. */
const NEXT_HEADER_IBA = 0x1b;
const PROTOCOL_UDP = 17;
const IPV4_HEADER_BYTES = 20;
/** UDP header, base and datagram transport headers, invariant CRC. */
const ROCE_V2_OVERHEAD_BYTES = 8 + 12 + 8 + 4;

/** cqe.flags_rqpn[25:24] (include/linux/mlx5/device.h `MLX5_CQE_ROCE_L3_HEADER_TYPE_*`). */
const HEADER_TYPE = { GRH: 0, IPV6: 1, IPV4: 2 } as const;

export function headerType(origin: Origin, vector: AddressVector): number {
  const source = origin.gid(vector.sourceGidIndex);
  if (origin.link === 'ib' || source === undefined || !source.isVersion2) return HEADER_TYPE.GRH;
  return source.isIpv4 ? HEADER_TYPE.IPV4 : HEADER_TYPE.IPV6;
}

export function grhBytes(origin: Origin, vector: AddressVector, payloadBytes: number): Uint8Array {
  const type = headerType(origin, vector);
  const source = origin.gid(vector.sourceGidIndex)?.gid ?? new Uint8Array(16);
  if (type === HEADER_TYPE.IPV4) return ipv4InGrh(vector, source, payloadBytes);
  const bytes = new Uint8Array(GRH_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, ((6 << 28) | (vector.trafficClass << 20) | vector.flowLabel) >>> 0);
  view.setUint16(4, payloadBytes + ROCE_V2_OVERHEAD_BYTES);
  view.setUint8(6, type === HEADER_TYPE.GRH ? NEXT_HEADER_IBA : PROTOCOL_UDP);
  view.setUint8(7, vector.hopLimit);
  bytes.set(source, 8);
  bytes.set(vector.gid, 24);
  return bytes;
}

/** The IPv4 header fills the last 20 bytes (RoCEv2 annex A17.4.5.2). */
function ipv4InGrh(vector: AddressVector, source: Uint8Array, payloadBytes: number): Uint8Array {
  const bytes = new Uint8Array(GRH_BYTES);
  const start = GRH_BYTES - IPV4_HEADER_BYTES;
  const view = new DataView(bytes.buffer, start);
  view.setUint8(0, 0x45);
  view.setUint8(1, vector.trafficClass);
  view.setUint16(2, IPV4_HEADER_BYTES + payloadBytes + ROCE_V2_OVERHEAD_BYTES);
  view.setUint16(6, 0x4000);
  view.setUint8(8, vector.hopLimit);
  view.setUint8(9, PROTOCOL_UDP);
  bytes.set(source.subarray(12, 16), start + 12);
  bytes.set(vector.gid.subarray(12, 16), start + 16);
  view.setUint16(10, internetChecksum(bytes.subarray(start)));
  return bytes;
}
