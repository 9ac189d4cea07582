/** What one function moved to or from one target. */
export interface TransferCounters {
  /** Bytes of memory; register accesses are counted apart. */
  bytesRead: number;
  bytesWritten: number;
  /** Register accesses: writes that landed in a peer's trapped page (doorbells), and reads from one. */
  registerWrites: number;
  registerReads: number;
}

/** What one function moved over its private link to another. */
export type LinkCounters = Pick<TransferCounters, 'bytesRead' | 'bytesWritten'>;

/** Everything the fabric counts for one requester. Keys of `peers` are function names, the requester's own included. */
export interface FunctionCounters {
  guestMemory: TransferCounters;
  messages: TransferCounters;
  /** Only targets that were reached. */
  peers: Record<string, TransferCounters>;
  /** What went over private links, by the other function's name: no request on the bus. Only links that were used. */
  links: Record<string, LinkCounters>;
  interrupts: Record<number, number>;
  /** Requests nobody claimed, or that Bus Master Enable or a mapping's protection stopped. */
  failedRequests: number;
}

/** Adds to the counters of the link to `name`, which exist from the first use on. */
export function countLink(
  links: Record<string, LinkCounters>,
  name: string,
  direction: 'read' | 'write',
  lengthBytes: number,
): void {
  links[name] ??= { bytesRead: 0, bytesWritten: 0 };
  if (direction === 'read') links[name].bytesRead += lengthBytes;
  else links[name].bytesWritten += lengthBytes;
}

export function emptyTransferCounters(): TransferCounters {
  return { bytesRead: 0, bytesWritten: 0, registerWrites: 0, registerReads: 0 };
}

export function emptyFunctionCounters(): FunctionCounters {
  return {
    guestMemory: emptyTransferCounters(),
    messages: emptyTransferCounters(),
    peers: {},
    links: {},
    interrupts: {},
    failedRequests: 0,
  };
}
