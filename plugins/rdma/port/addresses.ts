/**
 * Names of one adapter on its networks. They are made up from the instance, and locally administered (IEEE 802 §8.2):
 * no sold adapter has them. Two functions of one machine never share one.
 */

/** `02:67:62:…`: the locally administered bit, "gb", and the instance. */
const MAC_PREFIX = 0x02_67_62;
const MAX_INSTANCE = 2 ** 24 - 1;

export const BROADCAST_MAC = 2 ** 48 - 1;

/** Whether the lowest bit of the first byte is set (IEEE 802 §8.2). */
export function isGroupMac(mac: number): boolean {
  return Math.floor(mac / 2 ** 40) % 2 === 1;
}

/** 48-bit MAC address. Throws RangeError on an instance outside 0 to 2^24 - 1. */
export function macAddress(instance: number): number {
  if (!Number.isInteger(instance) || instance < 0 || instance > MAX_INSTANCE) {
    throw new RangeError(`instance ${instance} has no MAC address; instances go from 0 to ${MAX_INSTANCE}`);
  }
  return MAC_PREFIX * 2 ** 24 + instance;
}

/** The modified EUI-64 of the MAC address (RFC 4291 appendix A, without the flip: the bit is part of the GUID). */
export function nodeGuid(instance: number): bigint {
  const mac = BigInt(macAddress(instance));
  return ((mac >> 24n) << 40n) | (0xfffen << 24n) | (mac & 0xffffffn);
}

export function formatMac(mac: number): string {
  return mac.toString(16).padStart(12, '0').match(/../g)!.join(':');
}

export function formatGuid(guid: bigint): string {
  return guid.toString(16).padStart(16, '0').match(/..../g)!.join(':');
}
