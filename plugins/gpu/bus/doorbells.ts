import type { RegisterHandler } from 'ghostbus';

/** BAR2: 2 MiB of doorbells (amdgpu_doorbell_mgr.c amdgpu_doorbell_init takes the size of resource 2). */
export const DOORBELL_BYTES = 2 * 1024 * 1024;

/** Called with the low and high half of what the doorbell now holds. Must return at once. */
type DoorbellAction = (low: number, high: number) => void;

/**
 * Doorbells. A doorbell is a pair of dwords; its owner names it by the dword index of the lower one (assignment * 2,
 * see amdgpu_doorbell.h). Whoever writes, the guest's CPU or a peer's DMA, rings the same way. A 64-bit doorbell that
 * arrives as two 32-bit writes rings with each half; ring sizes are powers of two, so that the low half alone places
 * the pointer.
 */
export class Doorbells implements RegisterHandler {
  readonly #values = new Map<number, number>();
  /** By dword index. While the driver programs an engine its doorbell may lie on another's for a moment. */
  readonly #claims = new Map<number, Map<object, DoorbellAction>>();
  readonly #indexOf = new Map<object, number>();
  #rings = 0;
  readonly #unclaimed = new Map<number, number>();

  /** Gives the doorbell at a dword index to `owner`, or takes it away with undefined. An owner has one doorbell. */
  claim(owner: object, dwordIndex: number | undefined, action: DoorbellAction): void {
    const previous = this.#indexOf.get(owner);
    if (previous !== undefined) this.#release(owner, previous);
    if (dwordIndex === undefined) return;
    const index = dwordIndex & ~1;
    this.#indexOf.set(owner, index);
    const claims = this.#claims.get(index) ?? new Map<object, DoorbellAction>();
    this.#claims.set(index, claims.set(owner, action));
  }

  #release(owner: object, index: number): void {
    this.#indexOf.delete(owner);
    const claims = this.#claims.get(index);
    claims?.delete(owner);
    if (claims?.size === 0) this.#claims.delete(index);
  }

  read(offset: number): number {
    return this.#values.get(offset >>> 2) ?? 0;
  }

  read64(offset: number): bigint {
    return BigInt(this.read(offset)) | (BigInt(this.read(offset + 4)) << 32n);
  }

  write(offset: number, sizeBytes: number, value: number): void {
    // Narrower writes carry no pointer (SDMA reports "Doorbell BE invalid"); hardware ignores them.
    if (sizeBytes !== 4) return;
    this.#values.set(offset >>> 2, value >>> 0);
    this.#ring(offset >>> 2);
  }

  write64(offset: number, value: bigint): void {
    this.#values.set(offset >>> 2, Number(value & 0xffff_ffffn));
    this.#values.set((offset >>> 2) + 1, Number((value >> 32n) & 0xffff_ffffn));
    this.#ring(offset >>> 2);
  }

  #ring(dword: number): void {
    const index = dword & ~1;
    const claims = this.#claims.get(index);
    if (claims === undefined) {
      this.#unclaimed.set(index, (this.#unclaimed.get(index) ?? 0) + 1);
      return;
    }
    this.#rings++;
    for (const action of claims.values()) action(this.#values.get(index) ?? 0, this.#values.get(index + 1) ?? 0);
  }

  inspect(): unknown {
    return {
      rings: this.#rings,
      claimed: [...this.#claims.keys()].sort((left, right) => left - right),
      unclaimed: [...this.#unclaimed].map(([index, writes]) => ({ index, writes })),
    };
  }
}
