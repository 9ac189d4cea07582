/**
 * The free-running counter PSOC_TIMESTAMP (psoc_timestamp_regs.h); gaudi.c gaudi_enable_timestamp,
 * gaudi_get_device_time.
 */
import { type Clock, type Log, RegisterBlock } from 'ghostbus';
import { PAGE_BYTES } from '../interconnect/address-map.js';

/** The CPU PLL as `pll.ts` sets it up: what the driver reports as psoc_timestamp_frequency. */
const TIMESTAMP_NS_PER_TICK = 20n;

const ENABLE = 1;

export class Timestamp {
  readonly registers: ReturnType<typeof timestampRegisters>;
  readonly #clock: Clock;
  /** Ticks counted while it was switched off or set, and the time since when it runs. */
  #base = 0n;
  #startNs: bigint | undefined;

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.registers = timestampRegisters(
      {
        control: (value) => this.#control((value & ENABLE) !== 0),
        half: (high) => (high ? Number(this.ticks >> 32n) : this.low),
        set: (high, value) => this.#set(high, value),
      },
      log,
    );
  }

  get ticks(): bigint {
    const elapsed = this.#startNs === undefined ? 0n : this.#clock.nowNs() - this.#startNs;
    return BigInt.asUintN(64, this.#base + elapsed / TIMESTAMP_NS_PER_TICK);
  }

  /** The lower half. */
  get low(): number {
    return Number(this.ticks & 0xffffffffn);
  }

  #control(enable: boolean): void {
    this.#base = this.ticks;
    this.#startNs = enable ? this.#clock.nowNs() : undefined;
  }

  #set(high: boolean, value: number): void {
    const now = this.ticks;
    const kept = high ? now & 0xffffffffn : now & ~0xffffffffn;
    this.#base = kept | (BigInt(value) << (high ? 32n : 0n));
    if (this.#startNs !== undefined) this.#startNs = this.#clock.nowNs();
  }
}

interface TimestampHooks {
  control(value: number): void;
  half(high: boolean): number;
  set(high: boolean, value: number): void;
}

function timestampRegisters(hooks: TimestampHooks, log: Log) {
  return new RegisterBlock(
    { name: 'PSOC_TIMESTAMP', sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      CNTCR: { offset: 0x00, onWrite: (value) => hooks.control(value) },
      CNTCVL: { offset: 0x08, onRead: () => hooks.half(false), onWrite: (value) => hooks.set(false, value) },
      CNTCVU: { offset: 0x0c, onRead: () => hooks.half(true), onWrite: (value) => hooks.set(true, value) },
    },
  );
}
