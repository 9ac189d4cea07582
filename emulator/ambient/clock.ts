/** Time as the function sees it. Tests own it; under a guest it is the host's monotonic clock. */
export interface Clock {
  /** Nanoseconds since an arbitrary start, monotonic. */
  nowNs(): bigint;
  /** Runs `callback` once on the bus thread, not before `delayMs` from now. A reset of the function cancels it. */
  after(delayMs: number, callback: () => void): Timer;
}

export interface Timer {
  cancel(): void;
}
