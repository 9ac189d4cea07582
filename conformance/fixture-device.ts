/** The function of shape.ts around the project's own configuration space and DMA space. */
import { closeFd, createMemfd, ERRNO, MappedFile, SystemError, signalEventfd } from '../emulator/host/index.js';
import type { DmaMessageChannel } from '../emulator/memory/dma-messages.js';
import { type DmaMapRequest, DmaSpace } from '../emulator/memory/dma-space.js';
import type { BarShape } from '../emulator/pci/bar.js';
import {
  deviceSerialNumber,
  msi,
  msix,
  pciExpress,
  powerManagement,
  vendorSpecific,
  vendorSpecificExtended,
} from '../emulator/pci/capabilities.js';
import { CONFIG_SPACE_BYTES, ConfigSpace } from '../emulator/pci/config-space.js';
import { IRQ, type IrqInfo, REGION, type RegionInfo, type VfioDevice } from '../emulator/vfio-user/device.js';
import {
  BAR1_BYTES,
  BAR2_AREAS,
  BAR2_BYTES,
  BAR2_FD_OFFSET,
  BAR3_AREAS,
  BAR3_BYTES,
  BAR3_FD_OFFSET,
  BAR4_BYTES,
  DMA_MAP_LIMIT,
  IDENTITY,
  MSI_VECTORS,
  MSIX_PENDING_OFFSET,
  MSIX_VECTORS,
  REFUSING_REGISTER,
  ROM_BYTE,
  ROM_BYTES,
  SERIAL_NUMBER,
  THROWING_REGISTER,
  type Variant,
  VENDOR_DATA,
} from './shape.js';

const MEMORY_BYTES = 0x20000;

export interface MaskCall {
  readonly irq: number;
  readonly start: number;
  readonly masked: readonly (boolean | undefined)[];
}

export class FixtureDevice implements VfioDevice {
  readonly name = 'fixture0';
  readonly regions: readonly RegionInfo[];
  readonly irqs: readonly IrqInfo[];
  readonly config: ConfigSpace;
  readonly dmaSpace = new DmaSpace({ mapLimit: DMA_MAP_LIMIT });
  readonly registers = new Uint8Array(BAR1_BYTES);
  readonly maskCalls: MaskCall[] = [];
  readonly memoryFd = createMemfd('fixture', MEMORY_BYTES);
  readonly memory = new MappedFile(this.memoryFd, MEMORY_BYTES, { writable: true });
  channel: DmaMessageChannel | undefined;
  unmaskFd: number | undefined;
  resets = 0;
  firedWithoutFd = 0;
  regionReads = 0;
  /** Runs inside every region read: what the model does while QEMU waits. */
  onRead: () => void = () => {};
  readonly #eventfds: (number | undefined)[][];

  constructor({ rom = false, functionLevelReset = true, largeBars = false }: Variant = {}) {
    this.regions = describeRegions(this.memoryFd, rom, largeBars);
    this.irqs = [1, 0, MSIX_VECTORS, 1, 1].map((count, index) => ({
      count,
      maskable: index === IRQ.INTX,
      autoMasked: index === IRQ.INTX,
    }));
    this.#eventfds = this.irqs.map(({ count }) => new Array<number | undefined>(count).fill(undefined));
    this.config = new ConfigSpace({
      identity: IDENTITY,
      bars: describeBars(largeBars),
      capabilities: [
        powerManagement(),
        msi({ vectors: MSI_VECTORS }),
        msix({ vectors: MSIX_VECTORS, tableBar: 4, tableOffset: 0, pendingBar: 4, pendingOffset: MSIX_PENDING_OFFSET }),
        pciExpress({ functionLevelReset }),
        vendorSpecific({ data: VENDOR_DATA }),
        deviceSerialNumber({ serialNumber: SERIAL_NUMBER }),
        vendorSpecificExtended({
          vsecId: 7,
          revision: 1,
          data: new Uint8Array(8),
          writable: new Uint8Array(8).fill(0xff),
        }),
      ],
      ...(rom && { romSizeBytes: ROM_BYTES }),
    });
  }

  regionRead(region: number, offset: number, target: Uint8Array): void {
    this.regionReads++;
    this.onRead();
    if (region === REGION.CONFIG) this.config.read(offset, target);
    else if (region === REGION.ROM) target.fill(ROM_BYTE);
    else if (region === 1) this.#readRegisters(offset, target);
    else if (region === 2 && this.regions[2]!.mappable) this.memory.read(BAR2_FD_OFFSET + offset, target);
    else if (region === 3) this.memory.read(BAR3_FD_OFFSET + offset, target);
  }

  #readRegisters(offset: number, target: Uint8Array): void {
    if (offset === THROWING_REGISTER) throw new TypeError('this register has a bug');
    if (offset === REFUSING_REGISTER) throw new SystemError('reading a register that refuses', ERRNO.EPERM);
    target.set(this.registers.subarray(offset, offset + target.length));
  }

  regionWrite(region: number, offset: number, source: Uint8Array): void {
    if (region === REGION.CONFIG) {
      const { effects } = this.config.write(offset, source);
      if (effects.includes('function-level-reset')) {
        this.config.reset('flr');
        this.resets++;
      }
    } else if (region === 1) {
      if (offset === THROWING_REGISTER) throw new TypeError('this register has a bug');
      this.registers.set(source, offset);
    } else if (region === 2 && this.regions[2]!.mappable) {
      this.memory.write(BAR2_FD_OFFSET + offset, source);
    } else if (region === 3) {
      this.memory.write(BAR3_FD_OFFSET + offset, source);
    }
  }

  reset(): void {
    this.resets++;
    this.config.reset('device');
  }

  dmaMap(request: DmaMapRequest, fd: number | undefined): void {
    this.dmaSpace.map(request, fd);
  }

  dmaUnmap(address: number, sizeBytes: number): void {
    this.dmaSpace.unmap(address, sizeBytes);
  }

  dmaUnmapAll(): void {
    this.dmaSpace.unmapAll();
  }

  hasEventfd(irq: number, vector: number): boolean {
    return this.#eventfds[irq]![vector] !== undefined;
  }

  fire(irq: number, vector: number): void {
    const fd = this.#eventfds[irq]![vector];
    if (fd === undefined) this.firedWithoutFd++;
    else signalEventfd(fd);
  }

  setEventfds(irq: number, start: number, fds: readonly (number | undefined)[]): void {
    fds.forEach((fd, i) => {
      const old = this.#eventfds[irq]![start + i];
      if (old !== undefined) closeFd(old);
      this.#eventfds[irq]![start + i] = fd;
    });
  }

  triggerVectors(irq: number, start: number, fire: readonly boolean[]): void {
    fire.forEach((wanted, i) => {
      if (wanted) this.fire(irq, start + i);
    });
  }

  maskVectors(irq: number, start: number, masked: readonly (boolean | undefined)[]): void {
    this.maskCalls.push({ irq, start, masked });
  }

  setUnmaskEventfd(_irq: number, fd: number | undefined): void {
    if (this.unmaskFd !== undefined) closeFd(this.unmaskFd);
    this.unmaskFd = fd;
  }

  disableIrqs(irq: number): void {
    this.setEventfds(irq, 0, new Array<undefined>(this.#eventfds[irq]!.length).fill(undefined));
  }

  clientConnected(channel: DmaMessageChannel): void {
    this.channel = channel;
  }

  clientDisconnected(): void {
    this.channel = undefined;
    this.dmaSpace.close();
    for (let irq = 0; irq < IRQ.COUNT; irq++) this.disableIrqs(irq);
    this.setUnmaskEventfd(IRQ.INTX, undefined);
  }

  close(): void {
    this.memory.close();
    closeFd(this.memoryFd);
  }
}

function describeRegions(fd: number, rom: boolean, largeBars: boolean): RegionInfo[] {
  const open = { readable: true, writable: true };
  const absent: RegionInfo = { sizeBytes: 0, readable: false, writable: false };
  const regions = new Array<RegionInfo>(REGION.COUNT).fill(absent);
  regions[REGION.CONFIG] = { sizeBytes: CONFIG_SPACE_BYTES, ...open };
  if (rom) regions[REGION.ROM] = { sizeBytes: ROM_BYTES, readable: true, writable: false };
  regions[1] = { sizeBytes: BAR1_BYTES, ...open };
  regions[4] = { sizeBytes: BAR4_BYTES, ...open };
  if (largeBars) {
    regions[2] = { sizeBytes: 4 * 2 ** 30, ...open };
    regions[4] = { sizeBytes: 8 * 2 ** 30, ...open };
    return regions;
  }
  regions[2] = { sizeBytes: BAR2_BYTES, ...open, mappable: { fd, fdOffset: BAR2_FD_OFFSET, areas: BAR2_AREAS } };
  regions[3] = { sizeBytes: BAR3_BYTES, ...open, mappable: { fd, fdOffset: BAR3_FD_OFFSET, areas: BAR3_AREAS } };
  return regions;
}

function describeBars(largeBars: boolean): BarShape[] {
  const small: BarShape = { index: 1, kind: 'memory32', sizeBytes: BAR1_BYTES };
  if (largeBars) {
    const large = { kind: 'memory64', prefetchable: true } as const;
    return [small, { index: 2, sizeBytes: 4 * 2 ** 30, ...large }, { index: 4, sizeBytes: 8 * 2 ** 30, ...large }];
  }
  return [
    small,
    { index: 2, kind: 'memory32', sizeBytes: BAR2_BYTES },
    { index: 3, kind: 'memory32', sizeBytes: BAR3_BYTES },
    { index: 4, kind: 'memory32', sizeBytes: BAR4_BYTES },
  ];
}
