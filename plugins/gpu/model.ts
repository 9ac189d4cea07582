import type { FunctionModel, FunctionPort } from 'ghostbus';
import { type FloodGuard, Scheduler } from 'ghostbus/kit';
import { declareDataFabric } from './bus/data-fabric.js';
import { DOORBELL_BYTES, Doorbells } from './bus/doorbells.js';
import { declareHdp, declareSmuio } from './bus/hdp.js';
import { Mmio } from './bus/mmio.js';
import { Nbio } from './bus/nbio.js';
import { MMIO_BYTES, storageRanges } from './bus/registers.js';
import { Psp } from './firmware/psp.js';
import { declareRlc } from './firmware/rlc.js';
import { Smu } from './firmware/smu.js';
import { InterruptHandler } from './interrupts/ih.js';
import type { FrameBuffer } from './memory/frame-buffer.js';
import { declareHive } from './memory/hive.js';
import { Hub } from './memory/hub.js';
import type { Extent } from './memory/page-tables.js';
import type { HubName, InjectedFault } from './memory/protection-faults.js';
import type { Product } from './product/product.js';

import { CommandProcessor } from './queues/cp.js';
import { Sdma } from './queues/sdma.js';

/** Which BAR is what (gmc_v9_0_mc_init, amdgpu_doorbell_init, amdgpu_device_init). */
export const BAR = { VRAM: 0, DOORBELLS: 2, REGISTERS: 5 } as const;

const VMIDS = 16;
/** Of accesses that nothing answers; a driver that is new here makes many at once. */
const REGISTER_WARNINGS = { records: 50, periodMs: 1000 };
/** More stretches than a buffer of any test has. */
const MAX_EXTENTS = 1024;

interface GpuModelParts {
  readonly port: FunctionPort;
  readonly product: Product;
  readonly frameBuffer: FrameBuffer;
  /** What the CPU and peers see of the VRAM. */
  readonly visibleBytes: number;
  /** The card's, which counts over resets. */
  readonly log: FloodGuard;
  /** How often the driver has reset this card. */
  readonly mode1Resets: number;
}

/** All blocks of the GPU in the power-on state. Work that an earlier one had posted never runs: its port is dead. */
export class GpuModel implements FunctionModel {
  readonly bars: FunctionModel['bars'];
  readonly #parts: GpuModelParts;
  readonly #mmio: Mmio;
  readonly #doorbells = new Doorbells();
  readonly #hubs: Readonly<Record<HubName, Hub>>;
  readonly #interrupts: InterruptHandler;
  readonly #psp: Psp;
  readonly #smu: Smu;
  readonly #engines: readonly Sdma[];
  readonly #processor: CommandProcessor;

  constructor(parts: GpuModelParts) {
    const { port, product, frameBuffer, visibleBytes, log } = parts;
    this.#parts = parts;
    const doorbells = this.#doorbells;
    const mmio = new Mmio(log.source('registers', REGISTER_WARNINGS), storageRanges(product.sdmaEngines));
    const interrupts = new InterruptHandler({ port, log, mmio, doorbells });
    const common = { port, log, frameBuffer, mmio, interrupts, doorbells, scheduler: new Scheduler(port) };
    const gfxhub = new Hub('gfxhub', common);
    const mmhub = new Hub('mmhub', common);
    declareFixedBlocks(product, common);
    const controllerParts = { ...common, hub: mmhub, modeReset: () => this.#modeReset() };
    this.#smu = new Smu(controllerParts);
    this.#psp = new Psp(controllerParts);
    const engineParts = { ...common, hub: mmhub };
    this.#engines = Array.from({ length: product.sdmaEngines }, (_, index) => new Sdma(index, engineParts));
    const sdmaSlots = this.#engines.map(({ userQueues }) => userQueues);
    this.#processor = new CommandProcessor({ ...common, hub: gfxhub, mmhub, sdmaSlots });
    this.#mmio = mmio;
    this.#hubs = { gfxhub, mmhub };
    this.#interrupts = interrupts;
    this.bars = {
      [BAR.VRAM]: [{ offset: 0, sizeBytes: visibleBytes, memory: frameBuffer.vram }],
      [BAR.DOORBELLS]: [{ offset: 0, sizeBytes: DOORBELL_BYTES, registers: doorbells }],
      [BAR.REGISTERS]: [{ offset: 0, sizeBytes: MMIO_BYTES, registers: mmio }],
    };
  }

  /** The driver asked PSP or SMU for it. */
  #modeReset(): void {
    this.#parts.log.info('MODE1 reset requested by the driver');
    this.#parts.port.restart();
  }

  /**
   * Where a virtual range lies for SDMA: per VMID that has it mapped, the stretches that follow one another. For people
   * and tests that know a buffer's address in a process and want to see it in VRAM.
   */
  translate(address: number, lengthBytes: number): { vmid: number; extents: Extent[] }[] {
    const found: { vmid: number; extents: Extent[] }[] = [];
    for (let vmid = 0; vmid < VMIDS; vmid++) {
      const extents: Extent[] = [];
      for (let done = 0; done < lengthBytes && extents.length < MAX_EXTENTS; ) {
        const extent = this.#hubs.mmhub.space(vmid).extent(address + done, lengthBytes - done);
        if (extent.target === 'none') break;
        extents.push(extent);
        done += extent.lengthBytes;
      }
      if (extents.length > 0) found.push({ vmid, extents });
    }
    return found;
  }

  /** Page faults that no access caused; returns whether they are reported. */
  injectFault(hub: HubName, fault: InjectedFault): boolean {
    return this.#hubs[hub].inject(fault);
  }

  /** The next vectors never reach a ring, the next messages are never sent. */
  loseInterrupts(lost: { readonly vectors: number; readonly messages: number }): void {
    this.#interrupts.lose(lost);
  }

  /** The card is pulled out: see FunctionPort.vanish. */
  remove(): string {
    this.#parts.port.vanish();
    return 'gone';
  }

  /** A queue, by the name that `inspect` shows, executes nothing any more until it is set up anew. */
  hang(name: string): string {
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
  eccError(engine: 'sdma0' | 'cp', vmid: number): boolean {
    return engine === 'cp' ? this.#processor.eccError(vmid) : this.#engines[0]!.eccError(vmid);
  }

  inspect(): unknown {
    const { frameBuffer, visibleBytes, mode1Resets, log } = this.#parts;
    return {
      vramBytes: frameBuffer.vram.sizeBytes,
      visibleBytes,
      hive: frameBuffer.hive,
      mode1Resets,
      complaints: log.counts(),
      sdma: Object.assign({}, ...this.#engines.map((engine) => engine.inspect())),
      compute: this.#processor.inspect(),
      interrupts: this.#interrupts.inspect(),
      psp: this.#psp.inspect(),
      smu: this.#smu.inspect(),
      gfxhub: this.#hubs.gfxhub.inspect(),
      mmhub: this.#hubs.mmhub.inspect(),
      doorbells: this.#doorbells.inspect(),
      registers: this.#mmio.inspect(),
    };
  }
}

/** Blocks that are nothing but registers. */
function declareFixedBlocks(
  product: Product,
  { port, mmio, frameBuffer }: { port: FunctionPort; mmio: Mmio; frameBuffer: FrameBuffer },
): void {
  new Nbio(frameBuffer.vram, mmio);
  if (product.aldebaran) {
    declareHive(mmio, frameBuffer);
    declareDataFabric(mmio);
  }
  declareHdp(mmio);
  declareSmuio(mmio);
  declareRlc(port.clock, mmio);
}
