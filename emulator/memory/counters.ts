/** What one function moved to or from one target. */
export interface TransferCounters {
  /** Bytes of memory; register accesses are counted apart. */
  bytesRead: number;
  bytesWritten: number;
  /** Register accesses: writes that landed in a peer's trapped page (doorbells), and reads from one. */
  registerWrites: number;
  registerReads: number;
}

/** Everything the fabric counts for one requester. Keys of `peers` are function names, the requester's own included. */
export interface FunctionCounters {
  guestMemory: TransferCounters;
  messages: TransferCounters;
  /** Only targets that were reached. */
  peers: Record<string, TransferCounters>;
  interrupts: Record<number, number>;
  /** Requests nobody claimed, or that Bus Master Enable or a mapping's protection stopped. */
  failedRequests: number;
}

export function emptyTransferCounters(): TransferCounters {
  return { bytesRead: 0, bytesWritten: 0, registerWrites: 0, registerReads: 0 };
}

export function emptyFunctionCounters(): FunctionCounters {
  return {
    guestMemory: emptyTransferCounters(),
    messages: emptyTransferCounters(),
    peers: {},
    interrupts: {},
    failedRequests: 0,
  };
}
