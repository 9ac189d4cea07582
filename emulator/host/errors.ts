/** Failed system calls as errors that carry errno's name and what was attempted. */
import { constants } from 'node:os';
import { lastErrno, strerror } from './libc.js';

/** Linux errno numbers by name; also the numbers that vfio-user puts into error replies. */
export const ERRNO = constants.errno;

const NAMES = new Map<number, string>();
for (const [name, number] of Object.entries(ERRNO)) {
  // Synonyms (EWOULDBLOCK, EOPNOTSUPP) come after the usual name in node's table.
  if (!NAMES.has(number)) NAMES.set(number, name);
}

/** `errnoName(2)` is 'ENOENT'; a number without a name is 'errno 4711'. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`;
}

/** A system call that failed. `operation` says what was attempted on what; `advice` what to do about it. */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly operation: string;

  constructor(operation: string, errno: number, advice?: string) {
    const code = errnoName(errno);
    super(`${operation} failed: ${code} (${strerror(errno)})${advice === undefined ? '' : `; ${advice}`}`);
    this.name = 'SystemError';
    this.code = code;
    this.errno = errno;
    this.operation = operation;
  }
}

/** The error of the libc call just made. Call it first thing after a result of -1. */
export function lastError(operation: string, advice?: string): SystemError {
  return new SystemError(operation, lastErrno(), advice);
}
