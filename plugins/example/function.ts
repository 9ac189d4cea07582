/**
 * The function as the bus sees it: identity, BARs, capabilities, and the wiring between registers and engine. This is the
 * one file of the plugin that knows all others.
 */
import {
  type Bar,
  type Capability,
  type CreateContext,
  type FunctionPort,
  type Identity,
  type MemoryRegion,
  msix,
  type PcieFunction,
  pciExpress,
  powerManagement,
} from 'ghostbus';
import { DESCRIPTOR_BYTES } from './descriptor.js';
import { CopyEngine, haltReason } from './engine.js';
import {
  bar0,
  cause,
  control,
  createDoorbellPage,
  createRegisters,
  type EngineRegisters,
  type RegisterHooks,
  ringLog2,
  statusBits,
} from './registers.js';

/**
 * The PCI ID database (pci.ids) knows no owner of vendor 0x1234; QEMU's teaching device lives there too (1234:11e8, QEMU
 * docs/specs/edu). The only stock Linux driver for this vendor matches device 0x1111 (drivers/gpu/drm/tiny/bochs.c,
 * bochs_pci_tbl). Class 0x088000, "system peripheral, other", is what DMA engines carry and no driver matches by.
 */
export const identity: Identity = {
  vendorId: 0x1234,
  deviceId: 0x6762,
  subsystemVendorId: 0x1234,
  subsystemId: 0x0001,
  classCode: 0x088000,
  revisionId: 1,
};

export const vectors = { completion: 0, halt: 1 } as const;

export const MEMORY_BAR = 2;

export class ExampleFunction implements PcieFunction {
  readonly identity = identity;
  readonly bars: readonly Bar[];
  readonly capabilities: readonly Capability[];
  readonly #memory: MemoryRegion;
  readonly #engine: CopyEngine;
  readonly #registers: EngineRegisters;
  readonly #doorbellPage: ReturnType<typeof createDoorbellPage>;
  #port: FunctionPort | undefined;

  constructor(context: CreateContext, memoryBytes: number) {
    this.#memory = context.createMemory('memory', memoryBytes);
    this.#engine = new CopyEngine(this.#memory, {
      completed: () => this.#raise(cause.completion, vectors.completion),
      halted: (reason) => this.#halted(reason),
    });
    const hooks: RegisterHooks = {
      control: (value) => this.#control(value),
      status: () => this.#status(),
      head: () => this.#engine.head,
      tail: () => this.#engine.tail,
      doorbell: (tail) => this.#engine.doorbell(tail),
    };
    this.#registers = createRegisters(context.log, hooks);
    this.#doorbellPage = createDoorbellPage(context.log, hooks);
    this.bars = [
      {
        index: 0,
        kind: 'memory32',
        sizeBytes: bar0.sizeBytes,
        parts: [
          { offset: bar0.registersOffset, sizeBytes: bar0.pageBytes, registers: this.#registers },
          { offset: bar0.doorbellOffset, sizeBytes: bar0.pageBytes, registers: this.#doorbellPage },
        ],
      },
      {
        index: MEMORY_BAR,
        kind: 'memory64',
        prefetchable: true,
        sizeBytes: memoryBytes,
        parts: [{ offset: 0, sizeBytes: memoryBytes, memory: this.#memory }],
      },
    ];
    this.capabilities = [
      powerManagement(),
      pciExpress({ functionLevelReset: true }),
      msix({
        vectors: 2,
        tableBar: 0,
        tableOffset: bar0.msixTableOffset,
        pendingBar: 0,
        pendingOffset: bar0.msixPendingOffset,
      }),
    ];
  }

  attach(port: FunctionPort): void {
    this.#port = port;
    this.#engine.attach(port);
  }

  reset(): void {
    this.#engine.reset();
    this.#registers.reset();
    this.#doorbellPage.reset();
    this.#memory.fill(0, 0, this.#memory.sizeBytes);
  }

  /** `fail-next` with `{ status }` makes the next descriptor complete with that status: error paths need no broken hardware. */
  control(command: string, args: Readonly<Record<string, unknown>>): unknown {
    if (command !== 'fail-next') throw new Error(`unknown command ${JSON.stringify(command)}; known: fail-next`);
    const { status } = args;
    if (typeof status !== 'number' || !Number.isInteger(status) || status < 2 || status > 0xffff) {
      throw new Error(`fail-next needs a status from 2 to 65535, not ${JSON.stringify(status)}`);
    }
    this.#engine.failNext(status);
    return { status };
  }

  inspect(): unknown {
    return {
      running: this.#engine.isRunning,
      head: this.#engine.head,
      tail: this.#engine.tail,
      ...this.#engine.totals,
      memoryAllocatedBytes: this.#memory.allocatedBytes(),
      unimplemented: this.#registers.unimplemented(),
    };
  }

  #status(): number {
    return (
      (this.#engine.isRunning ? statusBits.running : 0) |
      (this.#engine.isBusy ? statusBits.busy : 0) |
      (this.#registers.get('ERROR') === haltReason.none ? 0 : statusBits.halted)
    );
  }

  /** RESET wins over ENABLE and clears itself. Returns what CONTROL keeps. */
  #control(value: number): number {
    if ((value & control.reset) !== 0) {
      this.#engine.stop();
      this.#registers.reset();
      return 0;
    }
    const enable = (value & control.enable) !== 0;
    if (!enable) this.#engine.stop();
    else if (!this.#engine.isRunning) this.#start();
    return value;
  }

  #start(): void {
    const log2Entries = this.#registers.field('RING_SIZE', 'LOG2_ENTRIES');
    const entries = 2 ** log2Entries;
    const base = this.#registers.get('RING_BASE_HI') * 2 ** 32 + this.#registers.get('RING_BASE_LO');
    const end = base + entries * DESCRIPTOR_BYTES;
    if (log2Entries < ringLog2.min || log2Entries > ringLog2.max || !Number.isSafeInteger(end)) {
      this.#halted(haltReason.badRing);
      return;
    }
    this.#registers.set('ERROR', haltReason.none);
    this.#engine.start({ base, entries });
  }

  #halted(reason: number): void {
    this.#port?.log.warn('copy engine halted', { reason });
    this.#registers.set('ERROR', reason);
    this.#raise(cause.halt, vectors.halt);
  }

  /** Status first, message second: a handler that runs at once must see why. */
  #raise(bit: number, vector: number): void {
    this.#registers.set('INTERRUPT_STATUS', (this.#registers.get('INTERRUPT_STATUS') | bit) >>> 0);
    if ((this.#registers.get('INTERRUPT_ENABLE') & bit) !== 0) this.#port?.interrupt(vector);
  }
}
