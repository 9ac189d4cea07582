import { Bus } from '../bus.js';
import { duplicateFd, type Mapping, mapShared } from '../host/index.js';
import { Machine } from '../machine.js';
import type { PeerRouting } from '../memory/fabric.js';
import { type BackedMemoryRegion, createMemoryRegion, type MemoryRegion } from '../memory/region.js';
import type { BarShape } from '../pci/bar.js';
import type { Commands } from '../plugin/command.js';
import type { FunctionModel, PcieFunction } from '../plugin/function.js';
import type { CreateContext } from '../plugin/plugin.js';
import { ManualClock } from './manual-clock.js';
import { RecordingLog } from './recording-log.js';
import { TestFunction } from './test-function.js';

/**
 * First bus address of each kind of BAR: as on a machine, 64-bit ones are above guest memory, 32-bit ones below 4 GiB.
 */
const FIRST_ADDRESS: Readonly<Record<BarShape['kind'], number>> = {
  memory64: 0x10_0000_0000,
  memory32: 0xc000_0000,
  io: 0x1000,
};
const DEFAULT_GUEST_BYTES = 16 * 2 ** 20;

export interface TestBusOptions {
  /** Which requests reach a BAR; see the option of `ghostbus serve`. Default `address`. */
  readonly peerRouting?: PeerRouting;
}

const open = new Set<TestBus>();

/** Every test bus that was not closed: for a hook that closes what a spec left, and to find out who forgets it. */
export function openTestBuses(): TestBus[] {
  return [...open];
}

/**
 * The real bus, fabric and functions without QEMU: a test is the CPU, the clock and whoever owns guest memory, which
 * starts at bus address 0. Every BAR decodes, bus mastering and all interrupt vectors are on, as a driver finds it. The
 * functions belong to one virtual machine, so they reach each other's BARs by DMA.
 *
 * A fault of a model is thrown by the call in which it happened, so that no test goes on without noticing.
 */
export class TestBus {
  readonly clock: ManualClock;
  readonly guestMemory: MemoryRegion;
  readonly functions: TestFunction[] = [];
  readonly #bus: Bus;
  readonly #machine: Machine;
  readonly #guest: BackedMemoryRegion;
  readonly #log = new RecordingLog();
  readonly #nextAddress = { ...FIRST_ADDRESS };
  #guestMapping: Mapping | undefined;
  #faults: unknown[] = [];

  /** @param guestMemoryBytes a multiple of 4 KiB */
  constructor(guestMemoryBytes = DEFAULT_GUEST_BYTES, { peerRouting = 'address' }: TestBusOptions = {}) {
    this.clock = new ManualClock(() => {
      this.#bus.runTimers();
      this.#throwFaults();
    });
    this.#bus = new Bus({ log: this.#log, nowNs: () => this.clock.nowNs(), timers: this.clock.timers });
    this.#machine = new Machine(this.#bus, peerRouting);
    this.#guest = createMemoryRegion('guest', guestMemoryBytes);
    this.guestMemory = this.#guest;
    open.add(this);
  }

  /** Guest memory as one array: the same bytes as {@link guestMemory}. */
  get guestBytes(): Uint8Array {
    this.#guestMapping ??= mapShared(this.#guest.fd, 0, this.#guest.sizeBytes, { writable: true });
    return this.#guestMapping.bytes;
  }

  /** What a plugin's `create` gets. */
  context(name = 'test0', instance = 0): CreateContext & { readonly log: RecordingLog } {
    return this.#machine.context(name, instance, new RecordingLog());
  }

  /** A memory of the machine, which nobody has mapped yet. */
  createMemory(name: string, sizeBytes: number): MemoryRegion {
    return this.context('test').createMemory(name, sizeBytes);
  }

  /**
   * Puts a function on the bus. Throws what is wrong with it.
   * @param commands Those of its plugin, for {@link TestFunction.control}.
   */
  add<Model extends FunctionModel>(
    name: string,
    card: PcieFunction<Model>,
    commands?: Commands<Model>,
  ): TestFunction<Model> {
    const log = new RecordingLog();
    const interrupts: number[] = [];
    const emulated = this.#machine.add(name, card, {
      log,
      commands,
      observer: {
        broke: (error) => this.#faults.push(error),
        interrupted: (vector) => interrupts.push(vector),
      },
    });
    const guest = { address: 0, sizeBytes: this.#guest.sizeBytes, readable: true, writable: true, offset: 0 };
    emulated.dmaMap(guest, duplicateFd(this.#guest.fd));
    const fn = new TestFunction<Model>(emulated, {
      bus: this.#bus,
      log,
      interrupts,
      barAddresses: this.#place(card.bars),
      throwFaults: () => this.#throwFaults(),
    });
    this.functions.push(fn);
    return fn;
  }

  /**
   * Runs posted work, and what it posts, until none is left; timers run that are due already. Returns how many pieces
   * of work ran. Throws after `limit` pieces: an engine that never rests.
   */
  run(limit = 1_000_000): number {
    let pieces = 0;
    while (this.runOne()) {
      if (++pieces > limit) throw new Error(`posted work did not come to rest after ${limit} pieces`);
    }
    return pieces;
  }

  /** Runs one piece of posted work; false if there was none. */
  runOne(): boolean {
    const before = this.#bus.statistics().workPieces;
    let hasRun = false;
    while (!hasRun && !this.#bus.idle) {
      this.#bus.turn(0);
      this.#throwFaults();
      hasRun = this.#bus.statistics().workPieces > before;
    }
    return hasRun;
  }

  /** Removes the functions and gives all memory back. Doing it twice is harmless. */
  close(): void {
    if (!open.delete(this)) return;
    this.#machine.close();
    this.#guestMapping?.unmap();
    this.#guest.close();
    this.#bus.close();
  }

  #place(bars: readonly BarShape[]): ReadonlyMap<number, number> {
    return new Map(
      bars.map(({ index, kind, sizeBytes }) => {
        const address = Math.ceil(this.#nextAddress[kind] / sizeBytes) * sizeBytes;
        this.#nextAddress[kind] = address + sizeBytes;
        return [index, address];
      }),
    );
  }

  #throwFaults(): void {
    const [fault] = this.#faults;
    this.#faults = [];
    if (fault !== undefined) throw fault;
    const outside = this.#log.records.find(({ level }) => level === 'error');
    if (outside !== undefined) throw new Error(`${outside.message}\n${outside.fields.stack}`);
  }
}
