import type { Log } from './ambient/log.js';
import type { Bus } from './bus.js';
import { errorText } from './error-text.js';
import { FunctionBar } from './function-bar.js';
import { ModelPort, type PortHost } from './function-port.js';
import { describeRegions, padRom } from './function-regions.js';
import { closeFd } from './host/index.js';
import { InterruptLines } from './interrupts.js';
import type { FunctionCounters } from './memory/counters.js';
import { DmaError, PortClosedError } from './memory/dma-error.js';
import type { DmaMessageChannel } from './memory/dma-messages.js';
import { type DmaMapRequest, DmaSpace } from './memory/dma-space.js';
import type { Fabric, FabricMember, FabricPort } from './memory/fabric.js';
import { requireBacked } from './memory/region.js';
import type { BarWindow, MemoryPart } from './memory/windows.js';
import type { BarShape } from './pci/bar.js';
import { type BarRegisters, validateBarParts } from './pci/bar-parts.js';
import { CONFIG_SPACE_BYTES, ConfigSpace, type ResetKind } from './pci/config-space.js';
import { type Commands, runCommand } from './plugin/command.js';
import type { FunctionModel, PcieFunction, PowerOnCause } from './plugin/function.js';
import { cardProblem, modelProblem } from './plugin/shape.js';
import { type IrqInfo, REGION, type RegionInfo, type VfioDevice } from './vfio-user/device.js';

export interface FunctionSurroundings {
  readonly bus: Bus;
  readonly fabric: Fabric;
  readonly log: Log;
  readonly sibling: (name: string) => PcieFunction | undefined;
  readonly commands?: Commands;
  readonly observer?: FunctionObserver;
}

/** Somebody who wants to know at once, as a test does. */
export interface FunctionObserver {
  /** The function is out of service because of `error`. */
  broke?(error: unknown): void;
  /** A message of `vector` was sent to the guest. */
  interrupted?(vector: number): void;
}

/** Configuration space has no BAR index; its vendor registers pass the same checks as the parts of a BAR. */
const CONFIG_SHAPE: BarShape = { index: 0, kind: 'memory32', sizeBytes: CONFIG_SPACE_BYTES };

/**
 * One function as the machine sees it: configuration space, BARs, interrupts and DMA around a plugin's model. It faces
 * the vfio-user server as a {@link VfioDevice} and the fabric as a {@link FabricMember}. The model is made by the
 * plugin's card when the function is put on the bus, and thrown away and made anew at every reset, each with a {@link
 * ModelPort} of its own.
 *
 * A fault of the model stays inside: the function is then broken (reads give all ones, writes are dropped, no work
 * runs) until the machine resets it.
 */
export class EmulatedFunction implements VfioDevice, FabricMember {
  readonly name: string;
  readonly card: PcieFunction;
  readonly config: ConfigSpace;
  readonly dmaSpace: DmaSpace;
  readonly regions: readonly RegionInfo[];
  readonly irqs: readonly IrqInfo[];
  messages: DmaMessageChannel | undefined;
  readonly #fabricPort: FabricPort;
  readonly #log: Log;
  readonly #bars: ReadonlyMap<number, FunctionBar>;
  /** The same BARs: an access finds its own without hashing. */
  readonly #barByRegion: readonly (FunctionBar | undefined)[];
  readonly #rom: Uint8Array;
  readonly #configBar = new FunctionBar('configuration', CONFIG_SPACE_BYTES);
  readonly #interrupts: InterruptLines;
  readonly #commands: Commands | undefined;
  readonly #observer: FunctionObserver;
  readonly #portHost: PortHost;
  #port!: ModelPort;
  #model: FunctionModel | undefined;
  #isPoweringOn = false;
  #broken: string | undefined;
  #vanished = false;

  /** Throws an Error when the card's declarations are wrong or its model cannot be made; nothing of it is left then. */
  constructor(name: string, card: PcieFunction, surroundings: FunctionSurroundings) {
    const attach = <T>(step: () => T): T => attachStep(name, step);
    this.name = name;
    this.card = attach(() => checkedCard(card));
    this.#log = surroundings.log;
    this.#commands = surroundings.commands;
    this.#observer = surroundings.observer ?? {};
    this.dmaSpace = new DmaSpace({ onShrinkableFile: () => this.#warnOfShrinkableFile() });
    if (card.linkMemory !== undefined) requireBacked(card.linkMemory, `${name}: linkMemory`);
    this.#rom = attach(() => padRom(card.rom));
    const { identity, bars, capabilities } = card;
    const romSizeBytes = this.#rom.length;
    this.config = attach(
      () => new ConfigSpace({ identity, bars, capabilities, ...(romSizeBytes > 0 && { romSizeBytes }) }),
    );
    this.#bars = new Map(card.bars.map((shape) => [shape.index, FunctionBar.ofShape(shape)]));
    this.#barByRegion = Array.from({ length: REGION.COUNT }, (_, region) => this.#bars.get(region));
    this.#interrupts = new InterruptLines(card.capabilities.flatMap(({ interrupts }) => interrupts ?? []));
    this.irqs = this.#interrupts.irqs;
    this.#fabricPort = surroundings.fabric.join(this);
    this.#portHost = this.#makePortHost(surroundings);
    try {
      attach(() => this.#powerOn('attach'));
    } catch (error) {
      this.#fabricPort.leave();
      throw error;
    }
    this.regions = describeRegions(card.bars, ({ index }) => this.memoryParts(index), this.#rom.length);
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

  /** What the card made at the last power-on; undefined after a reset in which it failed to. */
  get model(): FunctionModel | undefined {
    return this.#model;
  }

  /** Bus address of a BAR while it decodes. */
  barAddress(index: number): number | undefined {
    return this.config.barAddress(index);
  }

  /** The memory behind a BAR, the same for every model. */
  memoryParts(index: number): readonly MemoryPart[] {
    return this.#bars.get(index)?.memoryParts ?? [];
  }

  // --- the vfio-user server's side

  regionRead(region: number, offset: number, target: Uint8Array): void {
    const bar = this.#barByRegion[region];
    if (this.#vanished) target.fill(0xff);
    else if (bar !== undefined) bar.read(offset, target);
    else if (region === REGION.CONFIG) this.#readConfig(offset, target);
    else target.set(this.#rom.subarray(offset, offset + target.length));
  }

  regionWrite(region: number, offset: number, source: Uint8Array): void {
    const bar = this.#barByRegion[region];
    if (this.#vanished) return;
    if (bar !== undefined) bar.write(offset, source);
    else if (region === REGION.CONFIG) this.#writeConfig(offset, source);
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

  /** Masks of MSI and MSI-X live in QEMU, which latches what fires meanwhile (vfio-user.md §2.8). */
  maskVectors(): void {}

  /** No function has INTx (vfio-user.md §2.9 tells why), so there is nothing to unmask. */
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
    return this.card.bars.flatMap(({ index, kind }) => {
      const address = kind === 'io' ? undefined : this.config.barAddress(index);
      return address === undefined ? [] : [{ address, bar: this.#bars.get(index)! }];
    });
  }

  // --- the machine's side

  /** Runs a command of the device on the model of the time. Throws with a message for people when it refuses. */
  control(command: string, args: Readonly<Record<string, unknown>>): unknown {
    if (this.#model === undefined) throw new Error(`${this.name} has no model: the last reset could not make one`);
    return runCommand(this.#commands ?? {}, this.#model, command, args);
  }

  inspect(): unknown {
    return this.#model?.inspect?.();
  }

  /** The function leaves the machine: nothing of it runs any more. */
  close(): void {
    this.#throwModelAway('the function is removed');
    this.clientDisconnected();
    this.#fabricPort.leave();
    this.card.detach?.();
  }

  // --- the model: made, broken, thrown away

  /**
   * Makes a model and puts it behind the BARs. Throws what the card throws, or what is wrong with the model's parts.
   */
  #powerOn(cause: PowerOnCause): void {
    const port = new ModelPort(this.#portHost);
    this.#port = port;
    this.#isPoweringOn = true;
    try {
      this.#plug(this.card.powerOn(port, cause), port);
    } catch (error) {
      port.close('its power-on failed');
      throw error;
    } finally {
      this.#isPoweringOn = false;
    }
  }

  #plug(model: FunctionModel, port: ModelPort): void {
    const problem = modelProblem(model);
    if (problem !== undefined) throw new Error(`powerOn returned ${problem}`);
    for (const index of Object.keys(model.bars)) {
      if (!this.#bars.has(Number(index))) throw new Error(`the model has parts for BAR${index}, which is not declared`);
    }
    for (const shape of this.card.bars) {
      validateBarParts(shape, model.bars[shape.index] ?? [], this.card.capabilities);
    }
    validateBarParts(CONFIG_SHAPE, model.configRegisters ?? []);
    const reportFault = (error: unknown, what: string) => this.#fault(port, error, what);
    for (const [index, bar] of this.#bars) bar.plug(model.bars[index] ?? [], reportFault);
    this.#configBar.plug(model.configRegisters ?? [], reportFault);
    this.#model = model;
  }

  /** The order matters: what could still reach the old model is gone before the new one is made. */
  #reset(kind: ResetKind): void {
    this.#port.close(`reset (${kind})`);
    this.#broken = undefined;
    this.#vanished = false;
    this.#fabricPort.dropPostedWrites();
    this.config.reset(kind);
    this.#fabricPort.decodeChanged();
    this.#renewModel(kind);
  }

  #restart(port: ModelPort): void {
    if (port !== this.#port) return;
    if (this.#isPoweringOn) throw new Error(`${this.name}: a model must not call restart() while it is made`);
    this.#renewModel('self');
  }

  #renewModel(cause: ResetKind | 'self'): void {
    this.#throwModelAway(`reset (${cause})`);
    try {
      this.#powerOn(cause);
    } catch (error) {
      this.#break(error, `power-on after a reset (${cause})`);
    }
  }

  #throwModelAway(reason: string): void {
    this.#port.close(reason);
    const model = this.#model;
    this.#model = undefined;
    this.#unplug();
    try {
      model?.powerOff?.();
    } catch (error) {
      this.#log.error(`${this.name}: powerOff failed (${reason}): ${(error as Error).message}`, {
        stack: (error as Error).stack,
      });
    }
  }

  #unplug(): void {
    for (const bar of this.#bars.values()) bar.unplug();
    this.#configBar.unplug();
  }

  #vanish(): void {
    this.#port.halt();
    this.#vanished = true;
    this.#fabricPort.dropPostedWrites();
    this.#fabricPort.decodeChanged();
    this.#log.info(`${this.name} is gone from the bus, as a card that is pulled out`);
  }

  /**
   * Code of a model threw. What a model does after its end touches nobody but is told, unless it only met its closed
   * port.
   */
  #fault(port: ModelPort, error: unknown, what: string): void {
    if (!port.isClosed) {
      this.#break(error, what);
      return;
    }
    if (error instanceof PortClosedError) return;
    this.#log.error(
      `${this.name}: ${what} failed in a model that was thrown away meanwhile: ${(error as Error).message}`,
      {
        stack: (error as Error).stack,
      },
    );
  }

  /** The function is out of service from now on, which is told with all that helps to find the fault. */
  #break(error: unknown, what: string): void {
    this.#broken = `${what} failed: ${errorText(error)}`;
    this.#port.halt();
    this.#unplug();
    const cause = error instanceof DmaError ? 'the model did not handle a failed DMA request' : 'a fault of the model';
    this.#log.error(`${this.name} is broken: ${this.#broken} (${cause}); a reset of the function brings it back`, {
      stack: (error as Error | undefined)?.stack,
    });
    this.#observer.broke?.(error);
  }

  #interrupt(vector: number): void {
    if (!this.#interrupts.fire(vector)) return;
    this.#fabricPort.countInterrupt(vector);
    this.#observer.interrupted?.(vector);
  }

  #makePortHost({ bus, sibling }: FunctionSurroundings): PortHost {
    const self = this;
    return {
      name: this.name,
      log: this.#log,
      bus,
      fabricPort: this.#fabricPort,
      interrupt: (vector) => this.#interrupt(vector),
      get busMasterEnabled() {
        return self.busMasterEnabled;
      },
      sibling,
      guard: (port, run, what) => {
        bus.attribute(this.name);
        try {
          run();
        } catch (error) {
          this.#fault(port, error, what);
        }
      },
      restart: (port) => this.#restart(port),
      vanish: (port) => {
        if (port === this.#port) this.#vanish();
      },
    };
  }

  // --- configuration space

  #readConfig(offset: number, target: Uint8Array): void {
    this.config.read(offset, target);
    for (const { start, end } of this.#configOverlap(offset, target.length)) {
      this.#configBar.read(start, target.subarray(start - offset, end - offset));
    }
  }

  #writeConfig(offset: number, source: Uint8Array): void {
    const { effects, decodeChanged } = this.config.write(offset, source);
    if (decodeChanged) this.#fabricPort.decodeChanged();
    for (const { start, end } of this.#configOverlap(offset, source.length)) {
      this.#configBar.write(start, source.subarray(start - offset, end - offset));
    }
    if (effects.includes('function-level-reset')) this.#reset('flr');
  }

  /** The parts of a configuration access that the model's own registers answer. */
  #configOverlap(offset: number, lengthBytes: number): { start: number; end: number }[] {
    const registers: readonly BarRegisters[] = this.#model?.configRegisters ?? [];
    return registers.flatMap((part) => {
      const start = Math.max(offset, part.offset);
      const end = Math.min(offset + lengthBytes, part.offset + part.sizeBytes);
      return start < end ? [{ start, end }] : [];
    });
  }

  #warnOfShrinkableFile(): void {
    this.#log.warn(
      'guest memory is a file that can be made shorter, which would end this process; use memory-backend-memfd',
    );
  }
}

/** One step of putting the function `name` on the bus: what goes wrong names it. */
function attachStep<T>(name: string, step: () => T): T {
  try {
    return step();
  } catch (cause) {
    throw new Error(`${name} cannot be put on the bus: ${errorText(cause)}`, { cause });
  }
}

function checkedCard(card: PcieFunction): PcieFunction {
  const problem = cardProblem(card);
  if (problem !== undefined) throw new Error(`it is ${problem}`);
  return card;
}
