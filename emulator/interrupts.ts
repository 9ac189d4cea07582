import { closeFd, signalEventfd } from './host/index.js';
import type { InterruptCapability } from './pci/capability.js';
import { IRQ, type IrqInfo } from './vfio-user/device.js';

/**
 * The interrupt vectors of one function: one eventfd per vector that QEMU has assigned. Masks of MSI and MSI-X live in
 * QEMU (vfio-user.md §2.8); a masked vector's eventfd is one that QEMU latches as pending.
 */
export class InterruptLines {
  readonly irqs: readonly IrqInfo[];
  /** Number of vectors that device code can fire. */
  readonly vectors: number;
  readonly #eventfds: (number | undefined)[][];

  /** The function's MSI and MSI-X capabilities; without any it has no vectors. */
  constructor(capabilities: readonly InterruptCapability[]) {
    const counts = new Array<number>(IRQ.COUNT).fill(0);
    for (const { kind, vectors } of capabilities) counts[kind === 'msix' ? IRQ.MSIX : IRQ.MSI] = vectors;
    this.vectors = Math.max(counts[IRQ.MSI]!, counts[IRQ.MSIX]!);
    // QEMU warns unless the error interrupt has exactly one vector, and stops the machine when it
    // fires (vfio-user.md §2.10).
    counts[IRQ.ERR] = 1;
    this.irqs = counts.map((count) => ({ count, maskable: false, autoMasked: false }));
    this.#eventfds = counts.map((count) => new Array<number | undefined>(count).fill(undefined));
  }

  /**
   * Fires a vector of whichever of MSI-X and MSI the guest has enabled; false when it has no eventfd for it.
   * Throws RangeError when there is no such vector.
   */
  fire(vector: number): boolean {
    if (!Number.isInteger(vector) || vector < 0 || vector >= this.vectors) {
      throw new RangeError(`interrupt vector ${vector} does not exist: the function has ${this.vectors}`);
    }
    return this.#signal(IRQ.MSIX, vector) || this.#signal(IRQ.MSI, vector);
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

  disable(irq: number): void {
    this.assign(irq, 0, new Array<undefined>(this.#eventfds[irq]!.length).fill(undefined));
  }

  /** Closes every eventfd: the client is gone. */
  disableAll(): void {
    for (let irq = 0; irq < IRQ.COUNT; irq++) this.disable(irq);
  }

  #signal(irq: number, vector: number): boolean {
    const fd = this.#eventfds[irq]![vector];
    if (fd === undefined) return false;
    signalEventfd(fd);
    return true;
  }
}
