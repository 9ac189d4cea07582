/** One adapter between two resets: its blocks, wired together. */
import type { FunctionPort, MemoryRegion } from 'ghostbus';
import { Scheduler } from 'ghostbus/kit';
import { BAR0, MSIX_VECTORS } from './bar0.js';
import { Ethernet, type EthernetHost } from './ethernet/ethernet.js';
import { Allocators } from './firmware/allocators.js';
import { Capabilities, LIMITS } from './firmware/capabilities.js';
import type { CommandTable } from './firmware/command.js';
import { CommandInterface } from './firmware/command-interface.js';
import { controlCommands } from './firmware/hca-control.js';
import { objectTable } from './firmware/object-table.js';
import { PageSupply } from './firmware/pages.js';
import { eqeCmd } from './layouts/entries.js';
import { DeviceMemory } from './memory/device-memory.js';
import { HeapBudget } from './memory/heap-budget.js';
import { KeyedMemory } from './memory/keyed-memory.js';
import { MemoryKeys } from './memory/memory-keys.js';
import { PageFaults } from './memory/page-faults.js';
import { AccessRegisters } from './port/access-registers.js';
import { Counters } from './port/counters.js';
import { madCommands } from './port/mad.js';
import type { Profile } from './port/profile.js';
import { Vport } from './port/vport.js';
import { CompletionQueues } from './queues/completion-queue.js';
import { EVENT, EventQueues } from './queues/event-queue.js';
import { SharedReceiveQueues } from './queues/shared-receive-queue.js';
import { TURNS } from './queues/turns.js';
import type { WorkQueues } from './queues/work-queues.js';
import { QueuePairs, type QueuePairsHost } from './transport/queue-pairs.js';
import type { MessageRecorder } from './transport/sending.js';
import { Wire, type WireHost, type WirePlace } from './wire/wire.js';

/** Page lists and translation tables of a million keys of ordinary size. */
const HEAP_LIMIT_BYTES = 2 ** 30;
/** Numbers below are the special queue pairs of the InfiniBand specification. */
const FIRST_WORK_QUEUE = 0x40;

/** What an adapter needs of the machine. */
type AdapterPort = Pick<FunctionPort, 'dma' | 'clock' | 'log' | 'interrupt' | 'post'>;

/** What outlives a reset of the adapter. */
export interface AdapterPlace extends WirePlace {
  /** Memory behind BAR 0. */
  readonly memory: MemoryRegion;
}

export class Adapter implements QueuePairsHost, EthernetHost, WireHost {
  readonly port: AdapterPort;
  readonly profile: Profile;
  readonly budget = new HeapBudget(HEAP_LIMIT_BYTES);
  readonly counters = new Counters();
  readonly eventQueues: EventQueues;
  readonly completionQueues: CompletionQueues;
  readonly sharedReceiveQueues: SharedReceiveQueues;
  readonly deviceMemory: DeviceMemory;
  /** What memory keys lead to. */
  readonly memory: KeyedMemory;
  readonly memoryKeys: MemoryKeys;
  readonly pageFaults: PageFaults;
  readonly workQueues: WorkQueues;
  readonly queuePairs: QueuePairs;
  readonly ethernet: Ethernet;
  readonly vport: Vport;
  readonly cable: Wire;
  readonly recorder: MessageRecorder | undefined;
  readonly scheduler: Scheduler;
  readonly commandInterface: CommandInterface;
  readonly #allocators: Allocators;
  readonly #pages: PageSupply;

  constructor(port: AdapterPort, profile: Profile, place: AdapterPlace) {
    this.port = port;
    this.profile = profile;
    this.scheduler = new Scheduler(port, TURNS);
    this.eventQueues = new EventQueues(port, this.budget, MSIX_VECTORS);
    this.completionQueues = new CompletionQueues(port, this.eventQueues, this.budget, 2 ** LIMITS.logCompletionQueues);
    this.sharedReceiveQueues = new SharedReceiveQueues(
      port,
      this.eventQueues,
      this.budget,
      2 ** LIMITS.logSharedReceiveQueues,
    );
    this.deviceMemory = new DeviceMemory(place.memory, BAR0.memory.offset);
    this.memory = new KeyedMemory(port.dma, place.memory);
    this.memoryKeys = new MemoryKeys(this.budget, 2 ** LIMITS.logMemoryKeys, this.deviceMemory);
    this.pageFaults = new PageFaults(port, this.eventQueues);
    this.workQueues = objectTable('work queue', FIRST_WORK_QUEUE, 0xfffffe, 2 ** LIMITS.logQueuePairs);
    this.queuePairs = new QueuePairs(this);
    this.ethernet = new Ethernet(this);
    this.vport = new Vport(port, profile, this.eventQueues);
    this.#allocators = new Allocators(BAR0.firstUar, BAR0.lastUar);
    this.#pages = new PageSupply(profile);
    this.recorder = place.recorder;
    this.cable = new Wire(this, place);
    this.commandInterface = new CommandInterface(port, this.#commandTables(), () => this.#takeCommandEvents());
  }

  sendFrame(frame: Uint8Array): void {
    this.cable.sendFrame(frame);
  }

  /** Nobody finds this adapter any more; those that are just sending to it find its queue pairs gone. */
  stop(): void {
    this.cable.disconnect();
    for (const queue of this.workQueues.values()) queue.release();
  }

  inspect(): Record<string, unknown> {
    return {
      commands: Object.fromEntries(this.commandInterface.counts),
      objects: {
        ...this.#allocators.counts(),
        eventQueues: this.eventQueues.count,
        completionQueues: this.completionQueues.count,
        sharedReceiveQueues: this.sharedReceiveQueues.count,
        workQueues: this.workQueues.size,
        memoryKeys: this.memoryKeys.count,
        deviceMemory: this.deviceMemory.allocations,
        ...this.ethernet.counts,
        lentPages: this.#pages.count,
        heapBytes: this.budget.usedBytes,
      },
      pageFaults: { raised: this.pageFaults.raised, pending: this.pageFaults.pending },
      port: this.vport.inspect(),
      traffic: this.counters.inspect(),
    };
  }

  #commandTables(): CommandTable[] {
    return [
      controlCommands(),
      new Capabilities(this.profile, BAR0.memory.offset).commands,
      this.deviceMemory.commands,
      new AccessRegisters(this.profile, this.vport, this.counters).commands,
      madCommands(this.counters),
      this.#allocators.commands,
      this.#pages.commands,
      this.eventQueues.commands,
      this.completionQueues.commands,
      this.sharedReceiveQueues.commands,
      this.memoryKeys.commands,
      this.pageFaults.commands,
      this.queuePairs.commands,
      this.ethernet.commands,
      this.vport.commands,
      this.counters.commands,
    ];
  }

  #takeCommandEvents(): (slots: number) => void {
    const queues = this.eventQueues.subscribers(EVENT.COMMAND);
    return (slots) => {
      const data = eqeCmd.create();
      eqeCmd.set(data, 'vector', slots);
      // A queue that the command itself destroyed gets nothing.
      for (const queue of queues) {
        if (this.eventQueues.find(queue.number) === queue) queue.post(EVENT.COMMAND, 0, data);
      }
    };
  }
}
