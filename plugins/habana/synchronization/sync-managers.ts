/**
 * All sync managers together: writes out what their monitors want written. A payload may arm or satisfy another monitor, in
 * a circle if the guest wants it so; a slice writes a bounded number of them.
 */
import type { Log } from 'ghostbus';
import { DeviceFault } from '../interconnect/device-fault.js';
import { type Interconnect, PHYSICAL } from '../interconnect/interconnect.js';
import type { Engine } from '../scheduler.js';
import { MONITORS, type PayloadWrite, type SyncManager, syncManagerOffsets } from './sync-manager.js';

const WRITES_PER_STEP = 1024;
/** What a payload costs of a slice. */
const WRITE_COST_BYTES = 2048;

export class SyncManagers implements Engine {
  readonly list: readonly SyncManager[];
  readonly #interconnect: Interconnect;
  readonly #log: Log;
  readonly counters = { payloads: 0, failed: 0 };

  constructor(list: readonly SyncManager[], interconnect: Interconnect, log: Log) {
    this.list = list;
    this.#interconnect = interconnect;
    this.#log = log;
  }

  reset(): void {
    for (const manager of this.list) manager.reset();
  }

  step(): number {
    return this.drain() * WRITE_COST_BYTES;
  }

  /** Writes what waits, within bounds; returns how many. */
  drain(): number {
    for (let count = 0; count < WRITES_PER_STEP; count++) {
      const write = this.#take();
      if (write === undefined) return count;
      this.#write(write);
    }
    return WRITES_PER_STEP;
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
    const { payloadAddressLow, payloadAddressHigh, payloadData, arm, status } = syncManagerOffsets;
    const arrays = [payloadAddressLow, payloadAddressHigh, payloadData, arm, status];
    const bytes = new Uint8Array(4 * arrays.length * MONITORS * 4);
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const { registers } of this.list) {
      for (const offset of arrays) {
        for (let monitor = 0; monitor < MONITORS; monitor++, at += 4) {
          view.setUint32(at, registers.read(offset + 4 * monitor, 4), true);
        }
      }
    }
    return bytes;
  }
}
