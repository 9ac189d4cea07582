import type { Bus } from '../bus.js';
import type { EmulatedFunction } from '../function.js';
import { createEventfd } from '../host/index.js';
import type { FunctionCounters } from '../memory/counters.js';
import type { BarShape } from '../pci/bar.js';
import type { ResetKind } from '../pci/config-space.js';
import type { FunctionModel, PcieFunction } from '../plugin/function.js';
import { IRQ, REGION } from '../vfio-user/device.js';
import type { RecordingLog } from './recording-log.js';

/** linux/pci_regs.h PCI_COMMAND, PCI_BASE_ADDRESS_0, PCI_CAP_ID_EXP, PCI_EXP_DEVCTL. */
const COMMAND = 0x04;
const BASE_ADDRESS_0 = 0x10;
const PCI_EXPRESS_ID = 0x10;
const DEVICE_CONTROL = 0x08;
/** linux/pci_regs.h PCI_EXP_DEVCTL_BCR_FLR. */
const INITIATE_FLR = 0x8000;
/** linux/pci_regs.h PCI_COMMAND_IO, _MEMORY, _MASTER. */
const COMMAND_BITS = { io: 0x1, memory: 0x2, master: 0x4 } as const;

/** What the bus and a function on it do for each other. */
export interface TestFunctionHost {
  readonly bus: Bus;
  readonly log: RecordingLog;
  /** Vectors in the order they were sent. */
  readonly interrupts: number[];
  /** Bus addresses that the test's firmware chose, by BAR. */
  readonly barAddresses: ReadonlyMap<number, number>;
  /** Throws the first fault of a model since the last call. */
  throwFaults(): void;
}

/** One function on a {@link TestBus}, as the guest's CPU sees it. */
export class TestFunction<Model extends FunctionModel = FunctionModel> {
  readonly name: string;
  readonly log: RecordingLog;
  /** Vectors in the order they were sent. */
  readonly interrupts: number[];
  readonly #emulated: EmulatedFunction;
  readonly #host: TestFunctionHost;

  /** @internal Made by {@link TestBus.add}. */
  constructor(emulated: EmulatedFunction, host: TestFunctionHost) {
    this.name = emulated.name;
    this.log = host.log;
    this.interrupts = host.interrupts;
    this.#emulated = emulated;
    this.#host = host;
    this.#enableInterrupts();
    this.#configure();
  }

  get card(): PcieFunction<Model> {
    return this.#emulated.card as PcieFunction<Model>;
  }

  /** What the card made at the last power-on. Throws an Error when it failed to. */
  get model(): Model {
    const { model, broken } = this.#emulated;
    if (model === undefined) throw new Error(`${this.name} has no model: ${broken ?? 'it was removed'}`);
    return model as Model;
  }

  /** Why the function is out of service, if it is. */
  get broken(): string | undefined {
    return this.#emulated.broken;
  }

  /** What the fabric counted of this function's requests. */
  get counters(): FunctionCounters {
    return this.#emulated.counters;
  }

  get busMasterEnabled(): boolean {
    return this.#emulated.busMasterEnabled;
  }

  /** COMMAND.BME. */
  set busMasterEnabled(enabled: boolean) {
    const command = this.readConfig(COMMAND, 2);
    this.writeConfig(COMMAND, enabled ? command | COMMAND_BITS.master : command & ~COMMAND_BITS.master, 2);
  }

  /** Bus address of a BAR. */
  barAddress(index: number): number {
    const address = this.#host.barAddresses.get(index);
    if (address === undefined) throw new Error(`${this.name} has no BAR${index}`);
    return address;
  }

  read(bar: number, offset: number, sizeBytes: 1 | 2 | 4 = 4): number {
    const view = new DataView(new ArrayBuffer(4));
    this.readBytes(bar, offset, new Uint8Array(view.buffer, 0, sizeBytes));
    return view.getUint32(0, true);
  }

  write(bar: number, offset: number, value: number, sizeBytes: 1 | 2 | 4 = 4): void {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value, true);
    this.writeBytes(bar, offset, new Uint8Array(view.buffer, 0, sizeBytes));
  }

  read64(bar: number, offset: number): bigint {
    const view = new DataView(new ArrayBuffer(8));
    this.readBytes(bar, offset, new Uint8Array(view.buffer));
    return view.getBigUint64(0, true);
  }

  write64(bar: number, offset: number, value: bigint): void {
    const view = new DataView(new ArrayBuffer(8));
    view.setBigUint64(0, value, true);
    this.writeBytes(bar, offset, new Uint8Array(view.buffer));
  }

  /** Any number of bytes, also across the parts of a BAR. Throws RangeError outside of it. */
  readBytes(bar: number, offset: number, target: Uint8Array): void {
    this.#checkRange(bar, offset, target.length);
    this.#access('a read of a BAR', () => this.#emulated.regionRead(bar, offset, target));
  }

  writeBytes(bar: number, offset: number, source: Uint8Array): void {
    this.#checkRange(bar, offset, source.length);
    this.#access('a write to a BAR', () => this.#emulated.regionWrite(bar, offset, source));
  }

  /** Configuration space, as the guest reads it. */
  readConfig(offset: number, sizeBytes: 1 | 2 | 4 = 4): number {
    const view = new DataView(new ArrayBuffer(4));
    const target = new Uint8Array(view.buffer, 0, sizeBytes);
    this.#access('a read of configuration space', () => this.#emulated.regionRead(REGION.CONFIG, offset, target));
    return view.getUint32(0, true);
  }

  writeConfig(offset: number, value: number, sizeBytes: 1 | 2 | 4 = 4): void {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value, true);
    const source = new Uint8Array(view.buffer, 0, sizeBytes);
    this.#access('a write to configuration space', () => this.#emulated.regionWrite(REGION.CONFIG, offset, source));
  }

  /**
   * Resets the function: `device` as the machine does, `flr` as the guest does through Device Control. Afterwards BARs
   * and COMMAND are what they were, as after Linux's pci_reset_function(); with `restoreConfig: false` decode and bus
   * mastering stay off, as the reset left them.
   */
  reset(kind: ResetKind = 'device', { restoreConfig = true } = {}): void {
    if (kind === 'device') this.#access('a reset', () => this.#emulated.reset());
    else this.#functionLevelReset();
    if (restoreConfig) this.#configure();
  }

  /** Runs a command of the device, as `ghostbus ctl` does. */
  control(command: string, args: Readonly<Record<string, unknown>> = {}): unknown {
    return this.#emulated.control(command, args);
  }

  /** {@link FunctionModel.inspect}. */
  inspect(): unknown {
    return this.#emulated.inspect();
  }

  #functionLevelReset(): void {
    const express = this.#emulated.config.find(PCI_EXPRESS_ID);
    if (express === undefined) throw new Error(`${this.name} has no PCI Express capability to reset it through`);
    this.writeConfig(express + DEVICE_CONTROL, this.readConfig(express + DEVICE_CONTROL, 2) | INITIATE_FLR, 2);
  }

  /**
   * What firmware and kernel do before a driver is there: BARs get addresses, decode and bus mastering are switched on.
   */
  #configure(): void {
    for (const { index, kind } of this.#shapes()) {
      const address = this.barAddress(index);
      this.writeConfig(BASE_ADDRESS_0 + 4 * index, address % 2 ** 32);
      if (kind === 'memory64') this.writeConfig(BASE_ADDRESS_0 + 4 * index + 4, Math.floor(address / 2 ** 32));
    }
    this.writeConfig(COMMAND, COMMAND_BITS.io | COMMAND_BITS.memory | COMMAND_BITS.master, 2);
  }

  #enableInterrupts(): void {
    for (const irq of [IRQ.MSI, IRQ.MSIX]) {
      const { count } = this.#emulated.irqs[irq]!;
      this.#emulated.setEventfds(irq, 0, Array.from({ length: count }, createEventfd));
    }
  }

  #shapes(): readonly BarShape[] {
    return this.#emulated.card.bars;
  }

  #checkRange(bar: number, offset: number, lengthBytes: number): void {
    const shape = this.#shapes().find(({ index }) => index === bar);
    if (shape === undefined) throw new Error(`${this.name} has no BAR${bar}`);
    if (offset < 0 || offset + lengthBytes > shape.sizeBytes) {
      throw new RangeError(`${lengthBytes} bytes at ${offset}: BAR${bar} of ${this.name} ends at ${shape.sizeBytes}`);
    }
  }

  #access(what: string, run: () => void): void {
    this.#host.bus.runHandler(what, run);
    this.#host.throwFaults();
  }
}
