/**
 * What is behind the BARs from one reset to the next: registers, engine, and the wiring between them. The card makes a
 * new one at each power-on, so nothing here is ever set back.
 */
import type { FunctionModel, FunctionPort, MemoryRegion } from 'ghostbus';
import { DESCRIPTOR_BYTES } from './descriptor.js';
import { CopyEngine, haltReason } from './engine.js';
import {
  bar0,
  cause,
  control,
  createDoorbellPage,
  createRegisters,
  type EngineRegisters,
  MEMORY_BAR,
  type RegisterHooks,
  ringLog2,
  statusBits,
  vectors,
} from './registers.js';

export class ExampleModel implements FunctionModel {
  readonly bars: FunctionModel['bars'];
  readonly #port: FunctionPort;
  readonly #memory: MemoryRegion;
  readonly #engine: CopyEngine;
  readonly #registers: EngineRegisters;

  constructor(port: FunctionPort, memory: MemoryRegion) {
    this.#port = port;
    this.#memory = memory;
    this.#engine = new CopyEngine(port, memory, {
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
    this.#registers = createRegisters(port.log, hooks);
    this.bars = {
      0: [
        { offset: bar0.registersOffset, sizeBytes: bar0.pageBytes, registers: this.#registers },
        { offset: bar0.doorbellOffset, sizeBytes: bar0.pageBytes, registers: createDoorbellPage(port.log, hooks) },
      ],
      [MEMORY_BAR]: [{ offset: 0, sizeBytes: memory.sizeBytes, memory }],
    };
  }

  /** The next descriptor completes with this status. */
  failNext(status: number): void {
    this.#engine.failNext(status);
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

  /**
   * RESET wins over ENABLE, and at once: a driver that wrote it frees its ring, so nothing may be posted first. Returns
   * what CONTROL keeps.
   */
  #control(value: number): number {
    if ((value & control.reset) !== 0) {
      this.#port.restart();
      return 0; // of this model, which nobody sees any more: CONTROL of the new one is clear
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
    this.#port.log.warn('copy engine halted', { reason });
    this.#registers.set('ERROR', reason);
    this.#raise(cause.halt, vectors.halt);
  }

  /** Status first, message second: a handler that runs at once must see why. */
  #raise(bit: number, vector: number): void {
    this.#registers.set('INTERRUPT_STATUS', (this.#registers.get('INTERRUPT_STATUS') | bit) >>> 0);
    if ((this.#registers.get('INTERRUPT_ENABLE') & bit) !== 0) this.#port.interrupt(vector);
  }
}
