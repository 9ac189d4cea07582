/**
 * The device behind the BARs: its blocks and how they are wired to each other. It is made at power-on and thrown away
 * at every reset, the driver's own too; what outlives one is the card's (`card.ts`).
 */
import type {
  BarMemory,
  BarParts,
  BarRegisters,
  FunctionModel,
  FunctionPort,
  MemoryRegion,
  PowerOnCause,
  RegisterBlock,
} from 'ghostbus';
import { ImageBuilder, type Runnable, Scheduler } from 'ghostbus/kit';
import { gicRegisters } from './blocks/gic.js';
import { pcieCoreRegisters } from './blocks/pcie-core.js';
import { CPU_PLL_REGISTERS } from './blocks/pll.js';
import { VERSION_BYTES, VERSION_STRINGS } from './blocks/psoc.js';
import { Timestamp } from './blocks/timestamp.js';
import type { Card } from './card.js';
import { DmaCore } from './engines/dma-core.js';
import { mmeRegisters } from './engines/mme.js';
import { type ComputeEvents, tpcRegisters } from './engines/tpc.js';
import type { BootFailure } from './firmware/boot-failure.js';
import { eventOf, type FirmwareEvent } from './firmware/event-queue.js';
import { GAUDI_EVENT, tpcErrorEvent } from './firmware/events.js';
import { ManagementProcessor } from './firmware/management-processor.js';
import { CFG, ENGINES, PAGE_BYTES } from './interconnect/address-map.js';
import { ConfigWindow } from './interconnect/config-window.js';
import { type AccessDirection, DeviceFault } from './interconnect/device-fault.js';
import type { ElbiMailbox } from './interconnect/elbi.js';
import { Interconnect, PHYSICAL } from './interconnect/interconnect.js';
import { Mmu } from './interconnect/mmu.js';
import { Qman } from './queues/qman.js';
import { SYNC_MANAGER_BYTES, SyncManager } from './synchronization/sync-manager.js';
import { SyncManagers } from './synchronization/sync-managers.js';

export const SRAM_BAR = 0;
export const CFG_BAR = 2;
export const HBM_BAR = 4;

/** GAUDI_EVENT_DMA_IF_SEI_0 … 3 in the order of the sync managers (gaudi.c gaudi_print_sm_sei_info). */
const SYNC_MANAGER_NAMES = ['W_S', 'E_S', 'W_N', 'E_N'] as const;

/**
 * RAZWI_INITIATOR_ID_X_Y of the interface that DMA core n reaches the mesh through (gaudi_masks.h and
 * gaudi_get_razwi_initiator_dma_name): Y in bits 30:28, X in 27:24.
 */
const RAZWI_INITIATORS = [
  0x10000000, 0x19000000, 0x10000000, 0x19000000, 0x30000000, 0x39000000, 0x30000000, 0x39000000,
] as const;

export class Device implements FunctionModel {
  readonly bars: Readonly<Record<number, BarParts>>;
  readonly configRegisters: readonly BarRegisters[];
  readonly interconnect: Interconnect;
  readonly cores: readonly DmaCore[];
  readonly syncManagers: SyncManagers;
  readonly #port: FunctionPort;
  readonly #card: Card;
  readonly #config: ConfigWindow;
  readonly #scheduler: Scheduler;
  readonly #mmu: Mmu;
  readonly #timestamp: Timestamp;
  readonly #processor: ManagementProcessor;
  readonly #qmans: readonly Qman[];
  readonly #tpcs: readonly ReturnType<typeof tpcRegisters>[];
  readonly #blocks: Pick<RegisterBlock, 'name' | 'unimplemented' | 'nameAt'>[] = [];
  readonly #counters: Record<'skippedJobs' | 'resets' | 'interrupts', number>;
  readonly #compute: ComputeEvents = {
    jobSkipped: (engine) => this.#jobSkipped(engine),
    signal: (address, value) => this.#signal(address, value),
  };

  constructor(port: FunctionPort, cause: PowerOnCause, card: Card, elbi: ElbiMailbox) {
    this.#port = port;
    this.#card = card;
    this.#counters = card.statistics.of('device', 'skippedJobs', 'resets', 'interrupts');
    if (cause !== 'attach') this.#counters.resets++;
    this.#config = new ConfigWindow(card.memories.registers);
    this.#scheduler = new Scheduler(port);
    this.#mmu = new Mmu(card, { pageFault: (address, direction) => this.#pageFaulted(address, direction) });
    this.interconnect = new Interconnect({ port, memories: card.memories, config: this.#config, mmu: this.#mmu });
    this.#timestamp = new Timestamp(port.clock, card.log);
    this.#processor = new ManagementProcessor({
      port,
      card,
      scheduler: this.#scheduler,
      interconnect: this.interconnect,
      monitorDump: () => this.syncManagers.monitorDump(),
    });
    this.syncManagers = this.#makeSyncManagers();
    this.cores = this.#makeCores();
    this.#qmans = this.#makeQmans();
    this.#tpcs = CFG.tpcConfig.map((_, index) => tpcRegisters(index, this.#compute, card.log));
    this.#place();
    this.#bootRom();
    elbi.connect(this.#config);
    this.configRegisters = [elbi.configRegisters];
    this.bars = {
      [SRAM_BAR]: [wholeOf(card.memories.sram)],
      [CFG_BAR]: this.#config.parts(),
      [HBM_BAR]: [wholeOf(card.memories.hbm)],
    };
  }

  /** What is still under way ends at its next access, or at the end of its step. */
  powerOff(): void {
    this.#scheduler.stop();
    this.interconnect.powerOff();
    const { statistics } = this.#card;
    statistics.of('scheduler', 'slices').slices += this.#scheduler.counters.slices;
    statistics.keepUnimplemented(this.#blocks);
  }

  inspect(): unknown {
    const { label, memories, statistics } = this.#card;
    const busy = this.#qmans.filter((qman) => !qman.isIdle || qman.counters.doorbells > 0);
    return {
      serialNumber: label.serialNumber,
      ...this.#counters,
      ...this.#processor.inspect(),
      mmu: this.#mmu.counters,
      payloads: this.syncManagers.counters.payloads,
      slices: statistics.of('scheduler', 'slices').slices + this.#scheduler.counters.slices,
      queues: Object.fromEntries(busy.map((qman) => [qman.instance.name, qman.inspect()])),
      dma: Object.fromEntries(this.cores.map((core) => [`DMA${core.index}`, { busy: core.isBusy, ...core.counters }])),
      hbmAllocatedBytes: memories.hbm.allocatedBytes(),
      sramAllocatedBytes: memories.sram.allocatedBytes(),
      unimplemented: statistics.unimplemented(this.#blocks),
    };
  }

  // ---- events and faults on demand (commands.ts) --------------------------------------------------------------------

  send(event: FirmwareEvent): void {
    this.#processor.send(event);
  }

  pageFault(address: number): void {
    this.#mmu.capturePageFault(address);
    this.send(eventOf(GAUDI_EVENT.MMU_PAGE_FAULT));
  }

  qmanError(engine: string, stream: number, cause: number): void {
    this.#qman(engine).raise(stream, cause, 'asked for');
  }

  tpcError(index: number, cause: number): void {
    this.#tpcs[index]!.set('TPC_INTR_CAUSE', cause);
    this.send(eventOf(tpcErrorEvent(index)));
  }

  stick(engine: string, stuck: boolean): void {
    const qman = this.#qman(engine);
    qman.isStuck = stuck;
    this.#scheduler.wake(qman);
  }

  heartbeat(answers: boolean): void {
    this.#processor.cpucp.isAlive = answers;
  }

  failBoot(failure: BootFailure | undefined): void {
    this.#card.bootFailure = failure;
  }

  sensor(kind: string, channel: number, value: number): void {
    this.#card.sensors.set(kind, channel, value);
  }

  #qman(engine: string): Qman {
    const found = this.#qmans.find((qman) => qman.instance.name === engine.toUpperCase());
    if (found === undefined) {
      throw new Error(`there is no engine ${engine}; known: ${ENGINES.map(({ name }) => name).join(', ')}`);
    }
    return found;
  }

  // ---- construction -----------------------------------------------------------------------------------------------

  #makeSyncManagers(): SyncManagers {
    const managers = SYNC_MANAGER_NAMES.map((name, index) => {
      const events = {
        payloadReady: () => this.#scheduler.wake(this.syncManagers),
        overflow: (sob: number) => this.#syncManagerOverflow(index, sob),
      };
      return new SyncManager(name, events, this.#card.log);
    });
    return new SyncManagers(managers, this.interconnect, this.#card);
  }

  #makeCores(): DmaCore[] {
    const events = {
      failed: (core: DmaCore, fault: DeviceFault, sendMessage: boolean) => this.#coreFailed(core, fault, sendMessage),
      wake: (core: DmaCore) => {
        this.#scheduler.wake(core);
        const qman = this.#qmans[core.index];
        if (qman !== undefined) this.#scheduler.wake(qman);
      },
    };
    return CFG.dmaCores.map((_, index) => new DmaCore(index, this.interconnect, events, this.#card));
  }

  #makeQmans(): Qman[] {
    const services = {
      interconnect: this.interconnect,
      card: this.#card,
      wake: (engine: Runnable) => this.#scheduler.wake(engine),
      timestamp: () => this.#timestamp.low,
      afterMessage: () => this.syncManagers.drain(),
    };
    return ENGINES.map((instance) => {
      const core = instance.kind === 'dma' ? this.cores[instance.index] : undefined;
      return new Qman(instance, { ...services, core });
    });
  }

  /** Gives every block with behaviour its pages. */
  #place(): void {
    const { log } = this.#card;
    const add = <Names extends string>(
      cfgOffset: number,
      block: RegisterBlock<Names>,
      sizeBytes = PAGE_BYTES,
    ): void => {
      this.#config.add(cfgOffset, sizeBytes, block);
      this.#blocks.push(block);
    };
    add(
      CFG.gic,
      gicRegisters((interrupt) => this.#processor.interrupt(interrupt), log),
    );
    add(
      CFG.pcieCore,
      pcieCoreRegisters(() => this.#sendInterrupt(), log),
    );
    add(CFG.mmuUp, this.#mmu.up);
    add(CFG.stlb, this.#mmu.stlb);
    add(CFG.timestamp, this.#timestamp.registers);
    add(CFG.psoc, this.#processor.psoc.registers);
    add(CFG.cpuInterface, this.#processor.cpuQueue.registers);
    for (const [index, offset] of CFG.tpcConfig.entries()) add(offset, this.#tpcs[index]!);
    for (const [index, offset] of CFG.mmeControl.entries()) add(offset, mmeRegisters(index, this.#compute, log));
    for (const [index, offset] of CFG.dmaCores.entries()) add(offset, this.cores[index]!.registers);
    for (const qman of this.#qmans) add(qman.instance.qmanCfg, qman.registers);
    for (const [index, offset] of CFG.syncManagers.entries()) {
      add(offset, this.syncManagers.list[index]!.registers, SYNC_MANAGER_BYTES);
    }
  }

  /** What the boot ROM leaves behind: clocks, and the version strings in SRAM. */
  #bootRom(): void {
    for (const [offset, value] of CPU_PLL_REGISTERS) this.#config.write32(offset, value);
    for (const { sramOffset, text } of VERSION_STRINGS) {
      const { bytes } = new ImageBuilder({ sizeBytes: VERSION_BYTES }).text(0, text);
      this.#card.memories.sram.write(sramOffset, bytes);
    }
  }

  // ---- what blocks tell each other ----------------------------------------------------------------------------------

  #sendInterrupt(): void {
    this.#counters.interrupts++;
    this.#port.interrupt(0);
  }

  #pageFaulted(address: number, direction: AccessDirection): void {
    this.#card.log.warn(`MMU page fault: ${direction} of 0x${address.toString(16)}`);
    this.#processor.report(eventOf(GAUDI_EVENT.MMU_PAGE_FAULT));
  }

  /** A decode error is also what the range registers would have caught: RAZWI. */
  #coreFailed(core: DmaCore, fault: DeviceFault, sendMessage: boolean): void {
    this.#card.log.warn(`DMA core ${core.index}: ${fault.message}`);
    if (fault.kind === 'decode') this.#mmu.captureRazwi(fault.direction, RAZWI_INITIATORS[core.index]!);
    if (sendMessage) this.#signal(core.errorMessage.address, core.errorMessage.value);
  }

  /** SM_SEI_SO_OVERFLOW in struct hl_eq_sm_sei_data: the sync object, then the cause. */
  #syncManagerOverflow(index: number, sob: number): void {
    this.#processor.report(eventOf(GAUDI_EVENT.DMA_IF_SEI_0 + index, sob));
  }

  #jobSkipped(engine: string): void {
    this.#counters.skippedJobs++;
    this.#card.log.info(`${engine} was given a job; this device computes nothing and completes it`);
  }

  #signal(address: number, value: number): void {
    try {
      this.interconnect.write32(address, value, PHYSICAL);
    } catch (error) {
      if (!(error instanceof DeviceFault)) throw error;
      this.#card.log.warn(`a message of an engine went nowhere: ${error.message}`);
    }
  }
}

function wholeOf(memory: MemoryRegion): BarMemory {
  return { offset: 0, sizeBytes: memory.sizeBytes, memory };
}
