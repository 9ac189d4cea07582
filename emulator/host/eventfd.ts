/** Event counters: interrupts towards QEMU, wake-ups towards the bus. */
import { ERRNO, lastError } from './errors.js';
import { allocatePinned, eventfd, lastErrno, poll, read, write } from './libc.js';

/** include/uapi/linux/eventfd.h */
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;
/** include/uapi/asm-generic/poll.h */
const POLLIN = 0x001;
const POLLOUT = 0x004;
const POLLNVAL = 0x020;

const COUNTER_BYTES = 8;
const one = allocatePinned(COUNTER_BYTES);
one.view.setBigUint64(0, 1n, true);
const counter = allocatePinned(COUNTER_BYTES);
/** struct pollfd { int fd; short events; short revents; } */
const pollRequest = allocatePinned(8);

/** A new non-blocking eventfd with counter 0, closed on exec. @throws SystemError */
export function createEventfd(): number {
  const fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw lastError('creating an eventfd');
  return fd;
}

/**
 * Adds 1; false when the counter is full, which means that its reader is due anyway.
 *
 * Does not wait, even on a descriptor that came from a client without O_NONBLOCK: it asks poll first. Setting the flag
 * instead would change the client's descriptor too. The only way left to block is a client that itself fills the
 * counter between the two calls.
 * @throws SystemError, also EBADF for a closed descriptor and EPIPE when a client passed the end of a broken pipe
 */
export function signalEventfd(fd: number): boolean {
  if (!isReady(fd, POLLOUT)) return false;
  while (write(fd, one.address, COUNTER_BYTES) < 0) {
    const errno = lastErrno();
    if (errno === ERRNO.EAGAIN) return false;
    if (errno !== ERRNO.EINTR) throw lastError(`signalling eventfd ${fd}`);
  }
  return true;
}

/** Takes the counter and sets it to 0; 0n when it was 0. Never waits. @throws SystemError */
export function drainEventfd(fd: number): bigint {
  if (!isReady(fd, POLLIN)) return 0n;
  while (read(fd, counter.address, COUNTER_BYTES) < 0) {
    const errno = lastErrno();
    if (errno === ERRNO.EAGAIN) return 0n;
    if (errno !== ERRNO.EINTR) throw lastError(`draining eventfd ${fd}`);
  }
  return counter.view.getBigUint64(0, true);
}

function isReady(fd: number, event: number): boolean {
  pollRequest.view.setInt32(0, fd, true);
  pollRequest.view.setUint32(4, event, true);
  while (poll(pollRequest.address, 1, 0) < 0) {
    if (lastErrno() !== ERRNO.EINTR) throw lastError(`polling eventfd ${fd}`);
  }
  const ready = pollRequest.view.getUint16(6, true);
  // A full eventfd raises POLLERR, so that one must not let the call proceed; a closed descriptor
  // must, to get its error.
  return (ready & event) !== 0 || (ready & POLLNVAL) !== 0;
}
