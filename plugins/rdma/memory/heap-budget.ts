/** Heap that a guest may make this process hold for one adapter: page lists and translation tables. */
export class HeapBudget {
  readonly limitBytes: number;
  #usedBytes = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** False, and nothing taken, when that is too much. */
  take(sizeBytes: number): boolean {
    if (this.#usedBytes + sizeBytes > this.limitBytes) return false;
    this.#usedBytes += sizeBytes;
    return true;
  }

  give(sizeBytes: number): void {
    this.#usedBytes -= sizeBytes;
  }
}
