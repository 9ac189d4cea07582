/** One wait over many descriptors. */
import { performance } from 'node:perf_hooks';
import { ERRNO, lastError } from './errors.js';
import { closeFd } from './fd.js';
import { allocatePinned, epollCreate, epollCtl, epollWait, lastErrno } from './libc.js';

/** include/uapi/linux/eventpoll.h */
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLLIN = 0x1;
const EPOLLOUT = 0x4;
const EPOLLRDHUP = 0x2000;
/** struct epoll_event { u32 events; u64 data; }: packed on x86-64 only (EPOLL_PACKED in eventpoll.h). */
const EVENT_WORDS = process.arch === 'x64' ? 3 : 4;
const DATA_WORD = EVENT_WORDS - 2;

/** More ready descriptors than this are reported by the next waits; the kernel takes turns. */
const MAX_EVENTS = 128;
/** epoll_wait takes an int of milliseconds. */
const MAX_TIMEOUT_MS = 0x7fff_ffff;

/**
 * Waits until descriptors have something to read or their peer has gone (level-triggered: as long as that lasts).
 * A descriptor is known by the token it was added with, an unsigned 32-bit number of the caller's choice.
 */
export class Poller {
  readonly #fd: number;
  readonly #events = allocatePinned(MAX_EVENTS * EVENT_WORDS * 4);
  readonly #request = allocatePinned(EVENT_WORDS * 4);
  #count = 0;

  /** @throws SystemError */
  constructor() {
    this.#fd = epollCreate(EPOLL_CLOEXEC);
    if (this.#fd < 0) throw lastError('creating an epoll descriptor');
  }

  /**
   * `interest` 'write': ready when it takes bytes again, or its peer has gone; then what can be read does not count.
   * @throws SystemError EEXIST when it is already there, EPERM when it cannot be waited for (a regular file)
   */
  add(fd: number, token: number, interest: 'read' | 'write' = 'read'): void {
    if (token !== token >>> 0) throw new RangeError(`token ${token} is not an unsigned 32-bit number`);
    const { words } = this.#request;
    words[0] = interest === 'read' ? EPOLLIN | EPOLLRDHUP : EPOLLOUT;
    words[DATA_WORD] = token;
    words[DATA_WORD + 1] = 0;
    if (epollCtl(this.#fd, EPOLL_CTL_ADD, fd, this.#request.address) < 0) throw lastError(`adding fd ${fd} to epoll`);
  }

  /** Call it before closing the descriptor. @throws SystemError ENOENT when it was never added */
  remove(fd: number): void {
    if (epollCtl(this.#fd, EPOLL_CTL_DEL, fd, 0) < 0) throw lastError(`removing fd ${fd} from epoll`);
  }

  /**
   * Waits for at most `timeoutMs` (fractions rounded up, -1 or Infinity: without limit) and returns how many
   * descriptors are ready; `tokenAt` names them until the next wait. @throws SystemError
   */
  wait(timeoutMs: number): number {
    if (Number.isNaN(timeoutMs)) throw new RangeError('the timeout is not a number');
    const endless = timeoutMs < 0 || timeoutMs === Number.POSITIVE_INFINITY;
    let remainingMs = endless ? -1 : Math.min(Math.ceil(timeoutMs), MAX_TIMEOUT_MS);
    const startMs = remainingMs > 0 ? performance.now() : 0;
    for (;;) {
      this.#count = epollWait(this.#fd, this.#events.address, MAX_EVENTS, remainingMs);
      if (this.#count >= 0) return this.#count;
      if (lastErrno() !== ERRNO.EINTR) throw lastError('waiting for descriptors');
      if (remainingMs > 0) remainingMs = Math.max(0, Math.ceil(timeoutMs - (performance.now() - startMs)));
    }
  }

  /** Token of the i-th ready descriptor of the last wait. */
  tokenAt(index: number): number {
    if (!(index >= 0 && index < this.#count)) throw new RangeError(`event ${index} of ${this.#count}`);
    return this.#events.words[index * EVENT_WORDS + DATA_WORD]!;
  }

  /** @throws SystemError */
  close(): void {
    closeFd(this.#fd);
  }
}
