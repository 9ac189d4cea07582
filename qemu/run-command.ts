import { spawn } from 'node:child_process';

/** A host program failed. `output` holds the last part of what it printed. */
export class CommandError extends Error {
  readonly exitCode: number | null;
  readonly output: string;

  constructor(command: string, exitCode: number | null, output: string) {
    super(`${command} ${exitCode === null ? 'was killed' : `ended with status ${exitCode}`}:\n${output}`);
    this.name = 'CommandError';
    this.exitCode = exitCode;
    this.output = output;
  }
}

export interface CommandOptions {
  cwd?: string;
  input?: string;
  env?: NodeJS.ProcessEnv;
  timeoutMs?: number;
  /** Is given standard error as it comes. */
  onStderr?: ((text: string) => void) | undefined;
}

const outputTailBytes = 16 * 1024;

/**
 * Runs a host program to its end and resolves with its standard output.
 * @throws CommandError with the tail of its error output; the plain spawn error (ENOENT) when it does not exist.
 */
export function runCommand(program: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      timeout: options.timeoutMs,
      killSignal: 'SIGKILL',
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    });
    const stdout: Buffer[] = [];
    let tail = '';
    const keepTail = (chunk: Buffer) => {
      const text = chunk.toString();
      tail = (tail + text).slice(-outputTailBytes);
      options.onStderr?.(text);
    };
    child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr?.on('data', keepTail);
    // A program that ends before it has read all its input is judged by its exit status, not by EPIPE here.
    child.stdin?.on('error', () => {}).end(options.input);
    child.on('error', reject);
    child.on('close', (exitCode) => {
      const text = Buffer.concat(stdout).toString();
      if (exitCode === 0) resolve(text);
      else reject(new CommandError(program, exitCode, tail || text.slice(-outputTailBytes)));
    });
  });
}
