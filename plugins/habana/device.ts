/** The device behind the BARs: its blocks and how they are wired to each other. The bus side is in `function.ts`. */
import type { FunctionPort, Log, MemoryRegion, RegisterBlock, Timer } from 'ghostbus';
import { gicRegisters, INTERRUPT_ID, interruptId } from './blocks/gic.js';
import { pcieCoreRegisters } from './blocks/pcie-core.js';
import { cpuPllRegisters } from './blocks/pll.js';
import { type BootFailure, Psoc, versionStrings } from './blocks/psoc.js';
import { Timestamp } from './blocks/timestamp.js';
import { bare, type FaultTarget } from './commands.js';
import { DmaCore } from './engines/dma-core.js';
import { mmeRegisters } from './engines/mme.js';
import { type ComputeEvents, tpcRegisters } from './engines/tpc.js';
import { CpuQueue } from './firmware/cpu-queue.js';
import { Cpucp, type CpucpOptions } from './firmware/cpucp.js';
import { EventMask } from './firmware/event-mask.js';
import { EventQueue } from './firmware/event-queue.js';
import { eventOfInterrupt, gaudiEvent, isFatal } from './firmware/events.js';
import { type SensorOptions, Sensors } from './firmware/sensors.js';
import { CFG_IN_BAR2, cfg, engines, PAGE_BYTES } from './interconnect/address-map.js';
import { ConfigWindow } from './interconnect/config-window.js';
import { type AccessDirection, DeviceFault } from './interconnect/device-fault.js';
import { Interconnect, PHYSICAL } from './interconnect/interconnect.js';
import { Mmu } from './interconnect/mmu.js';
import { Qman } from './queues/qman.js';
import { Scheduler } from './scheduler.js';
import { SYNC_MANAGER_BYTES, SyncManager } from './synchronization/sync-manager.js';
import { SyncManagers } from './synchronization/sync-managers.js';

const VERSION_BYTES = 128;
/** How long the firmware of a secured card lets the driver look at a fatal event; the driver gives it 2 s (GAUDI_RESET_TIMEOUT_MSEC). */
const RESET_AFTER_EVENT_MS = 200;
/** GAUDI_EVENT_DMA_IF_SEI_0 … 3 in the order of the sync managers (gaudi.c gaudi_print_sm_sei_info). */
const syncManagerNames = ['W_S', 'E_S', 'W_N', 'E_N'] as const;

/**
 * RAZWI_INITIATOR_ID_X_Y of the interface that DMA core n reaches the mesh through (gaudi_masks.h and
 * gaudi_get_razwi_initiator_dma_name): Y in bits 30:28, X in 27:24.
 */
const razwiInitiator = [0x10000000, 0x19000000, 0x10000000, 0x19000000, 0x30000000, 0x39000000, 0x30000000, 0x39000000];

export interface DeviceOptions extends CpucpOptions, SensorOptions {
  readonly bootFailure: BootFailure | undefined;
  /** A card whose firmware keeps the host out of what concerns security (1da3:1010). */
  readonly isSecured: boolean;
}

export interface DeviceMemories {
  readonly hbm: MemoryRegion;
  readonly sram: MemoryRegion;
  readonly registers: MemoryRegion;
}

export class Device implements FaultTarget {
  readonly config: ConfigWindow;
  readonly interconnect: Interconnect;
  readonly mmu: Mmu;
  readonly psoc: Psoc;
  readonly events = new EventQueue();
  readonly cpucp: Cpucp;
  readonly cpuQueue: CpuQueue;
  readonly sensors: Sensors;
  readonly scheduler = new Scheduler();
  readonly cores: readonly DmaCore[];
  readonly qmans: readonly Qman[];
  readonly syncManagers: SyncManagers;
  readonly timestamp: Timestamp;
  readonly #memories: DeviceMemories;
  readonly #log: Log;
  readonly #isSecured: boolean;
  readonly mask: EventMask;
  readonly #resettable: { reset(): void }[] = [];
  readonly #blocks: Pick<RegisterBlock, 'unimplemented' | 'nameAt'>[] = [];
  #port: FunctionPort | undefined;
  /** The reset that the firmware of a secured card is about to make. */
  #ownReset: Timer | undefined;
  readonly counters = { skippedJobs: 0, resets: 0, interrupts: 0 };

  constructor(memories: DeviceMemories, options: DeviceOptions, log: Log) {
    this.#memories = memories;
    this.#log = log;
    this.#isSecured = options.isSecured;
    this.config = new ConfigWindow(memories.registers);
    this.mask = new EventMask((event) => this.events.send(event));
    this.mmu = new Mmu(memories.hbm, { pageFault: (address, direction) => this.#pageFaulted(address, direction) }, log);
    this.interconnect = new Interconnect({ ...memories, config: this.config, mmu: this.mmu });
    this.timestamp = new Timestamp(log);
    this.psoc = new Psoc(
      {
        resetRequested: () => this.reset(),
        stageChanged: (stage) => log.info(`firmware stage: ${stage}`),
        interruptPolled: (interrupt) => this.#interruptRaised(interrupt),
        store: (address, bytes) => this.interconnect.write(address, bytes, PHYSICAL),
        load32: (address) => this.#load32(address),
      },
      options.isSecured,
      log,
    );
    this.sensors = new Sensors(options);
    this.cpucp = new Cpucp(
      options,
      this.sensors,
      {
        unmask: (types) => this.mask.unmask(types),
        monitorDump: () => this.syncManagers.monitorDump(),
      },
      log,
    );
    this.cpuQueue = new CpuQueue(this.cpucp, this.events, options.isSecured, log);
    this.syncManagers = this.#makeSyncManagers();
    this.cores = this.#makeCores();
    this.qmans = this.#makeQmans();
    this.#place();
    this.failBoot(options.bootFailure);
    this.psoc.reset();
    this.#powerOn();
  }

  attach(port: FunctionPort): void {
    this.#port = port;
    this.interconnect.attach(port);
    this.scheduler.attach(port);
    this.cpuQueue.attach(port);
    this.events.attach(port);
    this.timestamp.attach(port.clock);
    this.sensors.attach(port.clock);
  }

  /** Back to power-on; memories keep their contents. */
  reset(): void {
    this.counters.resets++;
    this.#ownReset?.cancel();
    this.#ownReset = undefined;
    for (const block of this.#resettable) block.reset();
    this.#powerOn();
  }

  /** Registers nobody declared, over all blocks that trap. */
  unimplemented(): { register: string; reads: number; writes: number }[] {
    return this.#blocks.flatMap((block) =>
      block.unimplemented().map(({ offset, reads, writes }) => ({ register: block.nameAt(offset), reads, writes })),
    );
  }

  // ---- faults on demand -------------------------------------------------------------------------------------------

  send(event: { type: number; data: Uint8Array }): void {
    this.events.send(event);
    if (this.#isSecured && isFatal(event.type)) {
      this.#ownReset ??= this.#port?.clock.after(RESET_AFTER_EVENT_MS, () => this.reset());
    }
  }

  pageFault(address: number): void {
    this.mmu.capturePageFault(address);
    this.send(bare(gaudiEvent.MMU_PAGE_FAULT));
  }

  qmanError(engine: string, stream: number, cause: number): void {
    this.#qman(engine).raise(stream, cause, 'asked for');
  }

  tpcError(index: number, cause: number): void {
    this.config.write32(cfg.tpcConfig[index]! + 0x958, cause);
    this.send(bare(gaudiEvent.TPC0_KRN_ERR + 6 * index));
  }

  stick(engine: string, stuck: boolean): void {
    const qman = this.#qman(engine);
    qman.isStuck = stuck;
    this.scheduler.wake(qman);
  }

  heartbeat(answers: boolean): void {
    this.cpucp.isAlive = answers;
  }

  failBoot(failure: BootFailure | undefined): void {
    this.psoc.failure = failure;
    this.cpuQueue.isDead = failure === 'cpu-queue';
  }

  sensor(kind: string, channel: number, value: number): void {
    this.sensors.set(kind, channel, value);
  }

  #qman(engine: string): Qman {
    const found = this.qmans.find((qman) => qman.instance.name === engine.toUpperCase());
    if (found === undefined) {
      throw new Error(`there is no engine ${engine}; known: ${engines.map(({ name }) => name).join(', ')}`);
    }
    return found;
  }

  // ---- construction -----------------------------------------------------------------------------------------------

  #makeSyncManagers(): SyncManagers {
    const managers = syncManagerNames.map(
      (name, index) =>
        new SyncManager(
          name,
          {
            payloadReady: () => this.scheduler.wake(this.syncManagers),
            overflow: (sob) => this.#syncManagerOverflow(index, sob),
          },
          this.#log,
        ),
    );
    return new SyncManagers(managers, this.interconnect, this.#log);
  }

  #makeCores(): DmaCore[] {
    const events = {
      failed: (core: DmaCore, fault: DeviceFault, sendMessage: boolean) => this.#coreFailed(core, fault, sendMessage),
      wake: (engine: DmaCore) => {
        this.scheduler.wake(engine);
        const qman = this.qmans[engine.index];
        if (qman !== undefined) this.scheduler.wake(qman);
      },
    };
    return cfg.dmaCores.map((_, index) => new DmaCore(index, this.interconnect, events, this.#log));
  }

  #makeQmans(): Qman[] {
    return engines.map(
      (instance) =>
        new Qman(instance, {
          interconnect: this.interconnect,
          config: this.config,
          core: instance.kind === 'dma' ? this.cores[instance.index] : undefined,
          log: this.#log,
          wake: (engine) => this.scheduler.wake(engine),
          timestamp: () => Number(this.timestamp.ticks & 0xffffffffn),
          afterMessage: () => this.syncManagers.drain(),
        }),
    );
  }

  /** Gives every block with behaviour its pages, and the device its order of reset: plain registers first. */
  #place(): void {
    const compute: ComputeEvents = {
      jobSkipped: (engine) => this.#jobSkipped(engine),
      signal: (address, value) => this.#signal(address, value),
    };
    const gic = gicRegisters((interrupt) => this.#interruptRaised(interrupt), this.#log);
    const pcie = pcieCoreRegisters(() => this.#sendInterrupt(), this.#log);
    const tpcs = cfg.tpcConfig.map((_, index) => tpcRegisters(index, compute, this.#log));
    const mmes = cfg.mmeControl.map((_, index) => mmeRegisters(index, compute, this.#log));
    this.#resettable.push(this.config, this.scheduler, this.mmu, this.psoc, this.events, this.mask);
    this.#resettable.push(this.cpucp, this.sensors, this.cpuQueue, this.syncManagers, this.timestamp, gic, pcie);
    this.#resettable.push(...this.cores, ...this.qmans, ...tpcs, ...mmes);
    const add = <Names extends string>(
      cfgOffset: number,
      block: RegisterBlock<Names>,
      sizeBytes = PAGE_BYTES,
    ): void => {
      this.config.add(cfgOffset, sizeBytes, block);
      this.#blocks.push(block);
    };
    add(cfg.gic, gic);
    add(cfg.pcieCore, pcie);
    add(cfg.mmuUp, this.mmu.up);
    add(cfg.stlb, this.mmu.stlb);
    add(cfg.timestamp, this.timestamp.registers);
    add(cfg.psoc, this.psoc.registers);
    add(cfg.cpuInterface, this.cpuQueue.registers);
    for (const [index, offset] of cfg.tpcConfig.entries()) add(offset, tpcs[index]!);
    for (const [index, offset] of cfg.mmeControl.entries()) add(offset, mmes[index]!);
    for (const [index, offset] of cfg.dmaCores.entries()) add(offset, this.cores[index]!.registers);
    for (const qman of this.qmans) add(qman.instance.qmanCfg, qman.registers);
    for (const [index, offset] of cfg.syncManagers.entries()) {
      add(offset, this.syncManagers.list[index]!.registers, SYNC_MANAGER_BYTES);
    }
  }

  /** What the boot ROM leaves behind: clocks, and the version strings in SRAM. */
  #powerOn(): void {
    for (const [offset, value] of cpuPllRegisters) this.#memories.registers.writeU32(CFG_IN_BAR2 + offset, value);
    for (const { sramOffset, text } of versionStrings) {
      const bytes = new Uint8Array(VERSION_BYTES);
      bytes.set(new TextEncoder().encode(text));
      this.#memories.sram.write(sramOffset, bytes);
    }
  }

  // ---- what blocks tell each other ----------------------------------------------------------------------------------

  #sendInterrupt(): void {
    this.counters.interrupts++;
    this.#port?.interrupt(0);
  }

  #interruptRaised(value: number): void {
    const interrupt = value & INTERRUPT_ID;
    if (interrupt === interruptId.queueUpdate) this.cpuQueue.doorbell();
    else if (interrupt === interruptId.halt) this.#halt();
    else if (interrupt === interruptId.eventsWanted) this.#port?.post(() => this.events.start());
    else this.#engineReported(interrupt);
  }

  #load32(address: number): number {
    const bytes = new Uint8Array(4);
    this.interconnect.read(address, bytes, PHYSICAL);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  /** The firmware of a secured card makes the reset for which the driver has it halt. */
  #halt(): void {
    if (this.#isSecured) this.reset();
    else this.psoc.halt();
  }

  #engineReported(interrupt: number): void {
    const type = eventOfInterrupt(interrupt);
    if (type === undefined) this.#log.warn('an interrupt that no engine raises was written to the GIC', { interrupt });
    else this.mask.report(bare(type));
  }

  #pageFaulted(address: number, direction: AccessDirection): void {
    this.#log.warn(`MMU page fault: ${direction} of 0x${address.toString(16)}`);
    this.mask.report(bare(gaudiEvent.MMU_PAGE_FAULT));
  }

  /** A decode error is also what the range registers would have caught: RAZWI. */
  #coreFailed(core: DmaCore, fault: DeviceFault, sendMessage: boolean): void {
    this.#log.warn(`DMA core ${core.index}: ${fault.message}`);
    if (fault.kind === 'decode') this.mmu.captureRazwi(fault.direction, razwiInitiator[core.index]!);
    if (!sendMessage) return;
    const r = core.registers;
    const address = r.get('ERRMSG_ADDR_HI') * 2 ** 32 + r.get('ERRMSG_ADDR_LO');
    this.#signal(address, r.get('ERRMSG_WDATA'));
  }

  /** SM_SEI_SO_OVERFLOW in struct hl_eq_sm_sei_data: the sync object, then the cause. */
  #syncManagerOverflow(index: number, sob: number): void {
    const event = bare(gaudiEvent.DMA_IF_SEI_0 + index);
    new DataView(event.data.buffer).setUint32(0, sob, true);
    this.mask.report(event);
  }

  #jobSkipped(engine: string): void {
    this.counters.skippedJobs++;
    this.#log.info(`${engine} was given a job; this device computes nothing and completes it`);
  }

  #signal(address: number, value: number): void {
    try {
      this.interconnect.write32(address, value, PHYSICAL);
    } catch (error) {
      if (!(error instanceof DeviceFault)) throw error;
      this.#log.warn(`a message of an engine went nowhere: ${error.message}`);
    }
  }
}
