/**
 * One sync manager: 2048 sync objects (SOBs) and 512 monitors. A monitor watches up to eight neighbouring SOBs; when
 * every one it watches satisfies its condition, it disarms and writes its payload to an address.
 *
 * Source: Linux gaudi.c (gaudi_add_mon_pkts, gaudi_add_arm_monitor_pkt, gaudi_print_single_monitor), gaudi_masks.h
 * (SYNC_MNGR_W_S_SYNC_MNGR_OBJS_MON_ARM_0_*, MON_STATUS_0_*), gaudi_packets.h (GAUDI_PKT_SHORT_VAL_SOB_*).
 */
import { type Log, RegisterBlock } from 'ghostbus';
import { BitFields32 } from 'ghostbus/kit';
import { addressOf } from '../interconnect/address-map.js';

/** NUM_OF_SOB_IN_BLOCK, NUM_OF_MONITORS_IN_BLOCK, MONITOR_MAX_SOBS (gaudiP.h). */
const SOBS = 2048;
export const MONITORS = 512;
const SOBS_PER_GROUP = 8;
/** GAUDI_PKT_SHORT_VAL_SOB_SYNC_VAL_MASK, SOB_MOD_MASK. */
const SOB_VALUE = 0x7fff;
const SOB_ADD = 0x80000000;
/** MON_ARM: which group of objects, which of it are left out, and what value the others must be equal to or reach. */
const ARM = new BitFields32({ group: [0, 8], ignored: [8, 8], isEqual: [16, 1], target: [17, 15] });
const STATUS = new BitFields32({ valid: [0, 1], pending: [1, 8] });
/**
 * Payload writes that wait; a guest can have no more in flight than it armed monitors, so this is never reached in
 * order.
 */
const MAX_PENDING_WRITES = 64 * MONITORS;

export const SYNC_MANAGER_OFFSETS = {
  sob: 0x0000,
  payloadAddressLow: 0x2000,
  payloadAddressHigh: 0x2800,
  payloadData: 0x3000,
  arm: 0x3800,
  status: 0x4000,
} as const;

export const SYNC_MANAGER_BYTES = 0x5000;

interface SyncManagerEvents {
  /** Payload writes wait in {@link SyncManager.takeWrite}. */
  payloadReady(): void;
  /** An addition left the 15 bits of a SOB (SM_SEI_SO_OVERFLOW, cpucp_if.h). */
  overflow(sob: number): void;
}

export interface PayloadWrite {
  readonly address: number;
  readonly value: number;
}

export class SyncManager {
  readonly name: string;
  readonly registers: RegisterBlock;
  readonly #events: SyncManagerEvents;
  readonly #sobs = new Uint16Array(SOBS);
  readonly #arms = new Uint32Array(MONITORS);
  readonly #armedInGroup = new Map<number, Set<number>>();
  readonly #isArmed = new Uint8Array(MONITORS);
  readonly #log: Log | undefined;
  readonly #writes: PayloadWrite[] = [];

  constructor(name: string, events: SyncManagerEvents, log?: Log) {
    this.name = name;
    this.#events = events;
    this.#log = log;
    this.registers = new RegisterBlock(
      { name: `SYNC_MNGR_${name}`, sizeBytes: SYNC_MANAGER_BYTES, undeclared: 'storage', ...(log && { log }) },
      {
        SOB_OBJ: {
          offset: SYNC_MANAGER_OFFSETS.sob,
          count: SOBS,
          onRead: (_stored, index) => this.#sobs[index]!,
          onWrite: (value, _previous, index) => this.#writeSob(index, value),
        },
        MON_PAY_ADDRL: { offset: SYNC_MANAGER_OFFSETS.payloadAddressLow, count: MONITORS },
        MON_PAY_ADDRH: { offset: SYNC_MANAGER_OFFSETS.payloadAddressHigh, count: MONITORS },
        MON_PAY_DATA: { offset: SYNC_MANAGER_OFFSETS.payloadData, count: MONITORS },
        MON_ARM: {
          offset: SYNC_MANAGER_OFFSETS.arm,
          count: MONITORS,
          onWrite: (value, _previous, index) => this.#arm(index, value),
        },
        MON_STATUS: {
          offset: SYNC_MANAGER_OFFSETS.status,
          count: MONITORS,
          writable: 0,
          onRead: (_stored, index) => this.#status(index),
        },
      },
    );
  }

  get armedMonitors(): number {
    return this.#isArmed.reduce((sum, armed) => sum + armed, 0);
  }

  /** The next payload that a fired monitor wants written, in the order they fired. */
  takeWrite(): PayloadWrite | undefined {
    return this.#writes.shift();
  }

  #writeSob(index: number, written: number): void {
    let value = written & SOB_VALUE;
    if ((written & SOB_ADD) !== 0) {
      value += this.#sobs[index]!;
      if (value > SOB_VALUE) this.#events.overflow(index);
    }
    this.#sobs[index] = value & SOB_VALUE;
    const group = Math.floor(index / SOBS_PER_GROUP);
    for (const monitor of this.#armedInGroup.get(group) ?? []) this.#evaluate(monitor);
  }

  #arm(monitor: number, value: number): void {
    this.#disarm(monitor);
    this.#arms[monitor] = value;
    this.#isArmed[monitor] = 1;
    const group = ARM.get(value, 'group');
    let armed = this.#armedInGroup.get(group);
    if (armed === undefined) {
      armed = new Set();
      this.#armedInGroup.set(group, armed);
    }
    armed.add(monitor);
    this.#evaluate(monitor);
  }

  #disarm(monitor: number): void {
    this.#isArmed[monitor] = 0;
    this.#armedInGroup.get(ARM.get(this.#arms[monitor]!, 'group'))?.delete(monitor);
  }

  /** Bit i set: SOB i of the monitor's group takes part and does not satisfy it yet. */
  #pending(monitor: number): number {
    const arm = this.#arms[monitor]!;
    const firstSob = ARM.get(arm, 'group') * SOBS_PER_GROUP;
    const ignored = ARM.get(arm, 'ignored');
    const equal = ARM.has(arm, 'isEqual');
    const target = ARM.get(arm, 'target');
    let pending = 0;
    for (let bit = 0; bit < SOBS_PER_GROUP; bit++) {
      const value = this.#sobs[firstSob + bit]!;
      const satisfied = equal ? value === target : value >= target;
      if ((ignored & (1 << bit)) === 0 && !satisfied) pending |= 1 << bit;
    }
    return pending;
  }

  #evaluate(monitor: number): void {
    if (this.#pending(monitor) !== 0) return;
    this.#disarm(monitor);
    if (this.#writes.length >= MAX_PENDING_WRITES) {
      this.#log?.error(`sync manager ${this.name} lost the payload of monitor ${monitor}: too many payloads wait`);
      return;
    }
    const low = this.registers.get('MON_PAY_ADDRL', monitor);
    const high = this.registers.get('MON_PAY_ADDRH', monitor);
    this.#writes.push({ address: addressOf(low, high), value: this.registers.get('MON_PAY_DATA', monitor) });
    this.#events.payloadReady();
  }

  /** VALID while armed, PENDING the SOBs still awaited. */
  #status(monitor: number): number {
    return this.#isArmed[monitor] === 0 ? 0 : STATUS.pack({ valid: 1, pending: this.#pending(monitor) });
  }
}
