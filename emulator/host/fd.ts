/** File descriptors: closing, duplicating, identity. */
import { fstatSync, readdirSync } from 'node:fs';
import { ERRNO, lastError, SystemError } from './errors.js';
import { close, fcntl, lastErrno } from './libc.js';

/** include/uapi/linux/fcntl.h F_LINUX_SPECIFIC_BASE + 6 */
const F_DUPFD_CLOEXEC = 1030;
/** include/uapi/asm-generic/fcntl.h */
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;

/** Two descriptors of the same file have the same `key`, whatever their numbers and whoever opened them. */
export interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly sizeBytes: number;
  /** "dev:ino" */
  readonly key: string;
}

/** Closes a descriptor. @throws SystemError EBADF when it is not open. */
export function closeFd(fd: number): void {
  // Linux has released the descriptor when close reports EINTR; trying again could close somebody else's.
  if (close(fd) < 0 && lastErrno() !== ERRNO.EINTR) throw lastError(`close of fd ${fd}`);
}

/** Which file a descriptor refers to, and its size now. @throws SystemError */
export function fileIdentity(fd: number): FileIdentity {
  const { dev, ino, size } = statFd(fd);
  return { dev, ino, sizeBytes: Number(size), key: `${dev}:${ino}` };
}

/** fstat with bigint fields. @throws SystemError */
export function statFd(fd: number) {
  try {
    return fstatSync(fd, { bigint: true });
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    throw new SystemError(`fstat on fd ${fd}`, -errno);
  }
}

/** A second descriptor of the same open file, closed on exec. @throws SystemError */
export function duplicateFd(fd: number): number {
  const copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw lastError(`duplicating fd ${fd}`);
  return copy;
}

/** Sets O_NONBLOCK. The flag belongs to the open file: other processes that share it see it too. @throws SystemError */
export function setNonBlocking(fd: number): void {
  const flags = fcntl(fd, F_GETFL, 0);
  if (flags < 0) throw lastError(`reading the flags of fd ${fd}`);
  if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) throw lastError(`setting O_NONBLOCK on fd ${fd}`);
}

/** How many descriptors this process has open; for leak checks. */
export function openFdCount(): number {
  // Listing the folder opens one descriptor, which is listed too.
  return readdirSync('/proc/self/fd').length - 1;
}
