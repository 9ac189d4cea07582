import { EventEmitter } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { GuestError, GuestTimeoutError } from './errors.js';
import type { QmpClient } from './qmp.js';

export interface AgentLimits {
  /** How long a guest that is awake may take to answer. */
  readonly answerMs: number;
  /** How long it may be asleep, and take to wake up. */
  readonly sleepMs: number;
  /** How long an agent that has just woken up may take to answer before the ports are plugged in anew. */
  readonly wakeAnswerMs: number;
}

interface Parts extends AgentLimits {
  readonly client: QmpClient;
  /** Takes the serial ports out and plugs them in again; the guest then starts the agent anew. */
  readonly replug: () => Promise<void>;
  /** All that the agent had started is lost. */
  readonly lost: (error: Error) => void;
  /** The guest has slept and is awake again. */
  readonly awake: () => void;
  readonly consoleTail: () => string;
}

const MS_PER_S = 1000;

/**
 * The guest's agent as its port tells of it: there, gone, or asleep with the guest.
 *
 * Linux resets the serial controller when it suspends (drivers/char/virtio_console.c, virtcons_freeze), whereby all
 * ports close at once, the terminal's too, which no program can close. So the agent's port closing alone is the agent's
 * end, and both closing is a suspend, after which everything that ran runs on. What the agent was sent and had not read
 * is lost then, and is sent again.
 *
 * Linux 7.3 asks for the ports' state before it makes room for the answer (virtcons_restore): for such a guest they
 * stay shut, and whoever writes to one waits for ever. They are plugged in anew.
 */
export class AgentLink extends EventEmitter {
  readonly #parts: Parts;
  #open = false;
  #asleep = false;
  #machineGone: Error | undefined;
  #replugged = false;
  /** Counts attempts to wake up; what belongs to an earlier one has no say. */
  #attempt = 0;

  constructor(parts: Parts) {
    super();
    this.setMaxListeners(0);
    this.#parts = parts;
  }

  get asleep(): boolean {
    return this.#asleep;
  }

  terminalChanged(open: boolean): void {
    if (open) return;
    this.#attempt++;
    this.#replugged = false;
    this.#asleep = true;
    this.#parts.client.hold();
    this.emit('change');
  }

  agentChanged(open: boolean): void {
    this.#open = open;
    if (this.#asleep) {
      if (open) this.#wake();
    } else if (!open) {
      this.#gone(new GuestError("The guest's agent ended.", this.#parts.consoleTail()));
    }
    this.emit('change');
  }

  machineReset(): void {
    this.#attempt++;
    this.#asleep = false;
    this.#open = false;
    this.#parts.client.release();
    this.#gone(new GuestError('The guest was reset while something ran in it.', ''));
    this.emit('change');
  }

  /** Whoever waits for an answer hears that none will come. */
  machineGone(error: Error): void {
    this.#attempt++;
    this.#machineGone = error;
    this.#gone(error);
  }

  /** Resolves when the agent is there and answers. */
  async ready(): Promise<void> {
    while (!this.#open || this.#asleep) await new Promise((resolve) => this.once('change', resolve));
    await this.#parts.client.synchronize();
  }

  /**
   * One command of the agent; a suspend in between does not count.
   * @throws GuestTimeoutError when the guest hangs, or does not wake up. QmpError when the agent refuses.
   */
  ask(command: string, args: Record<string, unknown>): Promise<unknown> {
    if (this.#machineGone !== undefined) return Promise.reject(this.#machineGone);
    const answer = this.#parts.client.execute(command, args);
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      const start = () => {
        clearTimeout(timer);
        const { answerMs, sleepMs } = this.#parts;
        timer = setTimeout(() => stop(() => reject(this.#overdue())), this.#asleep ? sleepMs : answerMs);
      };
      const stop = (settle: () => void) => {
        clearTimeout(timer);
        this.off('change', start);
        settle();
      };
      this.on('change', start);
      start();
      answer.then(
        (value) => stop(() => resolve(value)),
        (error: Error) => stop(() => reject(error)),
      );
    });
  }

  #overdue(): Error {
    const { answerMs, sleepMs, consoleTail } = this.#parts;
    const text = this.#asleep
      ? `The guest went to sleep and was not awake again after ${sleepMs / MS_PER_S} s.`
      : `Waited ${answerMs / MS_PER_S} s for an answer of the hung guest.`;
    return new GuestTimeoutError(text, consoleTail());
  }

  async #wake(): Promise<void> {
    const attempt = ++this.#attempt;
    const { client, replug, wakeAnswerMs } = this.#parts;
    const limit = new AbortController();
    const answered = await Promise.race([
      client.resynchronize().then(
        () => true,
        () => false,
      ),
      delay(wakeAnswerMs, false, { signal: limit.signal }).catch(() => false),
    ]);
    limit.abort();
    if (attempt !== this.#attempt) return;
    if (answered) {
      this.#asleep = false;
      client.release();
      this.emit('change');
      this.#parts.awake();
    } else if (!this.#replugged) {
      this.#replugged = true;
      // QEMU's end is told by whoever watches QEMU; anything else by the guest that does not wake up.
      await replug().catch(() => {});
    }
  }

  #gone(error: Error): void {
    this.#parts.client.fail(error);
    this.#parts.lost(error);
  }
}
