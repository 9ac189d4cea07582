import type { Bus } from './bus.js';
import { closeFd } from './host/index.js';
import { InterruptLines } from './interrupts.js';
import type { FunctionCounters } from './memory/counters.js';
import { FunctionDma } from './memory/dma.js';
import { DmaError } from './memory/dma-error.js';
import { DmaSpace } from './memory/dma-space.js';
import type { Fabric, FabricMember, FabricPort } from './memory/fabric.js';
import type { BackedMemoryRegion } from './memory/region.js';
import type { BarWindow, FabricBar } from './memory/windows.js';
import { isMemory, memoryOffsetOf } from './pci/bar.js';
import { BarDecoder } from './pci/bar-decoder.js';
import { CONFIG_SPACE_BYTES, ConfigSpace } from './pci/config-space.js';
import type { Bar, Clock, FunctionPort, Log, PcieFunction, PrivateLink, ResetKind, Timer } from './plugin/index.js';
import {
  type DmaMapRequest,
  type DmaMessageChannel,
  type IrqInfo,
  REGION,
  type RegionInfo,
  type VfioDevice,
} from './vfio-user/device.js';

const PAGE_BYTES = 4096;
/** Larger ROMs would need several messages (reference vfio-user.md §2.7). */
const MAX_ROM_BYTES = 1024 * 1024;

export interface FunctionSurroundings {
  readonly bus: Bus;
  readonly fabric: Fabric;
  readonly log: Log;
  readonly sibling: (name: string) => PcieFunction | undefined;
}

/**
 * One function as the machine sees it: configuration space, BARs, interrupts and DMA around a plugin's model. It faces the
 * vfio-user server as a {@link VfioDevice}, the fabric as a {@link FabricMember} and the model as its {@link FunctionPort}.
 *
 * A fault of the model stays inside: the function is then broken (reads give all ones, writes are dropped, no work runs)
 * until the machine resets it.
 */
export class EmulatedFunction implements VfioDevice, FabricMember {
  readonly name: string;
  readonly model: PcieFunction;
  readonly config: ConfigSpace;
  readonly dmaSpace: DmaSpace;
  readonly regions: readonly RegionInfo[];
  readonly irqs: readonly IrqInfo[];
  messages: DmaMessageChannel | undefined;
  readonly #bus: Bus;
  readonly #fabricPort: FabricPort;
  readonly #log: Log;
  readonly #bars = new Map<number, FunctionBar>();
  readonly #rom: Uint8Array;
  readonly #configRegisters: BarDecoder | undefined;
  readonly #interrupts: InterruptLines;
  #epoch = 0;
  #broken: string | undefined;
  #vanished = false;

  constructor(name: string, model: PcieFunction, surroundings: FunctionSurroundings) {
    this.name = name;
    this.model = model;
    this.#bus = surroundings.bus;
    this.#log = surroundings.log;
    this.dmaSpace = new DmaSpace({
      onShrinkableFile: () =>
        this.#log.warn(
          'guest memory is a file that can be made shorter, which would end this process; use memory-backend-memfd',
        ),
    });
    this.#rom = padRom(model.rom);
    this.config = new ConfigSpace({
      identity: model.identity,
      bars: model.bars,
      capabilities: model.capabilities,
      ...(this.#rom.length > 0 && { romSizeBytes: this.#rom.length }),
    });
    this.#configRegisters = model.configRegisters && new BarDecoder(configRegistersBar(model));
    for (const bar of model.bars) this.#bars.set(bar.index, this.#describeBar(bar));
    this.#interrupts = new InterruptLines(model.capabilities.flatMap(({ interrupts }) => interrupts ?? []));
    this.irqs = this.#interrupts.irqs;
    this.regions = describeRegions(model, this.#rom.length);
    this.#fabricPort = surroundings.fabric.join(this);
    model.attach(this.#port(surroundings.sibling));
  }

  get busMasterEnabled(): boolean {
    return !this.#vanished && this.config.busMasterEnabled;
  }

  /** Why the function is out of service, if it is. */
  get broken(): string | undefined {
    return this.#broken;
  }

  get counters(): FunctionCounters {
    return this.#fabricPort.counters;
  }

  /** Bus address of a BAR while it decodes. */
  barAddress(index: number): number | undefined {
    return this.config.barAddress(index);
  }

  // --- the vfio-user server's side

  regionRead(region: number, offset: number, target: Uint8Array): void {
    if (this.#vanished) target.fill(0xff);
    else if (region === REGION.CONFIG) this.#readConfig(offset, target);
    else if (region === REGION.ROM) target.set(this.#rom.subarray(offset, offset + target.length));
    else this.#bars.get(region)!.fabricBar.read(offset, target);
  }

  regionWrite(region: number, offset: number, source: Uint8Array): void {
    if (this.#vanished) return;
    if (region === REGION.CONFIG) this.#writeConfig(offset, source);
    else if (region !== REGION.ROM) this.#bars.get(region)!.fabricBar.write(offset, source);
  }

  reset(): void {
    this.#reset('device');
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

  setEventfds(irq: number, start: number, fds: readonly (number | undefined)[]): void {
    this.#interrupts.assign(irq, start, fds);
  }

  triggerVectors(irq: number, start: number, fire: readonly boolean[]): void {
    this.#interrupts.trigger(irq, start, fire);
  }

  /** Masks of MSI and MSI-X live in QEMU, which latches what fires meanwhile (reference vfio-user.md §2.8). */
  maskVectors(): void {}

  /** No function has INTx (reference vfio-user.md §2.9 tells why), so there is nothing to unmask. */
  setUnmaskEventfd(_irq: number, fd: number | undefined): void {
    if (fd !== undefined) closeFd(fd);
  }

  disableIrqs(irq: number): void {
    this.#interrupts.disable(irq);
  }

  clientConnected(channel: DmaMessageChannel): void {
    this.messages = channel;
  }

  clientDisconnected(): void {
    this.messages = undefined;
    this.#interrupts.disableAll();
    this.dmaSpace.close();
  }

  // --- the fabric's side

  windows(): readonly BarWindow[] {
    if (this.#vanished) return [];
    return [...this.#bars].flatMap(([index, { kind, fabricBar }]) => {
      const address = kind === 'io' ? undefined : this.config.barAddress(index);
      return address === undefined ? [] : [{ address, bar: fabricBar }];
    });
  }

  // --- the machine's side

  control(command: string, args: Readonly<Record<string, unknown>>): unknown {
    if (this.model.control === undefined) throw new Error(`${this.name} has no commands`);
    return this.model.control(command, args);
  }

  /** The function leaves the machine: nothing of it runs any more. */
  close(): void {
    this.#epoch++;
    this.clientDisconnected();
    this.#fabricPort.leave();
    this.model.detach?.();
  }

  /** A BAR as the bus reaches it: a broken function answers all ones and drops writes. */
  #describeBar(bar: Bar): FunctionBar {
    const decoder = new BarDecoder(bar);
    const fabricBar: FabricBar = {
      sizeBytes: bar.sizeBytes,
      memoryParts: bar.parts.filter(isMemory),
      read: (offset, target) => {
        if (this.#broken !== undefined) target.fill(0xff);
        else if (
          !this.#guard(
            () => decoder.read(offset, target),
            () => `reading ${target.length} bytes at ${place(bar, decoder, offset)}`,
          )
        )
          target.fill(0xff);
      },
      write: (offset, source) => {
        if (this.#broken === undefined)
          this.#guard(
            () => decoder.write(offset, source),
            () => `writing ${hex(source)} at ${place(bar, decoder, offset)}`,
          );
      },
    };
    return { kind: bar.kind, fabricBar, decoder };
  }

  /** Accesses between the declared parts of each BAR, most used first. */
  unaddressed(): Record<string, readonly unknown[]> {
    return Object.fromEntries([...this.#bars].map(([index, { decoder }]) => [`BAR${index}`, decoder.unaddressed()]));
  }

  #readConfig(offset: number, target: Uint8Array): void {
    this.config.read(offset, target);
    for (const { range, at } of this.#configOverlap(offset, target.length)) {
      const piece = target.subarray(at, at + range.lengthBytes);
      this.#guard(
        () => this.#configRegisters!.read(range.offset, piece),
        () => `reading configuration at 0x${range.offset.toString(16)}`,
      );
    }
  }

  #writeConfig(offset: number, source: Uint8Array): void {
    const { effects, decodeChanged } = this.config.write(offset, source);
    if (decodeChanged) this.#fabricPort.decodeChanged();
    for (const { range, at } of this.#configOverlap(offset, source.length)) {
      const piece = source.subarray(at, at + range.lengthBytes);
      this.#guard(
        () => this.#configRegisters!.write(range.offset, piece),
        () => `writing ${hex(piece)} to configuration at 0x${range.offset.toString(16)}`,
      );
    }
    if (effects.includes('function-level-reset')) this.#reset('flr');
  }

  /** The parts of a configuration access that the model's own registers answer. */
  #configOverlap(offset: number, lengthBytes: number) {
    return (this.model.configRegisters ?? []).flatMap((part) => {
      const start = Math.max(offset, part.offset);
      const end = Math.min(offset + lengthBytes, part.offset + part.sizeBytes);
      return start < end ? [{ range: { offset: start, lengthBytes: end - start }, at: start - offset }] : [];
    });
  }

  #reset(kind: ResetKind): void {
    this.#epoch++;
    this.#broken = undefined;
    this.#vanished = false;
    this.#fabricPort.dropPostedWrites();
    this.config.reset(kind);
    this.#fabricPort.decodeChanged();
    this.#guard(
      () => this.model.reset(kind),
      () => `reset (${kind})`,
    );
  }

  #vanish(): void {
    this.#epoch++;
    this.#vanished = true;
    this.#fabricPort.dropPostedWrites();
    this.#fabricPort.decodeChanged();
    this.#log.info(`${this.name} is gone from the bus, as a card that is pulled out`);
  }

  /** Runs model code; false when it failed. A fault breaks the function and is told with all that helps to find it. */
  #guard(run: () => void, what: () => string): boolean {
    try {
      run();
      return true;
    } catch (error) {
      this.#broken = `${what()} failed: ${(error as Error).message}`;
      this.#epoch++;
      const cause =
        error instanceof DmaError ? 'the model did not handle a failed DMA request' : 'a fault of the model';
      this.#log.error(`${this.name} is broken: ${this.#broken} (${cause}); a reset of the function brings it back`, {
        stack: (error as Error).stack,
      });
      return false;
    }
  }

  #port(sibling: FunctionSurroundings['sibling']): FunctionPort {
    const self = this;
    return {
      name: this.name,
      log: this.#log,
      clock: this.#clock(),
      dma: new FunctionDma(this.#fabricPort),
      get busMasterEnabled() {
        return self.busMasterEnabled;
      },
      interrupt: (vector) => {
        if (!this.#vanished && this.#interrupts.fire(vector)) this.#fabricPort.countInterrupt(vector);
      },
      post: (work) => {
        const epoch = this.#epoch;
        this.#bus.post(
          () => this.#guard(work, () => 'posted work'),
          () => epoch === this.#epoch,
        );
      },
      sibling,
      vanish: () => this.#vanish(),
      link: (name) => {
        const memory = sibling(name)?.linkMemory;
        const count: PrivateLink['count'] = (direction, bytes) => this.#fabricPort.countLink(name, direction, bytes);
        return memory && { memory, count };
      },
    };
  }

  #clock(): Clock {
    return {
      nowNs: this.#bus.clock.nowNs,
      after: (delayMs, callback): Timer => {
        const epoch = this.#epoch;
        return this.#bus.clock.after(delayMs, () => {
          if (epoch === this.#epoch) this.#guard(callback, () => 'a timer');
        });
      },
    };
  }
}

interface FunctionBar {
  readonly kind: Bar['kind'];
  readonly fabricBar: FabricBar;
  readonly decoder: BarDecoder;
}

function place(bar: Bar, decoder: BarDecoder, offset: number): string {
  return `BAR${bar.index}+0x${offset.toString(16)} (${decoder.nameAt(offset)})`;
}

function hex(bytes: Uint8Array): string {
  return `0x${Buffer.from(bytes.subarray(0, 16)).reverse().toString('hex')}${bytes.length > 16 ? '…' : ''}`;
}

function padRom(rom: Uint8Array | undefined): Uint8Array {
  if (rom === undefined || rom.length === 0) return new Uint8Array(0);
  if (rom.length > MAX_ROM_BYTES)
    throw new Error(`the ROM has ${rom.length} bytes; at most ${MAX_ROM_BYTES} are served`);
  const padded = new Uint8Array(Math.max(PAGE_BYTES, 2 ** Math.ceil(Math.log2(rom.length)))).fill(0xff);
  padded.set(rom);
  return padded;
}

function configRegistersBar(model: PcieFunction) {
  return { index: 0, kind: 'memory32', sizeBytes: CONFIG_SPACE_BYTES, parts: model.configRegisters ?? [] } as const;
}

/** The regions of vfio (linux/vfio.h VFIO_PCI_*_REGION_INDEX): six BARs, ROM, configuration space, VGA. */
function describeRegions(model: PcieFunction, romBytes: number): RegionInfo[] {
  const absent: RegionInfo = { sizeBytes: 0, readable: false, writable: false };
  const regions = new Array<RegionInfo>(REGION.COUNT).fill(absent);
  for (const bar of model.bars) {
    const memoryParts = bar.parts.filter(isMemory);
    const first = memoryParts[0];
    regions[bar.index] = {
      sizeBytes: bar.sizeBytes,
      readable: true,
      writable: true,
      ...(first && {
        mappable: {
          fd: (first.memory as BackedMemoryRegion).fd,
          fdOffset: memoryOffsetOf(first) - first.offset,
          areas: memoryParts.map(({ offset, sizeBytes }) => ({ offset, sizeBytes })),
        },
      }),
    };
  }
  if (romBytes > 0) regions[REGION.ROM] = { sizeBytes: romBytes, readable: true, writable: false };
  regions[REGION.CONFIG] = { sizeBytes: CONFIG_SPACE_BYTES, readable: true, writable: true };
  return regions;
}
