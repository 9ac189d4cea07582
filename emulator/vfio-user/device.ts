/**
 * What the vfio-user server serves: one function in the terms of the protocol, nothing about its model.
 * The server checks everything that can be checked from these declarations (indices, ranges, counts); the
 * device checks the rest and reports a refusal by throwing {@link SystemError}-like errors with an
 * `errno`, which the server sends as the error reply.
 */

import type { DmaMessageChannel } from '../memory/dma-messages.js';
import type { DmaMapRequest } from '../memory/dma-space.js';

/** Index of a region (linux/vfio.h VFIO_PCI_*_REGION_INDEX). */
export const REGION = { BAR0: 0, ROM: 6, CONFIG: 7, VGA: 8, COUNT: 9 } as const;

/** Index of an interrupt kind (linux/vfio.h VFIO_PCI_*_IRQ_INDEX). */
export const IRQ = { INTX: 0, MSI: 1, MSIX: 2, ERR: 3, REQ: 4, COUNT: 5 } as const;

export interface MappableArea {
  /** From the start of the region; a multiple of 4 KiB, as is `sizeBytes`. */
  readonly offset: number;
  readonly sizeBytes: number;
}

export interface RegionInfo {
  /** 0: the region does not exist. */
  readonly sizeBytes: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** The part of the region that the client may map: sorted, disjoint areas of one file. */
  readonly mappable?: {
    readonly fd: number;
    /** Offset inside the file that corresponds to region offset 0. */
    readonly fdOffset: number;
    /** True: the whole region is one area and no sparse-mmap capability is needed. */
    readonly areas: readonly MappableArea[];
  };
}

export interface IrqInfo {
  readonly count: number;
  readonly maskable: boolean;
  readonly autoMasked: boolean;
}

export interface VfioDevice {
  readonly name: string;
  /** {@link REGION}.COUNT entries. */
  readonly regions: readonly RegionInfo[];
  /** {@link IRQ}.COUNT entries. */
  readonly irqs: readonly IrqInfo[];
  /** Fills `target` from the region. Range already checked. Mappable areas are read from their memory. */
  regionRead(region: number, offset: number, target: Uint8Array): void;
  regionWrite(region: number, offset: number, source: Uint8Array): void;
  /** DEVICE_RESET. Event file descriptors stay. */
  reset(): void;
  /**
   * Takes ownership of `fd` (closes it when it is not needed, also when it throws).
   * Errors: EINVAL overlap or unmappable alignment or file too short, ENOSPC size over 8 TiB, mmap's own errno.
   */
  dmaMap(request: DmaMapRequest, fd: number | undefined): void;
  /**
   * Errors: ENOENT unless maps fill some of this range and none reaches beyond it. After it
   * returns, the function never touches the range.
   */
  dmaUnmap(address: number, sizeBytes: number): void;
  dmaUnmapAll(): void;
  /** Assigns event file descriptors from vector `start` on and takes ownership; undefined de-assigns that vector. */
  setEventfds(irq: number, start: number, fds: readonly (number | undefined)[]): void;
  /** Fires vectors as if the device had (SET_IRQS TRIGGER with DATA_NONE or DATA_BOOL). */
  triggerVectors(irq: number, start: number, fire: readonly boolean[]): void;
  maskVectors(irq: number, start: number, masked: readonly (boolean | undefined)[]): void;
  /** An eventfd that, when readable, means UNMASK of INTx (SET_IRQS EVENTFD|UNMASK); ownership passes. */
  setUnmaskEventfd(irq: number, fd: number | undefined): void;
  /** SET_IRQS NONE|TRIGGER with count 0: the index is switched off, its eventfds are closed. */
  disableIrqs(irq: number): void;
  /** A client negotiated: messages can be sent to it. */
  clientConnected(channel: DmaMessageChannel): void;
  /** The client is gone: DMA maps and eventfds are dropped, device state stays. */
  clientDisconnected(): void;
}
