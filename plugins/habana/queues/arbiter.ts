/**
 * The arbiter of one queue manager. A stream that meets an arbitration point waits until the arbiter grants it the
 * engine, and keeps it until its release point. A master decides by priority or by weighted round robin and can push
 * its choices to slave arbiters of other queue managers, which follow them; credits keep a master from overrunning a
 * slave.
 *
 * Source: dma0_qm_masks.h (ARB_*); the order of priorities (the larger number first) from hl-thunk's
 * test_cs_two_streams_with_priority_arb. Not modelled: the quiet period and the choice watchdog count no time.
 */

/** DMA0_QM_ARB_CFG_0_*. */
export const ARB_CONFIGURATION = { weightedRoundRobin: 0x1, master: 0x10, enable: 0x100, maskShift: 12 } as const;
/** Bits of ARB_ERR_CAUSE; the driver's words for them are in gaudi.c gaudi_qman_arb_error_cause. */
export const ARBITER_ERROR = { choiceOverflow: 1, messageFailed: 4 } as const;

const STREAMS = 4;
const SLAVES = 32;
/** ARB_CHOISE_FULLNESS_STS has 7 bits. */
const MAX_CHOICES = 64;

interface ArbiterRegisters {
  configuration(): number;
  weight(stream: number): number;
  slaveEnable(): number;
  credits(slave: number): number;
  setCredits(slave: number, credits: number): void;
}

interface ArbiterEvents {
  granted(stream: number): void;
  /** Tells a slave which stream goes next. */
  pushChoice(slave: number, stream: number): void;
  /** Tells the master that a choice was taken. */
  returnCredit(): void;
  error(cause: number): void;
}

export class Arbiter {
  readonly #registers: ArbiterRegisters;
  readonly #events: ArbiterEvents;
  readonly #requests = new Map<number, number>();
  #holder: number | undefined;
  #choices: number[] = [];
  /** Weighted round robin: whose turn it is and how many grants it has left. */
  #turn = 0;
  #turnsLeft = 0;

  constructor(registers: ArbiterRegisters, events: ArbiterEvents) {
    this.#registers = registers;
    this.#events = events;
  }

  /** ARB_CFG_1.CLR. */
  clear(): void {
    this.#requests.clear();
    this.#holder = undefined;
    this.#choices = [];
    this.#turn = 0;
    this.#turnsLeft = 0;
  }

  get holder(): number | undefined {
    return this.#holder;
  }

  get waitingChoices(): number {
    return this.#choices.length;
  }

  /**
   * A stream asks for the engine. True: it need not wait, because no arbiter is enabled or it holds the engine already.
   */
  request(stream: number, priority: number): boolean {
    if (!this.#has(ARB_CONFIGURATION.enable) || this.#holder === stream) return true;
    this.#requests.set(stream, priority);
    return false;
  }

  release(stream: number): void {
    if (this.#holder === stream) this.#holder = undefined;
  }

  /** A master's choice arrives (ARB_CHOISE_Q_PUSH). */
  push(stream: number): void {
    if (this.#choices.length >= MAX_CHOICES) this.#events.error(ARBITER_ERROR.choiceOverflow);
    else this.#choices.push(stream % STREAMS);
  }

  /** Decides once every stream has come as far as it can. True if somebody was granted the engine. */
  settle(): boolean {
    if (!this.#has(ARB_CONFIGURATION.enable)) return this.#grantAll();
    if (this.#holder !== undefined || this.#requests.size === 0) return false;
    const stream = this.#has(ARB_CONFIGURATION.master) ? this.#choose() : this.#choices[0];
    if (stream === undefined || !this.#requests.has(stream)) return false;
    if (!this.#has(ARB_CONFIGURATION.master)) {
      this.#choices.shift();
      this.#events.returnCredit();
    } else if (!this.#tellSlaves(stream)) return false;
    this.#grant(stream);
    this.#holder = stream;
    return true;
  }

  /** Whoever waited when the arbiter was switched off goes on. */
  #grantAll(): boolean {
    const waiting = [...this.#requests.keys()];
    for (const stream of waiting) this.#grant(stream);
    return waiting.length > 0;
  }

  #grant(stream: number): void {
    this.#requests.delete(stream);
    this.#events.granted(stream);
  }

  #choose(): number | undefined {
    const masked = this.#registers.configuration() >>> ARB_CONFIGURATION.maskShift;
    const candidates = [...this.#requests.keys()].filter((stream) => (masked & (1 << stream)) === 0);
    if (candidates.length === 0) return undefined;
    if (!this.#has(ARB_CONFIGURATION.weightedRoundRobin)) {
      return candidates.reduce((best, stream) => (this.#isBefore(stream, best) ? stream : best));
    }
    if (this.#turnsLeft === 0 || !candidates.includes(this.#turn)) {
      const later = [1, 2, 3, 4].map((step) => (this.#turn + step) % STREAMS);
      this.#turn = later.find((stream) => candidates.includes(stream))!;
      this.#turnsLeft = Math.max(1, this.#registers.weight(this.#turn));
    }
    this.#turnsLeft--;
    return this.#turn;
  }

  #isBefore(stream: number, other: number): boolean {
    const difference = this.#requests.get(stream)! - this.#requests.get(other)!;
    return difference > 0 || (difference === 0 && stream < other);
  }

  /** False if a slave has no credit left; the grant then waits. */
  #tellSlaves(stream: number): boolean {
    const enabled = this.#registers.slaveEnable();
    const slaves = Array.from({ length: SLAVES }, (_, slave) => slave).filter((slave) => (enabled >>> slave) & 1);
    if (slaves.some((slave) => this.#registers.credits(slave) === 0)) return false;
    for (const slave of slaves) {
      this.#registers.setCredits(slave, this.#registers.credits(slave) - 1);
      this.#events.pushChoice(slave, stream);
    }
    return true;
  }

  #has(bit: number): boolean {
    return (this.#registers.configuration() & bit) !== 0;
  }
}
