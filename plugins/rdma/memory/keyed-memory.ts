/** What memory keys lead to: the bus, the adapter's own memory, or nothing. */
import type { Dma, MemoryRegion } from 'ghostbus';

/** Bytes on the bus, at a physical address. */
interface BusExtent {
  readonly kind: 'bus';
  readonly address: number;
  readonly lengthBytes: number;
}

/** Bytes of the adapter's own memory; `address` counts in BAR 0. */
interface DeviceExtent {
  readonly kind: 'device';
  readonly address: number;
  readonly lengthBytes: number;
}

/** Bytes that are nowhere: reads give zero, writes vanish. */
interface NullExtent {
  readonly kind: 'nothing';
  readonly lengthBytes: number;
}

/** Where bytes that a key names are. */
export type Extent = BusExtent | DeviceExtent | NullExtent;

/** Every method throws DmaError where the bus does. `offset` counts from the start of the extent. */
export class KeyedMemory {
  readonly #bus: Dma;
  readonly #device: MemoryRegion;

  constructor(bus: Dma, device: MemoryRegion) {
    this.#bus = bus;
    this.#device = device;
  }

  read(extent: Extent, offset: number, target: Uint8Array): void {
    if (extent.kind === 'nothing') target.fill(0);
    else this.#of(extent).read(extent.address + offset, target);
  }

  write(extent: Extent, offset: number, source: Uint8Array): void {
    if (extent.kind !== 'nothing') this.#of(extent).write(extent.address + offset, source);
  }

  fill(extent: Extent, offset: number, value: number, lengthBytes: number): void {
    if (extent.kind !== 'nothing') this.#of(extent).fill(extent.address + offset, value, lengthBytes);
  }

  readU64(extent: Extent): bigint {
    return extent.kind === 'nothing' ? 0n : this.#of(extent).readU64(extent.address);
  }

  writeU64(extent: Extent, value: bigint): void {
    if (extent.kind !== 'nothing') this.#of(extent).writeU64(extent.address, value);
  }

  #of(extent: BusExtent | DeviceExtent): Pick<Dma, 'read' | 'write' | 'fill' | 'readU64' | 'writeU64'> {
    return extent.kind === 'bus' ? this.#bus : this.#device;
  }
}
