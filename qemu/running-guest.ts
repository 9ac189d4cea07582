import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { AgentLink } from './agent-link.js';
import { ConsoleLog } from './console-log.js';
import {
  GuestClockError,
  GuestError,
  GuestPanicError,
  GuestTimeoutError,
  QemuExitError,
  UnreadableStateError,
} from './errors.js';
import { ExecPort } from './exec-port.js';
import type { CapturedResult, Guest, ModuleToLoad, RunOptions, RunResult } from './guest.js';
import { type ClockReading, clockFault } from './guest-clock.js';
import { sinceRestored } from './kernel-log.js';
import { agentPortId, execPortCount, execPortName, inheritedFds, programPorts, terminalPortId } from './machine.js';
import { PlugQueue } from './plug-queue.js';
import type { QemuProcess } from './qemu-process.js';
import { QmpClient, QmpError } from './qmp.js';
import { RunningCommand, splitWaitStatus } from './running-command.js';
import { joinTerminal } from './terminal.js';
import { type AttachedFunction, deviceFor, hotplugBus, type MachineLayout } from './topology.js';

const guestFolder = '/usr/local/lib/ghostbus';
const execProgram = `${guestFolder}/exec`;
const baseEnvironment = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LANG: 'C.UTF-8',
  TERM: 'linux',
};

/** How often a running command is asked after; also shows that the guest is alive. */
const watchIntervalMs = 2_000;
/** What the kernel still prints after it has said that it panics. */
const panicPrintMs = 3_000;
const powerOffMs = 15_000;
/** An exit frame that the agent's word of the exit has overtaken arrives within this. */
const lateFrameMs = 5_000;
/** How soon the end of an interactive shell is noticed. */
const SHELL_POLL_MS = 300;
/** From the start until a machine that was restored answers. */
const LOAD_STATE_MS = 120_000;
const killedCommandMs = 10_000;
/** A guest may be sent to sleep with a wake-up that is some minutes off. */
const SLEEP_MS = 600_000;
/** An agent whose port works answers sooner, even on a busy host; one that is replaced without need does no harm. */
const WAKE_ANSWER_MS = 5_000;
const NS_PER_MS = 1e6;

/** What a machine that was restored is to become. */
export interface Awakening {
  /** What {@link RunningGuest.saveTo} wrote. */
  readonly statePath: string;
  readonly functions: readonly AttachedFunction[];
  /** Buses to plug them into, in the same order. */
  readonly seats: readonly string[];
}

const MIGRATION_POLL_MS = 20;
const SEED_BYTES = 32;

/** Of QEMU's query-migrate (qapi/migration.json, MigrationInfo). */
interface MigrationState {
  readonly status?: string;
  readonly 'error-desc'?: string;
}

function migrationFile(filename: string): object[] {
  return [{ 'channel-type': 'main', addr: { transport: 'file', filename, offset: 0 } }];
}

/** As delay, but does not keep this process alive: whatever it races with does. */
function pause(ms: number): Promise<void> {
  return delay(ms, undefined, { ref: false });
}

interface Parts {
  process: QemuProcess;
  accel: 'kvm' | 'tcg';
  layout: MachineLayout;
  addedModules: readonly string[];
  agentTimeoutMs: number;
  log: Writable | undefined;
  /** Called whenever the guest has slept and is awake again. */
  awake: () => void;
}

export class RunningGuest implements Guest {
  readonly accel: 'kvm' | 'tcg';
  readonly addedModules: readonly string[];
  readonly ended: Promise<Error | undefined>;
  bootTimeMs = 0;

  readonly #process: QemuProcess;
  readonly #monitor: QmpClient;
  readonly #agent: AgentLink;
  readonly #terminal: Duplex;
  readonly #freePorts: ExecPort[];
  readonly #portWaiters: ((port: ExecPort) => void)[] = [];
  readonly #buses: Map<string, string>;
  readonly #log = new ConsoleLog();
  readonly #startedAt = Date.now();
  /** Rejects with the reason once the guest cannot be used any more. */
  readonly #failed: Promise<never>;
  #rejectFailed: (error: Error) => void = () => {};
  #failure: Error | undefined;
  #closing = false;
  #panicTimer: NodeJS.Timeout | undefined;
  /** Rejects when the machine is reset under a running command. */
  #resetListeners = new Set<(error: Error) => void>();

  constructor({ process, accel, layout, addedModules, agentTimeoutMs, log, awake }: Parts) {
    this.#process = process;
    this.accel = accel;
    this.addedModules = addedModules;
    this.#failed = new Promise((_, reject) => {
      this.#rejectFailed = reject;
    });
    // Whoever waits for something races with it; nobody has to.
    this.#failed.catch(() => {});
    this.#buses = new Map(layout.devices.map(({ id, bus }) => [id, bus ?? '']));
    const stream = (fd: number): Duplex => process.streams[fd - inheritedFds.qmp]!;
    this.#monitor = new QmpClient(stream(inheritedFds.qmp));
    this.#agent = new AgentLink({
      client: new QmpClient(stream(inheritedFds.agent), { pipelined: false }),
      ...{ answerMs: agentTimeoutMs, sleepMs: SLEEP_MS, wakeAnswerMs: WAKE_ANSWER_MS },
      replug: () => this.#replugPorts(),
      lost: (error) => {
        for (const listener of [...this.#resetListeners]) listener(error);
      },
      awake,
      consoleTail: () => this.#log.tail(),
    });
    this.#terminal = stream(inheritedFds.terminal);
    this.#freePorts = Array.from(
      { length: execPortCount },
      (_, index) => new ExecPort(execPortName(index), stream(inheritedFds.firstExecPort + index)),
    );
    this.#watchConsole(stream(inheritedFds.serial), log);
    this.#watchMonitor();
    this.ended = process.ended.then((how) => this.#qemuEnded(how, log));
  }

  get qemuPid(): number {
    return this.#process.pid;
  }

  /** Waits for the agent and for the drivers. On failure QEMU is gone before this rejects. */
  async becomeReady(timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    try {
      await this.#orFailure(this.#monitor.execute('qmp_capabilities'));
      await this.#agentReady(deadline);
      await this.#byTheClock(() => this.settle(deadline - Date.now()));
      this.bootTimeMs = Date.now() - this.#startedAt;
    } catch (error) {
      await this.#fail(error as Error);
      throw error;
    }
  }

  /**
   * For a machine that waits for a saved state: takes it, makes a machine of its own of it, and plugs the functions in.
   * On failure QEMU is gone before this rejects.
   */
  async becomeRestored(awakening: Awakening, timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    try {
      await this.#loadState(awakening.statePath, Math.min(timeoutMs, LOAD_STATE_MS));
      await this.#askAgent('guest-set-time', { time: Date.now() * NS_PER_MS });
      await this.#byTheClock(() => this.#wake(awakening, deadline));
      this.bootTimeMs = Date.now() - this.#startedAt;
    } catch (error) {
      await this.#fail(error as Error);
      throw error;
    }
  }

  /** Gets a machine without functions ready for {@link saveTo}. */
  async prepareToBeSaved(drivers: readonly ModuleToLoad[]): Promise<void> {
    const words = drivers.flatMap((module, index) => (index === 0 ? module : ['--', ...module]));
    await this.#runOwn('before-save', words, {});
  }

  /** Writes its state to a file; it stands still afterwards. @throws GuestError, QmpError */
  async saveTo(path: string): Promise<void> {
    await this.qmp('stop');
    await this.#setMigrationCapabilities();
    await this.qmp('migrate', { channels: migrationFile(path) });
    await this.#migrated();
  }

  async run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    if (argv[0] === undefined) throw new Error('a command for the guest needs at least a program');
    const port = await this.#orFailure(this.#takePort());
    try {
      return await this.#runOn(port, argv, options);
    } finally {
      port.release();
      this.#returnPort(port);
    }
  }

  async capture(argv: readonly string[], options: RunOptions = {}): Promise<CapturedResult> {
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    const result = await this.run(argv, {
      ...options,
      onStdout: (chunk) => stdout.push(chunk),
      onStderr: (chunk) => stderr.push(chunk),
    });
    return { ...result, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr) };
  }

  async dmesg(): Promise<string> {
    // Reads all of it at once, by syslog(2), where util-linux's asks for line after line: a sixth of the time.
    const { stdout } = await this.capture(['busybox', 'dmesg']);
    return sinceRestored(stdout.toString());
  }

  consoleTail(lines?: number): string {
    return this.#log.tail(lines);
  }

  qmp(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return this.#orFailure(this.#monitor.execute(command, args));
  }

  async plug(fn: AttachedFunction, bus: string = this.#buses.get(fn.id) ?? hotplugBus): Promise<void> {
    await this.qmp('device_add', deviceFor(fn, bus));
    this.#buses.set(fn.id, bus);
  }

  async unplug(id: string, timeoutMs = 60_000): Promise<void> {
    const gone = this.#deviceGone(id);
    try {
      await this.qmp('device_del', { id });
      await this.#orFailure(this.#within(gone.promise, timeoutMs, `the guest to let go of ${id}`));
    } finally {
      gone.stop();
    }
  }

  async settle(timeoutMs = 300_000): Promise<void> {
    const seconds = Math.max(1, Math.ceil(timeoutMs / 1000));
    const { exitCode } = await this.run(['udevadm', 'settle', `--timeout=${seconds}`], {
      timeoutMs: timeoutMs + 5_000,
    });
    if (exitCode === 0) return;
    throw new GuestTimeoutError(`The guest's drivers were not ready after ${seconds} s.`, this.#log.tail());
  }

  async reboot(how: 'guest' | 'reset' = 'guest', timeoutMs = 300_000): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    const reset = once(this.#monitor, 'RESET');
    if (how === 'reset') await this.qmp('system_reset');
    // Never answered: the guest is gone first.
    else this.#startProgram('/usr/bin/busybox', ['reboot', '-f']).catch(() => {});
    await this.#orFailure(this.#within(reset, timeoutMs, 'the guest to reboot'));
    await this.#agentReady(deadline);
    await this.#byTheClock(() => this.settle(deadline - Date.now()));
  }

  async shutdown(): Promise<void> {
    if (this.#failure === undefined && !this.#closing) {
      this.#closing = true;
      this.#startProgram('/usr/bin/busybox', ['poweroff', '-f']).catch(() => {});
      await Promise.race([this.#process.ended, pause(powerOffMs)]);
    }
    await this.kill();
  }

  async kill(): Promise<void> {
    this.#closing = true;
    await this.#process.kill();
    await this.ended;
  }

  async console(input: NodeJS.ReadStream, output: NodeJS.WriteStream): Promise<void> {
    const size = output.isTTY ? `stty rows ${output.rows} cols ${output.columns}; ` : '';
    const script = `exec <>/dev/hvc0 >&0 2>&0; ${size}cd; exec setsid --ctty bash -l`;
    const leave = joinTerminal(this.#terminal, input, output);
    try {
      const environment = { TERM: process.env.TERM ?? 'linux' };
      const pid = await this.#startProgram('/bin/sh', ['-c', script], environment);
      while (!(await this.#programEnded(pid))) await delay(SHELL_POLL_MS);
    } finally {
      leave();
    }
  }

  async #loadState(path: string, timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    const load = async () => {
      await this.#monitor.execute('qmp_capabilities');
      await this.#setMigrationCapabilities();
      await this.#monitor.execute('migrate-incoming', { channels: migrationFile(path) });
      await this.#migrated();
      await this.#monitor.execute('cont');
    };
    try {
      await this.#orFailure(this.#within(load(), timeoutMs, "the machine's saved state"));
      await this.#agentReady(deadline);
    } catch (error) {
      throw new UnreadableStateError((error as Error).message, '');
    }
  }

  async #migrated(): Promise<void> {
    for (;;) {
      const { status, 'error-desc': why } = (await this.qmp('query-migrate')) as MigrationState;
      if (status === 'completed') return;
      if (status === 'failed') throw new GuestError(`QEMU could not transfer the machine's state: ${why}`, '');
      await delay(MIGRATION_POLL_MS);
    }
  }

  async #setMigrationCapabilities(): Promise<void> {
    const capabilities = ['mapped-ram', 'multifd'].map((capability) => ({ capability, state: true }));
    await this.qmp('migrate-set-capabilities', { capabilities });
  }

  async #wake({ functions, seats }: Awakening, deadline: number): Promise<void> {
    const queue = new PlugQueue(functions);
    let plugging = Promise.resolve();
    const plug = (indexes: readonly number[]) => {
      for (const index of indexes) plugging = plugging.then(() => this.plug(functions[index]!, seats[index]));
      plugging.catch((error: Error) => this.#fail(error));
    };
    const onStdout = (chunk: Buffer) => plug(queue.hear(chunk.toString()));
    const timeoutMs = Math.max(1, deadline - Date.now());
    const words = [randomUUID(), randomBytes(SEED_BYTES).toString('hex'), String(functions.length)];
    try {
      await this.#runOwn('wake', words, { onStdout, timeoutMs });
    } catch (error) {
      if (!(error instanceof GuestTimeoutError)) throw error;
      const text = `The guest's drivers were not ready after ${Math.round(timeoutMs / 1000)} s.`;
      throw new GuestTimeoutError(text, this.#log.tail());
    }
    await plugging;
  }

  /** One of the guest's own scripts. @throws GuestError with what it printed */
  async #runOwn(name: string, words: readonly string[], options: RunOptions): Promise<void> {
    let said = '';
    const onStderr = (chunk: Buffer) => {
      said += chunk.toString();
    };
    const { exitCode } = await this.run([`${guestFolder}/${name}`, ...words], { ...options, onStderr });
    if (exitCode !== 0) throw new GuestError(`The guest could not be made ready (${name}): ${said}`, this.#log.tail());
  }

  /** Resolves or rejects with the promise, or rejects with the reason why the guest is gone. */
  #orFailure<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#failed]);
  }

  async #within<T>(promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<never>((_, reject) => {
      const text = `Waited ${Math.round(timeoutMs / 1000)} s for ${what}.`;
      timer = setTimeout(() => reject(new GuestTimeoutError(text, this.#log.tail())), Math.max(0, timeoutMs));
    });
    return Promise.race([promise, expired, this.#failed]).finally(() => clearTimeout(timer));
  }

  /** Ends the guest for a reason. */
  async #fail(error: Error): Promise<void> {
    if (this.#failure === undefined && !this.#closing) {
      this.#failure = error;
      this.#rejectFailed(error);
    }
    await this.#process.kill();
    await this.ended;
  }

  #qemuEnded(how: string, log: Writable | undefined): Error | undefined {
    clearTimeout(this.#panicTimer);
    log?.end();
    // Nobody answers any more: what waits for an answer would keep this process for as long as it would wait.
    this.#agent.machineGone(this.#failure ?? new QemuExitError(`QEMU ended (${how}).`, this.#log.tail()));
    const words = this.#process.stderr === '' ? '' : `\n${this.#process.stderr}`;
    if (this.#failure === undefined) {
      const error = new QemuExitError(`QEMU ended (${how}).${words}`, this.#log.tail());
      this.#rejectFailed(error);
      if (!this.#closing) this.#failure = error;
    }
    return this.#failure;
  }

  #watchConsole(serial: Duplex, log: Writable | undefined): void {
    serial.on('error', () => {});
    serial.on('data', (chunk: Buffer) => {
      log?.write(chunk);
      this.#log.push(chunk);
      const state = this.#log.panic();
      if (state !== 'none') this.#panicked(state === 'complete');
    });
  }

  #panicked(complete: boolean): void {
    if (complete) clearTimeout(this.#panicTimer);
    else if (this.#panicTimer !== undefined) return;
    this.#panicTimer = setTimeout(
      () => this.#fail(new GuestPanicError("The guest's kernel panicked.", this.#log.tail(60))),
      complete ? 100 : panicPrintMs,
    );
  }

  #watchMonitor(): void {
    this.#monitor.on('GUEST_PANICKED', () => this.#panicked(false));
    this.#monitor.on('VSERPORT_CHANGE', ({ id, open }: { id: string; open: boolean }) => {
      if (id === agentPortId) this.#agent.agentChanged(open);
      else if (id === terminalPortId) this.#agent.terminalChanged(open);
    });
    this.#monitor.on('RESET', () => {
      this.#log.clear();
      this.#agent.machineReset();
    });
  }

  /** The guest's programs find them again by their names, and what was on its way to them waits in QEMU. */
  async #replugPorts(): Promise<void> {
    for (const port of programPorts) {
      const gone = this.#deviceGone(port.id);
      try {
        await this.qmp('device_del', { id: port.id });
        await this.#orFailure(gone.promise);
      } finally {
        gone.stop();
      }
      await this.qmp('device_add', { ...port });
    }
  }

  async #agentReady(deadline: number): Promise<void> {
    await this.#orFailure(this.#within(this.#agent.ready(), deadline - Date.now(), "the guest's agent"));
  }

  /** Looks at the guest's clock before and after `work`. @throws GuestClockError when it is wrong */
  async #byTheClock(work: () => Promise<void>): Promise<void> {
    const before = await this.#readClock();
    await work();
    const fault = await clockFault(before, () => this.#readClock());
    if (fault !== undefined) throw new GuestClockError(fault, this.#log.tail());
  }

  async #readClock(): Promise<ClockReading> {
    const askedMs = performance.now();
    const nanoseconds = (await this.#askAgent('guest-get-time', {})) as number;
    return { guestMs: nanoseconds / NS_PER_MS, askedMs, answeredMs: performance.now() };
  }

  /** One command of the agent. A guest that does not answer is ended as hung. */
  async #askAgent(command: string, args: Record<string, unknown>): Promise<unknown> {
    try {
      return await this.#orFailure(this.#agent.ask(command, args));
    } catch (error) {
      if (error instanceof GuestTimeoutError) await this.#fail(error);
      throw error;
    }
  }

  async #startProgram(
    path: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
    stdin?: Uint8Array,
  ): Promise<number> {
    const environment = Object.entries({ ...baseEnvironment, ...env }).map(([name, value]) => `${name}=${value}`);
    const input = stdin === undefined ? {} : { 'input-data': Buffer.from(stdin).toString('base64') };
    const answer = await this.#askAgent('guest-exec', { path, arg: args, env: environment, ...input });
    return (answer as { pid: number }).pid;
  }

  async #programEnded(pid: number): Promise<boolean> {
    try {
      return ((await this.#askAgent('guest-exec-status', { pid })) as { exited: boolean }).exited;
    } catch (error) {
      // An agent that was started anew knows nothing of what its predecessor had started.
      if (error instanceof QmpError) return !(await this.#processExists(pid));
      throw error;
    }
  }

  async #processExists(pid: number): Promise<boolean> {
    try {
      const handle = await this.#askAgent('guest-file-open', { path: `/proc/${pid}/stat` });
      await this.#askAgent('guest-file-close', { handle });
      return true;
    } catch (error) {
      if (error instanceof QmpError) return false;
      throw error;
    }
  }

  async #runOn(port: ExecPort, argv: readonly string[], options: RunOptions): Promise<RunResult> {
    const command = new RunningCommand(options);
    this.#resetListeners.add(command.lost);
    let timer: NodeJS.Timeout | undefined;
    try {
      const token = port.expect(command);
      const agentPid = await this.#startProgram(execProgram, [port.name, token, ...argv], options.env, options.stdin);
      if (options.timeoutMs !== undefined) {
        timer = setTimeout(() => this.#killCommand(command, argv, options.timeoutMs!), options.timeoutMs);
      }
      this.#watchProgram(agentPid, command);
      return splitWaitStatus(await this.#orFailure(command.exit));
    } finally {
      clearTimeout(timer);
      this.#resetListeners.delete(command.lost);
    }
  }

  /**
   * Notices a helper that ended without saying so, and lets the agent forget it; each question
   * also proves the guest alive.
   */
  async #watchProgram(agentPid: number, command: RunningCommand): Promise<void> {
    try {
      for (;;) {
        await Promise.race([pause(watchIntervalMs), command.exit.catch(() => {})]);
        const finished = command.finished;
        if (await this.#programEnded(agentPid)) break;
        // It has sent its last frame and is about to end.
        if (finished) await delay(50);
      }
      await Promise.race([pause(lateFrameMs), command.exit.catch(() => {})]);
      command.lost(
        new GuestError("The guest's exec program ended without telling how the command did.", this.#log.tail()),
      );
    } catch (error) {
      command.lost(error as Error);
    }
  }

  async #killCommand(command: RunningCommand, argv: readonly string[], timeoutMs: number): Promise<void> {
    const text = `"${argv.join(' ')}" did not end within ${timeoutMs / 1000} s and was killed.`;
    const reason = new GuestTimeoutError(text, this.#log.tail());
    command.willBeKilled(reason);
    try {
      if (command.pid !== undefined) await this.#signalSession(command.pid);
      await Promise.race([pause(killedCommandMs), command.exit.catch(() => {})]);
    } catch {
      // The guest itself is gone; the time-out is told all the same.
    }
    command.lost(reason);
  }

  /** A guest that sleeps will do it when it wakes up, which nobody waits for. */
  async #signalSession(pid: number): Promise<void> {
    const started = this.#startProgram('/usr/bin/kill', ['-KILL', '--', `-${pid}`]);
    if (this.#agent.asleep) started.catch(() => {});
    else await started;
  }

  #takePort(): Promise<ExecPort> {
    const free = this.#freePorts.shift();
    if (free !== undefined) return Promise.resolve(free);
    return new Promise((resolve) => this.#portWaiters.push(resolve));
  }

  #returnPort(port: ExecPort): void {
    const waiter = this.#portWaiters.shift();
    if (waiter !== undefined) waiter(port);
    else this.#freePorts.push(port);
  }

  #deviceGone(id: string): { promise: Promise<void>; stop: () => void } {
    let stop = () => {};
    const promise = new Promise<void>((resolve, reject) => {
      const deleted = (data: { device?: string }) => data.device === id && resolve();
      const refused = (data: { device?: string }) =>
        data.device === id && reject(new GuestError(`The guest refuses to let go of ${id}.`, this.#log.tail()));
      this.#monitor.on('DEVICE_DELETED', deleted);
      this.#monitor.on('DEVICE_UNPLUG_GUEST_ERROR', refused);
      stop = () => {
        this.#monitor.off('DEVICE_DELETED', deleted);
        this.#monitor.off('DEVICE_UNPLUG_GUEST_ERROR', refused);
      };
    });
    promise.catch(() => {});
    return { promise, stop };
  }
}
