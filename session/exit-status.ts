/** What the program's exit status means. `run` passes the guest command's own status through. */
import { constants } from 'node:os';
import { GuestError } from '../qemu/index.js';

/** The command line is wrong; nothing was started. */
export const USAGE_STATUS = 2;
/** ghostbus could not do its own part: the host lacks something, or the emulator failed. */
const FAILURE_STATUS = 123;
/** The command in the guest took longer than `--timeout`; the same number as coreutils' timeout. */
const TIMEOUT_STATUS = 124;
/** The guest panicked, hung or did not boot, or QEMU ended. */
const GUEST_STATUS = 125;
/** Of `--repeat`: no run failed, and not all could be tried; what `git bisect run` takes for "skip". */
export const UNDECIDED_STATUS = 125;
/** A process that a signal ended has this much added to the signal's number (POSIX shells). */
const SIGNAL_BASE = 128;

/** The command line cannot be carried out as written. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The command in the guest was stopped because its time was over. */
export class CommandTimeoutError extends Error {
  override readonly name = 'CommandTimeoutError';
}

/** Somebody asked this process to end. */
export class InterruptedError extends Error {
  override readonly name = 'InterruptedError';
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`ended by ${signal}`);
    this.signal = signal;
  }
}

export function statusOfSignal(signal: NodeJS.Signals | number): number {
  return SIGNAL_BASE + (typeof signal === 'number' ? signal : constants.signals[signal]);
}

/** The status of a command that ran: its own, or 128 + n when signal n ended it. */
export function statusOfCommand(result: { exitCode: number | undefined; signal: number | undefined }): number {
  if (result.exitCode !== undefined) return result.exitCode;
  return result.signal === undefined ? FAILURE_STATUS : statusOfSignal(result.signal);
}

export function statusOfError(error: unknown): number {
  if (error instanceof UsageError) return USAGE_STATUS;
  if (error instanceof CommandTimeoutError) return TIMEOUT_STATUS;
  if (error instanceof GuestError) return GUEST_STATUS;
  if (error instanceof InterruptedError) return statusOfSignal(error.signal);
  return FAILURE_STATUS;
}

export const EXIT_STATUS_HELP = `Exit status:
  that of CMD; 128 + n when signal n ended it in the guest
  2    the command line is wrong
  123  ghostbus could not do its part (the message says what is missing)
  124  CMD took longer than --timeout
  125  the guest panicked, hung or did not boot, a driver in it did not take its function, or QEMU ended
Exit status with --repeat, as git bisect run wants it:
  0    all runs passed
  n    CMD's own in the first run that failed; 1 if that is more than 127, and for a panic or a hang under CMD
  124  CMD took longer than --timeout
  125  none failed, but a guest did not boot, QEMU ended, ghostbus could not do its part, or CMD gave 125`;
