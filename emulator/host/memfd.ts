/** Anonymous sparse files that are shared with a client by passing their descriptor. */
import { lastError } from './errors.js';
import { closeFd, statFd } from './fd.js';
import { fallocate, fcntl, ftruncate, memfdCreate } from './libc.js';

/** include/uapi/linux/memfd.h */
const MFD_CLOEXEC = 0x1;
const MFD_ALLOW_SEALING = 0x2;
/** include/uapi/linux/fcntl.h F_LINUX_SPECIFIC_BASE + 9 and + 10 */
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
/** include/uapi/linux/fcntl.h */
const F_SEAL_SEAL = 0x1;
const F_SEAL_SHRINK = 0x2;
const F_SEAL_GROW = 0x4;
/** include/uapi/linux/falloc.h */
const FALLOC_FL_KEEP_SIZE = 0x1;
const FALLOC_FL_PUNCH_HOLE = 0x2;
/** struct stat counts blocks of this many bytes whatever the file system's block size (stat(2)). */
const STAT_BLOCK_BYTES = 512;

/**
 * A new memfd of the given size, closed on exec. It takes no memory until it is touched. Its size is sealed: a client
 * that gets the descriptor cannot shrink the file under our mappings, which would kill this process by SIGBUS.
 * @throws SystemError
 */
export function createMemfd(name: string, sizeBytes: number): number {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    throw new RangeError(`memfd ${name}: size ${sizeBytes} is not a positive whole number of bytes`);
  }
  const fd = memfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) throw lastError(`creating memfd ${name}`);
  try {
    if (ftruncate(fd, sizeBytes) < 0) throw lastError(`sizing memfd ${name} to ${sizeBytes} bytes`);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) throw lastError(`sealing memfd ${name}`);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/**
 * Makes sure that nobody can shrink this file any more, sealing it if need be; true when that holds.
 *
 * Touching a mapping beyond the end of its file is SIGBUS, which ends the process. A memfd can be sealed against that:
 * QEMU's memory-backend-memfd comes sealed (seal=on is its default) and an unsealed one that allows seals is sealed
 * here. A file on tmpfs or disk (memory-backend-file) cannot be: false. Its owner can then end this process by
 * truncating it; whoever maps it should say so once.
 */
export function sealAgainstShrinking(fd: number): boolean {
  const seals = fcntl(fd, F_GET_SEALS, 0);
  if (seals >= 0 && (seals & F_SEAL_SHRINK) !== 0) return true;
  return seals >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) === 0;
}

/**
 * Gives the memory of a range back to the system; the range reads as zero, the file keeps its size. @throws SystemError
 */
export function punchHole(fd: number, offsetBytes: number, lengthBytes: number): void {
  if (lengthBytes === 0) return;
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offsetBytes, lengthBytes) < 0) {
    throw lastError(`punching a hole of ${lengthBytes} bytes at ${offsetBytes} into fd ${fd}`);
  }
}

/** Memory the file takes now, as opposed to its size. @throws SystemError */
export function allocatedBytes(fd: number): number {
  return Number(statFd(fd).blocks) * STAT_BLOCK_BYTES;
}
