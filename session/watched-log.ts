import type { EmulatorLog } from '../emulator/emulator.js';

/** The emulator's words about late answers: on a host that is shared, any thread may have to wait for a processor. */
const SLOW_HOST = /; the virtual machine's processors may have waited|^the host had no processor for the bus thread/;

/**
 * Keeps warnings and errors of the emulator for a test or a matrix to judge: nothing may hide in
 * a log that nobody reads.
 */
export class WatchedLog implements EmulatorLog {
  readonly complaints: string[] = [];
  debug(): void {}
  info(): void {}
  warn(fields: object, message: string): void {
    if (SLOW_HOST.test(message)) return;
    this.complaints.push(`warn: ${message} ${JSON.stringify(fields)}`);
  }
  error(fields: object, message: string): void {
    this.complaints.push(`error: ${message} ${JSON.stringify(fields)}`);
  }
}
