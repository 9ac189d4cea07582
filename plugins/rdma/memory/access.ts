/** What a queue asks of a memory key, and how it may be refused. */

/** Keys that exist without being created; QUERY_SPECIAL_CONTEXTS tells them to the driver. */
export const SPECIAL_KEY = {
  /** Ends a scatter list. */
  TERMINATE: 0x100,
  /** Reads as zero, swallows writes; in the table of another key: a page that is not there yet. */
  NULL: 0x200,
  /** All memory, for queue pairs of the kernel that say `rlky`. */
  RESERVED_LOCAL: 0x300,
} as const;

export type Right = 'local-read' | 'local-write' | 'remote-read' | 'remote-write' | 'remote-atomic';

/** Who asks: rights of a key depend on it. */
export interface KeyUser {
  readonly number: number;
  readonly protectionDomain: number;
  /** May use {@link SPECIAL_KEY.RESERVED_LOCAL}. */
  readonly usesReservedKey: boolean;
}

export interface Access {
  readonly key: number;
  readonly address: bigint;
  readonly lengthBytes: number;
  readonly right: Right;
}

export function isWrite(right: Right): boolean {
  return right === 'local-write' || right === 'remote-write' || right === 'remote-atomic';
}

/** The key does not permit the access; `reason` is for logs. */
export class AccessRefused extends Error {
  readonly access: Access;

  constructor(access: Access, reason: string) {
    const { right, lengthBytes, address, key } = access;
    super(`${right} of ${lengthBytes} bytes at 0x${address.toString(16)} by key 0x${key.toString(16)}: ${reason}`);
    this.name = 'AccessRefused';
    this.access = access;
  }
}

/** A page is not there: the driver must bring it and resume. `key` and `address` are what the event reports. */
export class PageMissing extends Error {
  readonly key: number;
  readonly address: bigint;
  readonly lengthBytes: number;

  constructor(key: number, address: bigint, lengthBytes: number) {
    super(`page fault of key 0x${key.toString(16)} at 0x${address.toString(16)}, ${lengthBytes} bytes`);
    this.name = 'PageMissing';
    this.key = key;
    this.address = address;
    this.lengthBytes = lengthBytes;
  }
}
