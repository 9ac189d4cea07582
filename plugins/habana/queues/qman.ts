/**
 * One queue manager (QMAN): four streams with a prime queue (PQ) each, five command processors, fences, and the
 * arbiter, in one page of registers that is the same for every engine.
 *
 * Source: Linux asic_reg/dma0_qm_regs.h, dma0_qm_masks.h; gaudi.c (gaudi_init_pci_dma_qman, gaudi_init_hbm_dma_qman,
 * gaudi_handle_qman_err_generic, gaudi_is_device_idle).
 */
import { BitFields32, Ring, type Runnable, type TurnResult, type WorkBudget } from 'ghostbus/kit';
import type { Card } from '../card.js';
import type { DmaCore } from '../engines/dma-core.js';
import { addressOf, type EngineInstance, QMAN_IN_WINDOW } from '../interconnect/address-map.js';
import { DeviceFault } from '../interconnect/device-fault.js';
import { type Interconnect, type Requester, requesterOf } from '../interconnect/interconnect.js';
import { ARBITER_ERROR, Arbiter } from './arbiter.js';
import { type CommandBuffer, CommandProcessor, type CpHost, LOWER_CP, QMAN_ERROR } from './command-processor.js';
import { CPS, qmanRegisters, STREAMS } from './qman-registers.js';

/** sizeof(struct hl_bd): pointer, length, control. */
const PQ_ENTRY_BYTES = 16;
const MAX_PQ_LOG2 = 20;
/** By the logarithm of their size, as PQ_SIZE has it. */
const PRIME_QUEUES = Array.from(
  { length: MAX_PQ_LOG2 + 1 },
  (_, log2) => new Ring({ entries: 2 ** log2, counterRange: 2 * 2 ** log2 }),
);
/** What WREG packets can reach: 16 bits of register offset. */
const WINDOW_BYTES = 0x10000;
/** Counters of fences saturate here: targets have 8 bits (GAUDI_PKT_FENCE_CFG_TARGET_VAL_MASK). */
const MAX_FENCE = 0xff;
/** Where the fetchers' and processors' bits start in CFG0, CFG1, PROT, STS0 and, 16 bits up, in ERR_CFG. */
const UNIT_SHIFT = { pq: 0, cq: 4, cp: 9 } as const;
/** All units: five CQs, five CPs, four PQs. */
const UNITS = 0x3fff;
/** Upper half of STS0: the same units, stopped; of ERR_CFG: stop them on an error. */
const STOPPED_SHIFT = 16;
type Unit = keyof typeof UNIT_SHIFT;
/** DMA0_QM_CP_STS_*. */
const CP_STATUS = new BitFields32({ stopped: [19, 1], fence: [20, 2], waitsForFence: [22, 1] });
/** What a slave's choice and a master's returned credit name: one of 32 slaves, with at most 127 credits. */
const SLAVE = 0x1f;
const MAX_CREDITS = 0x7f;

interface QmanServices {
  readonly interconnect: Interconnect;
  readonly card: Card;
  readonly core: DmaCore | undefined;
  wake(engine: Runnable): void;
  timestamp(): number;
  /** Called after a message, which may have fired a monitor. */
  afterMessage(): void;
}

export class Qman implements Runnable {
  readonly instance: EngineInstance;
  readonly registers: ReturnType<typeof qmanRegisters>;
  readonly #services: QmanServices;
  readonly #cps: readonly CommandProcessor[];
  readonly #arbiter: Arbiter;
  /** The engine behind it does not finish any more (`control('stick')`). */
  isStuck = false;
  readonly counters: Record<'doorbells' | 'errors', number>;

  constructor(instance: EngineInstance, services: QmanServices) {
    const { log, statistics } = services.card;
    this.instance = instance;
    this.#services = services;
    this.counters = statistics.of(instance.name, 'doorbells', 'errors');
    this.registers = qmanRegisters(
      `${instance.name}_QM`,
      {
        doorbell: () => this.#doorbell(),
        wake: () => this.#services.wake(this),
        pushBuffer: (cp) => this.#pushRegisters(cp),
        fence: (fence, cp, value) => this.#addToFence(fence, cp, value),
        status: () => this.#status(),
        isIdle: () => this.isIdle,
        cpStatus: (cp) => this.#cpStatus(cp),
        cp: (cp) => this.#cps[cp]!,
        clearArbiter: () => this.#arbiter.clear(),
        pushChoice: (stream) => this.#pushChoice(stream),
        returnCredit: (slave) => this.#returnCredit(slave),
        choices: () => this.#arbiter.waitingChoices,
      },
      log,
    );
    this.#arbiter = this.#makeArbiter();
    const host = this.#cpHost();
    this.#cps = Array.from({ length: CPS }, (_, index) => {
      return new CommandProcessor(index, host, statistics.of(`${instance.name} CP ${index}`, 'packets', 'buffers'));
    });
  }

  /** True when no stream has anything left to do. */
  get isIdle(): boolean {
    return this.#cps.every((cp, index) => cp.isIdle && cp.isQueueEmpty && !this.#hasEntries(index));
  }

  /** For people: what each CP has done. */
  inspect(): unknown {
    return {
      idle: this.isIdle,
      stuck: this.isStuck,
      ...this.counters,
      cps: this.#cps.map((cp) => ({ ...cp.counters, stopped: cp.isStopped, fence: cp.waitsForFence ?? null })),
    };
  }

  /** Every processor works for its part of the budget; when all have come as far as they can, the arbiter decides. */
  turn(budget: WorkBudget): TurnResult {
    if (this.isStuck) return 'idle';
    const share = Math.ceil(budget.left / CPS);
    let worked = false;
    for (const cp of this.#cps) {
      if (this.#runs('cp', cp.index) && cp.step(budget.portion(share))) worked = true;
    }
    return worked || this.#arbiter.settle() ? 'ready' : 'idle';
  }

  /** Records an error of one stream as the hardware does: status bit, stop if so configured, message to the GIC. */
  raise(cp: number, cause: number, detail: string): void {
    const unit: Unit = cause === QMAN_ERROR.pqFetch ? 'pq' : cause === QMAN_ERROR.cqFetch ? 'cq' : 'cp';
    this.counters.errors++;
    this.#services.card.log.warn(`${this.instance.name} CP ${cp} reports an error`, { cause, detail });
    this.registers.set('GLBL_STS1', this.registers.get('GLBL_STS1', cp) | cause, cp);
    const configuration = this.registers.get('GLBL_ERR_CFG');
    const bit = 1 << (UNIT_SHIFT[unit] + cp);
    if (((configuration >>> STOPPED_SHIFT) & bit) !== 0) this.#cps[cp]!.stop();
    if ((configuration & bit) !== 0) this.#sendErrorMessage();
  }

  #sendErrorMessage(): void {
    const address = addressOf(this.registers.get('GLBL_ERR_ADDR_LO'), this.registers.get('GLBL_ERR_ADDR_HI'));
    try {
      this.#services.interconnect.write32(address, this.registers.get('GLBL_ERR_WDATA'), {
        asid: 0,
        bypassMmu: true,
      });
    } catch (error) {
      if (!(error instanceof DeviceFault)) throw error;
      this.#services.card.log.warn(`${this.instance.name} cannot send its error message: ${error.message}`);
    }
  }

  /** Enabled in CFG0 and not stopped in CFG1. */
  #runs(unit: Unit, index: number): boolean {
    const bit = 1 << (UNIT_SHIFT[unit] + index);
    return (this.registers.get('GLBL_CFG0') & bit) !== 0 && (this.registers.get('GLBL_CFG1') & bit) === 0;
  }

  #requester(unit: Unit, cp: number): Requester {
    const secure = (this.registers.get('GLBL_PROT') & (1 << (UNIT_SHIFT[unit] + cp))) !== 0;
    return this.#properties(secure, cp);
  }

  #properties(secure: boolean, cp: number): Requester {
    return requesterOf(this.registers.get(secure ? 'GLBL_SECURE_PROPS' : 'GLBL_NON_SECURE_PROPS', cp));
  }

  #doorbell(): void {
    this.counters.doorbells++;
    this.#services.wake(this);
  }

  /** Indices count to twice the number of entries, so that full and empty differ. */
  #pq(stream: number): Ring {
    return PRIME_QUEUES[Math.min(this.registers.get('PQ_SIZE', stream), MAX_PQ_LOG2)]!;
  }

  #isEmpty(stream: number): boolean {
    return this.#pq(stream).isEmpty(this.registers.get('PQ_PI', stream), this.registers.get('PQ_CI', stream));
  }

  #hasEntries(cp: number): boolean {
    if (cp === LOWER_CP || (this.registers.get('GLBL_CFG0') & (1 << cp)) === 0) return false;
    return !this.#isEmpty(cp);
  }

  #nextBuffer(stream: number): CommandBuffer | undefined {
    if (stream === LOWER_CP || !this.#runs('pq', stream) || this.#isEmpty(stream)) return undefined;
    const pq = this.#pq(stream);
    const index = this.registers.get('PQ_CI', stream);
    const base = addressOf(this.registers.get('PQ_BASE_LO', stream), this.registers.get('PQ_BASE_HI', stream));
    const entry = new Uint8Array(PQ_ENTRY_BYTES);
    this.registers.set('PQ_CI', pq.advance(index), stream);
    try {
      const address = base + PQ_ENTRY_BYTES * pq.slot(index);
      this.#services.interconnect.read(address, entry, this.#requester('pq', stream));
    } catch (error) {
      if (!(error instanceof DeviceFault)) throw error;
      this.raise(stream, QMAN_ERROR.pqFetch, error.message);
      return undefined;
    }
    const view = new DataView(entry.buffer);
    const [low, high, lengthBytes] = [view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true)];
    this.registers.set('CQ_PTR_LO', low, stream);
    this.registers.set('CQ_PTR_HI', high, stream);
    this.registers.set('CQ_TSIZE', lengthBytes, stream);
    return { address: addressOf(low, high), lengthBytes };
  }

  /** A write to CQ_TSIZE hands the buffer in the CQ registers to that CP. */
  #pushRegisters(cp: number): void {
    const buffer = {
      address: addressOf(this.registers.get('CQ_PTR_LO', cp), this.registers.get('CQ_PTR_HI', cp)),
      lengthBytes: this.registers.get('CQ_TSIZE', cp),
    };
    if (!this.#cps[cp]!.push(buffer)) this.raise(cp, QMAN_ERROR.cqFetch, 'the completion queue is full');
    this.#services.wake(this);
  }

  #pushLower(buffer: CommandBuffer): boolean {
    const lower = this.#cps[LOWER_CP]!;
    if (!lower.push(buffer)) return false;
    this.registers.set('CQ_PTR_LO', buffer.address % 2 ** 32, LOWER_CP);
    this.registers.set('CQ_PTR_HI', Math.floor(buffer.address / 2 ** 32), LOWER_CP);
    this.registers.set('CQ_TSIZE', buffer.lengthBytes, LOWER_CP);
    this.#services.wake(this);
    return true;
  }

  #fenceIndex(fence: number, cp: number): number {
    return fence * CPS + cp;
  }

  #addToFence(fence: number, cp: number, increment: number): void {
    const index = this.#fenceIndex(fence, cp);
    const count = this.registers.get('CP_FENCE_CNT', index) + increment;
    this.registers.set('CP_FENCE_CNT', Math.min(count, MAX_FENCE), index);
    if (count > MAX_FENCE) this.raise(cp, QMAN_ERROR.fenceOverflow(fence), `fence ${fence} counts beyond ${MAX_FENCE}`);
    this.#services.wake(this);
  }

  #passFence(fence: number, cp: number, target: number, decrement: number): boolean {
    const index = this.#fenceIndex(fence, cp);
    const count = this.registers.get('CP_FENCE_CNT', index);
    if (count < target) return false;
    this.registers.set('CP_FENCE_CNT', Math.max(0, count - decrement), index);
    if (decrement > count) this.raise(cp, QMAN_ERROR.fenceUnderflow(fence), `fence ${fence} goes below zero`);
    return true;
  }

  #writeRegister(cp: number, offset: number, value: number): void {
    if (offset % 4 !== 0 || offset >= WINDOW_BYTES) {
      this.raise(cp, QMAN_ERROR.registerWrite, `register offset 0x${offset.toString(16)}`);
      return;
    }
    this.#services.interconnect.writeRegister(this.instance.qmanCfg - QMAN_IN_WINDOW + offset, value);
  }

  #cpHost(): CpHost {
    const { interconnect, core } = this.#services;
    return {
      interconnect,
      core,
      fetchRequester: (cp) => this.#requester('cq', cp),
      // Messages of user buffers carry the user's address space, also on a queue whose processors are trusted.
      messageRequester: (cp) => this.#properties(false, cp),
      messageBase: (base, cp) => {
        const index = 2 * CPS * base + cp;
        return addressOf(this.registers.get('CP_MSG_BASE', index), this.registers.get('CP_MSG_BASE', index + CPS));
      },
      nextBuffer: (cp) => this.#nextBuffer(cp),
      pushLower: (buffer) => this.#pushLower(buffer),
      writeRegister: (offset, value) => this.#writeRegister(0, offset, value),
      addToFence: (fence, cp, increment) => this.#addToFence(fence, cp, increment),
      passFence: (fence, cp, target, decrement) => this.#passFence(fence, cp, target, decrement),
      requestArbiter: (cp, priority) => this.#arbiter.request(cp, priority),
      releaseArbiter: (cp) => this.#arbiter.release(cp),
      error: (cp, cause, detail) => this.raise(cp, cause, detail),
      timestamp: () => this.#services.timestamp(),
      afterMessage: () => this.#services.afterMessage(),
      jobSeen: (cp, what) => this.#services.card.log.info(`${this.instance.name} CP ${cp}: ${what}`),
      wake: () => this.#services.wake(this),
    };
  }

  #makeArbiter(): Arbiter {
    const r = this.registers;
    const send = (offset: number, value: number): void => {
      const base = addressOf(r.get('ARB_BASE_LO'), r.get('ARB_BASE_HI'));
      try {
        this.#services.interconnect.write32(base + offset, value, this.#properties(false, 0));
      } catch (error) {
        if (!(error instanceof DeviceFault)) throw error;
        this.#ARBITER_ERROR(ARBITER_ERROR.messageFailed, error.message);
      }
    };
    return new Arbiter(
      {
        configuration: () => r.get('ARB_CFG_0'),
        weight: (stream) => r.get('ARB_WRR_WEIGHT', stream),
        slaveEnable: () => r.get('ARB_MST_SLAVE_EN'),
        credits: (slave) => r.get('ARB_MST_AVAIL_CRED', slave),
        setCredits: (slave, credits) => r.set('ARB_MST_AVAIL_CRED', credits, slave),
      },
      {
        granted: (stream) => this.#cps[stream]!.grant(),
        pushChoice: (slave, stream) => send(r.get('ARB_MST_CHOISE_PUSH_OFST', slave), stream),
        returnCredit: () => send(r.get('ARB_SLV_MASTER_INC_CRED_OFST'), r.get('ARB_SLV_ID')),
        error: (cause) => this.#ARBITER_ERROR(cause, 'choice queue'),
      },
    );
  }

  /** `cause` is a bit of ARB_ERR_CAUSE. */
  #ARBITER_ERROR(cause: number, detail: string): void {
    this.counters.errors++;
    this.#services.card.log.warn(`${this.instance.name} arbiter reports an error`, { cause, detail });
    this.registers.set('ARB_ERR_CAUSE', this.registers.get('ARB_ERR_CAUSE') | cause);
    if ((this.registers.get('ARB_ERR_MSG_EN') & cause) !== 0) this.#sendErrorMessage();
  }

  #pushChoice(stream: number): void {
    this.#arbiter.push(stream);
    this.#services.wake(this);
  }

  #returnCredit(slave: number): void {
    const credits = this.registers.get('ARB_MST_AVAIL_CRED', slave & SLAVE);
    this.registers.set('ARB_MST_AVAIL_CRED', Math.min(credits + 1, MAX_CREDITS), slave & SLAVE);
    this.#services.wake(this);
  }

  /** GLBL_STS0: idle bits of the PQ fetchers, CQ fetchers and CPs, and which of them are stopped. */
  #status(): number {
    const stop = this.registers.get('GLBL_CFG1');
    let status = (stop & UNITS) << STOPPED_SHIFT;
    this.#cps.forEach((cp, index) => {
      if (index < STREAMS && !this.#hasEntries(index)) status |= 1 << index;
      if (cp.isQueueEmpty) status |= 1 << (UNIT_SHIFT.cq + index);
      if (cp.isIdle) status |= 1 << (UNIT_SHIFT.cp + index);
      if (cp.isStopped) status |= 1 << (STOPPED_SHIFT + UNIT_SHIFT.cp + index);
    });
    return status >>> 0;
  }

  /** DMA0_QM_CP_STS_*: the fence waited for, and whether the CP stopped. */
  #cpStatus(index: number): number {
    const cp = this.#cps[index]!;
    const fence = cp.waitsForFence;
    return CP_STATUS.pack({
      stopped: Number(cp.isStopped),
      ...(fence !== undefined && { fence, waitsForFence: 1 }),
    });
  }
}
