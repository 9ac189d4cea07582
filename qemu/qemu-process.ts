import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import type { Qemu } from './provision.js';

const stderrKept = 8 * 1024;

/**
 * One QEMU with socket pairs at file descriptors 3 and up. It never outlives us: the kernel kills it when the thread
 * that started it ends in whatever way (PR_SET_PDEATHSIG, by util-linux's setpriv).
 */
export class QemuProcess {
  readonly pid: number;
  /** Our ends, from descriptor 3. */
  readonly streams: readonly Duplex[];
  /** Settles when the process is gone. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  #errorOutput = '';

  private constructor(child: ChildProcess, streamCount: number) {
    this.#child = child;
    this.pid = child.pid!;
    this.streams = Array.from({ length: streamCount }, (_, index) => child.stdio[3 + index] as unknown as Duplex);
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#errorOutput = (this.#errorOutput + chunk.toString()).slice(-stderrKept);
    });
    this.ended = once(child, 'exit').then(([code, signal]) => (signal ? `signal ${signal}` : `status ${code}`));
  }

  /**
   * @param fds Descriptors of ours that it inherits behind the streams.
   * @throws Error when the program cannot be started.
   */
  static async start(
    qemu: Qemu,
    args: readonly string[],
    streamCount: number,
    fds: readonly number[] = [],
  ): Promise<QemuProcess> {
    const pipes = Array.from({ length: streamCount }, () => 'pipe' as const);
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...qemu.command, ...args], {
      stdio: ['ignore', 'ignore', 'pipe', ...pipes, ...fds],
    });
    await once(child, 'spawn');
    return new QemuProcess(child, streamCount);
  }

  /** What QEMU printed on its error output, the last part. */
  get stderr(): string {
    return this.#errorOutput.trim();
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }
}
