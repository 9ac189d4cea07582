/**
 * All sync managers together: writes out what their monitors want written. A payload may arm or satisfy another
 * monitor, in a circle if the guest wants it so; a slice writes a bounded number of them.
 */
import type { Log } from 'ghostbus';
import { COST, ImageBuilder, type Runnable, type TurnResult, type WorkBudget } from 'ghostbus/kit';
import type { Card } from '../card.js';
import { DeviceFault } from '../interconnect/device-fault.js';
import { type Interconnect, PHYSICAL } from '../interconnect/interconnect.js';
import { MONITORS, type PayloadWrite, SYNC_MANAGER_OFFSETS, type SyncManager } from './sync-manager.js';

/** Payloads that one message may set off before the rest has to wait for a turn. */
const WRITES_AT_ONCE = 1024;

export class SyncManagers implements Runnable {
  readonly list: readonly SyncManager[];
  readonly #interconnect: Interconnect;
  readonly #log: Log;
  readonly counters: Record<'payloads' | 'failed', number>;

  constructor(list: readonly SyncManager[], interconnect: Interconnect, { statistics, log }: Card) {
    this.list = list;
    this.#interconnect = interconnect;
    this.#log = log;
    this.counters = statistics.of('sync managers', 'payloads', 'failed');
  }

  turn(budget: WorkBudget): TurnResult {
    const written = this.drain();
    budget.charge(written * COST.registerAccess);
    return written === WRITES_AT_ONCE ? 'ready' : 'idle';
  }

  /** Writes what waits, within bounds; returns how many. */
  drain(): number {
    for (let count = 0; count < WRITES_AT_ONCE; count++) {
      const write = this.#take();
      if (write === undefined) return count;
      this.#write(write);
    }
    return WRITES_AT_ONCE;
  }

  #take(): PayloadWrite | undefined {
    for (const manager of this.list) {
      const write = manager.takeWrite();
      if (write !== undefined) return write;
    }
    return undefined;
  }

  #write({ address, value }: PayloadWrite): void {
    this.counters.payloads++;
    try {
      this.#interconnect.write32(address, value, PHYSICAL);
    } catch (error) {
      if (!(error instanceof DeviceFault)) throw error;
      this.counters.failed++;
      this.#log.warn(`a monitor's payload went nowhere: ${error.message}`);
    }
  }

  /** struct cpucp_monitor_dump: five arrays for each of W_S, E_S, W_N, E_N. */
  monitorDump(): Uint8Array {
    const { payloadAddressLow, payloadAddressHigh, payloadData, arm, status } = SYNC_MANAGER_OFFSETS;
    const arrays = [payloadAddressLow, payloadAddressHigh, payloadData, arm, status];
    const image = new ImageBuilder();
    for (const { registers } of this.list) {
      for (const offset of arrays) {
        const values = Array.from({ length: MONITORS }, (_, monitor) => registers.read(offset + 4 * monitor, 4));
        image.u32(image.endBytes, ...values);
      }
    }
    return image.bytes;
  }
}
