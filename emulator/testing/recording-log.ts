import type { Log } from '../ambient/log.js';

export interface LogRecord {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Keeps every record for assertions. */
export class RecordingLog implements Log {
  readonly records: LogRecord[] = [];
  debug(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.records.push({ level: 'debug', message, fields });
  }
  info(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.records.push({ level: 'info', message, fields });
  }
  warn(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.records.push({ level: 'warn', message, fields });
  }
  error(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    this.records.push({ level: 'error', message, fields });
  }
}
