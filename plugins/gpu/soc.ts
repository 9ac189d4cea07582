import type { FunctionPort } from 'ghostbus';
import { type FloodGuard, Scheduler } from 'ghostbus/kit';
import { declareDataFabric } from './bus/data-fabric.js';
import { Doorbells } from './bus/doorbells.js';
import { declareHdp, declareSmuio } from './bus/hdp.js';
import { Mmio } from './bus/mmio.js';
import { Nbio } from './bus/nbio.js';
import { storageRanges } from './bus/registers.js';
import type { Command } from './commands.js';
import { Psp } from './firmware/psp.js';
import { declareRlc } from './firmware/rlc.js';
import { Smu } from './firmware/smu.js';
import { InterruptHandler } from './interrupts/ih.js';
import type { FrameBuffer } from './memory/frame-buffer.js';
import { declareHive } from './memory/hive.js';
import { Hub } from './memory/hub.js';
import type { Extent } from './memory/page-tables.js';
import type { Product } from './product/product.js';

import { CommandProcessor } from './queues/cp.js';
import { Sdma } from './queues/sdma.js';

const VMIDS = 16;
/** Of accesses that nothing answers; a driver that is new here makes many at once. */
const REGISTER_WARNINGS = { records: 50, periodMs: 1000 };
/** More stretches than a buffer of any test has. */
const MAX_EXTENTS = 1024;

interface SocParts {
  readonly port: FunctionPort;
  readonly product: Product;
  readonly frameBuffer: FrameBuffer;
  readonly log: FloodGuard;
}

/**
 * All blocks of the GPU in the power-on state. A reset throws this away and makes a new one, so that no block needs to know
 * how to reset itself; work that the old one had posted never runs.
 */
export class Soc {
  readonly mmio: Mmio;
  readonly doorbells: Doorbells;
  readonly #scheduler: Scheduler;
  readonly #hubs: readonly Hub[];
  readonly #interrupts: InterruptHandler;
  readonly #psp: Psp;
  readonly #smu: Smu;
  readonly #engines: readonly Sdma[];
  readonly #processor: CommandProcessor;

  /** `modeReset` is called when the driver asks the PSP for a MODE1 reset. */
  constructor({ port, product, frameBuffer, log }: SocParts, modeReset: () => void) {
    const mmio = new Mmio(log.source('registers', REGISTER_WARNINGS), storageRanges(product.sdmaEngines));
    const doorbells = new Doorbells();
    const scheduler = new Scheduler(port);
    const interrupts = new InterruptHandler({ port, log, mmio, doorbells });
    const common = { port, log, frameBuffer, mmio, interrupts, doorbells, scheduler };
    const gfxhub = new Hub('gfxhub', common);
    const mmhub = new Hub('mmhub', common);
    new Nbio(frameBuffer.vram, mmio);
    if (product.aldebaran) {
      declareHive(mmio, frameBuffer);
      declareDataFabric(mmio);
    }
    declareHdp(mmio);
    declareSmuio(mmio);
    declareRlc(port.clock, mmio);
    this.#smu = new Smu({ ...common, hub: mmhub, modeReset });
    this.#psp = new Psp({ ...common, hub: mmhub, modeReset });
    const engineParts = { ...common, hub: mmhub };
    this.#engines = Array.from({ length: product.sdmaEngines }, (_, index) => new Sdma(index, engineParts));
    const sdmaSlots = this.#engines.map(({ userQueues }) => userQueues);
    this.#processor = new CommandProcessor({ ...common, hub: gfxhub, mmhub, sdmaSlots });
    this.mmio = mmio;
    this.doorbells = doorbells;
    this.#scheduler = scheduler;
    this.#hubs = [gfxhub, mmhub];
    this.#interrupts = interrupts;
  }

  /** Nothing of this power cycle runs any more. */
  stop(): void {
    this.#scheduler.stop();
  }

  /**
   * Where a virtual range lies for SDMA: per VMID that has it mapped, the stretches that follow one another. For people and
   * tests that know a buffer's address in a process and want to see it in VRAM.
   */
  translate(address: number, lengthBytes: number): { vmid: number; extents: Extent[] }[] {
    const found: { vmid: number; extents: Extent[] }[] = [];
    for (let vmid = 0; vmid < VMIDS; vmid++) {
      const extents: Extent[] = [];
      for (let done = 0; done < lengthBytes && extents.length < MAX_EXTENTS; ) {
        const extent = this.#hubs[1]!.space(vmid).extent(address + done, lengthBytes - done);
        if (extent.target === 'none') break;
        extents.push(extent);
        done += extent.lengthBytes;
      }
      if (extents.length > 0) found.push({ vmid, extents });
    }
    return found;
  }

  /** Carries out what `ghostbus ctl` asked for. Throws an Error that says what cannot be done. */
  control(request: Exclude<Command, { command: 'remove' }>): unknown {
    switch (request.command) {
      case 'translate':
        return this.translate(request.address, request.bytes);
      case 'page-fault': {
        const hub = this.#hubs.find(({ name }) => name === request.hub)!;
        return { reported: hub.inject(request) };
      }
      case 'hang':
        return this.#hang(request.queue);
      case 'lose-interrupts':
        return this.#interrupts.lose(request);
      case 'ecc-error':
        return { reported: this.#eccError(request.engine, request.vmid) };
    }
  }

  #hang(name: string): string {
    const queues = [...this.#engines, this.#processor].flatMap((engine) => engine.commandQueues);
    const queue = queues.find((candidate) => candidate.name === name && candidate.state !== 'off');
    if (queue === undefined) {
      const running = queues.filter(({ state }) => state !== 'off').map((candidate) => candidate.name);
      throw new Error(`gpu: no queue ${JSON.stringify(name)} is set up; there are: ${running.join(', ')}`);
    }
    queue.hang('on demand');
    return `${name} hangs`;
  }

  /** Reported only where the driver wants it: it does not without a RAS block, which this ASIC has not. */
  #eccError(engine: 'sdma0' | 'cp', vmid: number): boolean {
    return engine === 'cp' ? this.#processor.eccError(vmid) : this.#engines[0]!.eccError(vmid);
  }

  inspect(): Record<string, unknown> {
    return {
      sdma: Object.assign({}, ...this.#engines.map((engine) => engine.inspect())),
      compute: this.#processor.inspect(),
      interrupts: this.#interrupts.inspect(),
      psp: this.#psp.inspect(),
      smu: this.#smu.inspect(),
      ...Object.fromEntries(this.#hubs.map((hub) => [hub.name, hub.inspect()])),
      doorbells: this.doorbells.inspect(),
      registers: this.mmio.inspect(),
    };
  }
}
