import { type Logger, pino } from 'pino';

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** What pino puts into every record and people do not need in each line. */
const STANDARD_FIELDS = new Set(['level', 'time', 'pid', 'hostname', 'msg', 'function', 'stack']);

/** One line for people from one pino record: `warn gpu0: register 0x1234 is not implemented (value=0x1)`. */
export function formatRecord(json: string): string {
  const record = JSON.parse(json) as Record<string, unknown>;
  const level = pino.levels.labels[record.level as number] ?? String(record.level);
  const source = record.function === undefined ? '' : ` ${record.function}:`;
  const extra = Object.entries(record)
    .filter(([key]) => !STANDARD_FIELDS.has(key))
    .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const fields = extra.length > 0 ? ` (${extra.join(' ')})` : '';
  const stack = typeof record.stack === 'string' ? `\n${record.stack}` : '';
  return `${level}${source} ${record.msg ?? ''}${fields}${stack}\n`;
}

/** A logger that writes lines for people, or pino's own JSON when `json` is set. */
export function createLog(level: LogLevel, json: boolean, target: NodeJS.WritableStream = process.stderr): Logger {
  return pino({ level }, { write: (record: string) => target.write(json ? record : formatRecord(record)) });
}
