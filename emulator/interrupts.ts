import { closeFd, signalEventfd } from './host/index.js';
import type { InterruptCapability } from './pci/capability.js';
import { IRQ, type IrqInfo } from './vfio-user/device.js';

/** How often each vector fired, and how often nobody listened. */
export interface InterruptCounters {
  readonly fired: Record<number, number>;
  /** Fired while the guest had no eventfd for the vector. */
  readonly dropped: number;
}

/**
 * The interrupt vectors of one function: one eventfd per vector that QEMU has assigned. Masks of MSI and MSI-X live in QEMU
 * (reference vfio-user.md §2.8); a masked vector's eventfd is one that QEMU latches as pending.
 */
export class InterruptLines {
  readonly irqs: readonly IrqInfo[];
  readonly #eventfds: (number | undefined)[][];
  readonly #masked: boolean[][];
  readonly #index: number | undefined;
  readonly #fired = new Map<number, number>();
  #dropped = 0;

  /** `capability`: the function's MSI or MSI-X capability; without one it has no vectors. */
  constructor(capability: InterruptCapability | undefined) {
    const counts = new Array<number>(IRQ.COUNT).fill(0);
    this.#index = capability === undefined ? undefined : capability.kind === 'msix' ? IRQ.MSIX : IRQ.MSI;
    if (capability !== undefined) counts[capability.kind === 'msix' ? IRQ.MSIX : IRQ.MSI] = capability.vectors;
    // QEMU warns unless the error interrupt has exactly one vector; it is never fired: that would stop the machine (§2.10).
    counts[IRQ.ERR] = 1;
    this.irqs = counts.map((count, index) => ({ count, maskable: index === IRQ.INTX, autoMasked: index === IRQ.INTX }));
    this.#eventfds = counts.map((count) => new Array<number | undefined>(count).fill(undefined));
    this.#masked = counts.map((count) => new Array<boolean>(count).fill(false));
  }

  /** Number of vectors that device code can fire. */
  get vectors(): number {
    return this.#index === undefined ? 0 : this.#eventfds[this.#index]!.length;
  }

  /** Fires a vector of the function's MSI or MSI-X capability. */
  fire(vector: number): void {
    if (!Number.isInteger(vector) || vector < 0 || vector >= this.vectors) {
      throw new RangeError(`interrupt vector ${vector} does not exist: the function has ${this.vectors}`);
    }
    this.#signal(this.#index!, vector);
  }

  assign(irq: number, start: number, fds: readonly (number | undefined)[]): void {
    const slots = this.#eventfds[irq]!;
    fds.forEach((fd, position) => {
      const old = slots[start + position];
      if (old !== undefined) closeFd(old);
      slots[start + position] = fd;
    });
  }

  trigger(irq: number, start: number, fire: readonly boolean[]): void {
    fire.forEach((wanted, position) => {
      if (wanted) this.#signal(irq, start + position);
    });
  }

  mask(irq: number, start: number, masked: readonly (boolean | undefined)[]): void {
    masked.forEach((value, position) => {
      if (value !== undefined) this.#masked[irq]![start + position] = value;
    });
  }

  isMasked(irq: number, vector: number): boolean {
    return this.#masked[irq]?.[vector] ?? false;
  }

  disable(irq: number): void {
    this.assign(irq, 0, new Array<undefined>(this.#eventfds[irq]!.length).fill(undefined));
    this.#masked[irq]!.fill(false);
  }

  /** Closes every eventfd: the client is gone. */
  disableAll(): void {
    for (let irq = 0; irq < IRQ.COUNT; irq++) this.disable(irq);
  }

  resetCounters(): void {
    this.#fired.clear();
    this.#dropped = 0;
  }

  counters(): InterruptCounters {
    return { fired: Object.fromEntries(this.#fired), dropped: this.#dropped };
  }

  #signal(irq: number, vector: number): void {
    const fd = this.#eventfds[irq]![vector];
    if (fd === undefined) {
      this.#dropped++;
      return;
    }
    signalEventfd(fd);
    if (irq === this.#index) this.#fired.set(vector, (this.#fired.get(vector) ?? 0) + 1);
  }
}
