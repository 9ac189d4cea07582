/** UNIX stream sockets that carry file descriptors. */
import { lstatSync, unlinkSync } from 'node:fs';
import { ERRNO, lastError, SystemError } from './errors.js';
import { closeFd } from './fd.js';
import {
  accept4,
  addressOf,
  allocatePinned,
  bind,
  connect,
  fchmod,
  ioctl,
  lastErrno,
  listen,
  recvmsg,
  sendmsg,
  socket,
  socketpair,
  storeWord64,
} from './libc.js';

/** include/linux/socket.h, include/linux/net.h, include/uapi/asm-generic/socket.h */
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const STREAM_FLAGS = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
/** include/uapi/asm-generic/ioctls.h FIONREAD, include/uapi/linux/sockios.h SIOCINQ */
const SIOCINQ = 0x541b;

/** include/uapi/linux/un.h: sun_path has 108 bytes, the last one for NUL. */
const MAX_PATH_BYTES = 107;
const SUN_PATH_OFFSET = 2;
const LISTEN_BACKLOG = 16;

/** Descriptors that one receive can take; vfio-user peers send at most 16 (vfio-user.md §1.4). */
export const RECEIVE_FD_LIMIT = 64;
/** include/net/scm.h SCM_MAX_FD: what the kernel takes in one send. */
export const SEND_FD_LIMIT = 253;

// struct msghdr, iovec and cmsghdr of 64-bit Linux (include/linux/socket.h), as 32-bit words: the three live in one
// block that is written once; a call only stores what changes.
const NAME_LENGTH_WORD = 2;
const IOVEC_POINTER_WORD = 4;
const IOVEC_COUNT_WORD = 6;
const CONTROL_POINTER_WORD = 8;
const CONTROL_LENGTH_WORD = 10;
const FLAGS_WORD = 12;
const BASE_WORD = 14;
const LENGTH_WORD = 16;
const HEADER_BYTES = 72;
const CMSG_HEADER_BYTES = 16;
const CMSG_ALIGN_BYTES = 8;

function controlSpace(fdCount: number): number {
  return CMSG_HEADER_BYTES + Math.ceil((fdCount * 4) / CMSG_ALIGN_BYTES) * CMSG_ALIGN_BYTES;
}

function allocateMessage(fdLimit: number) {
  const memory = allocatePinned(HEADER_BYTES + controlSpace(fdLimit));
  storeWord64(memory.words, IOVEC_POINTER_WORD, memory.address + BASE_WORD * 4);
  storeWord64(memory.words, IOVEC_COUNT_WORD, 1);
  return memory;
}

const incoming = allocateMessage(RECEIVE_FD_LIMIT);
storeWord64(incoming.words, CONTROL_POINTER_WORD, incoming.address + HEADER_BYTES);
const INCOMING_CONTROL_BYTES = controlSpace(RECEIVE_FD_LIMIT);
const outgoing = allocateMessage(SEND_FD_LIMIT);

/** What one receive brought. */
export interface Received {
  readonly byteCount: number;
  /** Now owned by the caller, closed on exec. They belong to the message that owns the last byte of this read. */
  readonly fds: number[];
  /** True when the peer sent more descriptors than fit; the kernel closed the others. */
  readonly truncatedControl: boolean;
}

/**
 * A non-blocking listening socket at `path`, usable by this user only (mode 0600). The file a dead owner left there is
 * replaced; two processes that start on the same path in the same instant are not kept apart.
 * @throws SystemError ENAMETOOLONG, EADDRINUSE when a live server or another kind of file is there, bind's own errors
 */
export function listenUnix(path: string): number {
  const address = unixAddress(path);
  const fd = newSocket(path);
  try {
    // The mode set before bind is the one the file gets (net/unix/af_unix.c unix_bind_bsd): there is no moment in
    // which it is open to others, and no need for umask, which would concern the whole process.
    if (fchmod(fd, 0o600) < 0) throw lastError(`making socket ${path} private`);
    if (bind(fd, address.address, address.bytes.length) < 0) {
      if (lastErrno() !== ERRNO.EADDRINUSE) throw lastError(`binding socket ${path}`);
      removeStaleSocket(path);
      if (bind(fd, address.address, address.bytes.length) < 0) throw lastError(`binding socket ${path}`);
    }
    if (listen(fd, LISTEN_BACKLOG) < 0) throw lastError(`listening on ${path}`);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

function removeStaleSocket(path: string): void {
  if (!lstatSync(path).isSocket()) {
    throw new SystemError(
      `listening on ${path}`,
      ERRNO.EADDRINUSE,
      'a file that is no socket is there; choose another path',
    );
  }
  const probe = newSocket(path);
  try {
    const address = unixAddress(path);
    const connected = connect(probe, address.address, address.bytes.length) === 0;
    const errno = connected ? 0 : lastErrno();
    // EAGAIN: somebody listens, with a full queue.
    if (connected || errno === ERRNO.EAGAIN) {
      throw new SystemError(
        `listening on ${path}`,
        ERRNO.EADDRINUSE,
        'a live server has it; stop it or choose another path',
      );
    }
    if (errno !== ERRNO.ECONNREFUSED) throw new SystemError(`asking who listens on ${path}`, errno);
  } finally {
    closeFd(probe);
  }
  unlinkSync(path);
}

/** Next waiting connection, non-blocking and closed on exec; undefined when there is none. @throws SystemError */
export function acceptConnection(listenFd: number): number | undefined {
  for (;;) {
    const fd = accept4(listenFd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) return fd;
    const errno = lastErrno();
    if (errno === ERRNO.EAGAIN) return undefined;
    // A connection that its client gave up while it waited is nobody's error; look for the next one.
    if (errno !== ERRNO.EINTR && errno !== ERRNO.ECONNABORTED) throw lastError(`accept on fd ${listenFd}`);
  }
}

/** A non-blocking connection to a listening socket. @throws SystemError; EAGAIN when its queue is full */
export function connectUnix(path: string): number {
  const address = unixAddress(path);
  const fd = newSocket(path);
  if (connect(fd, address.address, address.bytes.length) < 0) {
    const error = lastError(`connecting to ${path}`);
    closeFd(fd);
    throw error;
  }
  return fd;
}

/** Two connected non-blocking stream sockets. @throws SystemError */
export function socketPair(): [number, number] {
  const pair = allocatePinned(8);
  if (socketpair(AF_UNIX, STREAM_FLAGS, 0, pair.address) < 0) throw lastError('creating a socket pair');
  return [pair.words[0]!, pair.words[1]!];
}

/**
 * Receives what is there, up to `length` bytes into `buffer` at `offset`. Never waits.
 *
 * Descriptors come with the first byte of the data they were sent with, and a read ends behind data that carried some:
 * what `fds` holds belongs to the message that owns the last byte of this read.
 * @throws SystemError, e.g. ECONNRESET when the peer went away without reading what we sent
 */
export function recvWithFds(
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
): Received | 'would-block' | 'closed' {
  const { words } = incoming;
  setTransfer(words, buffer, offset, length);
  storeWord64(words, CONTROL_LENGTH_WORD, INCOMING_CONTROL_BYTES);
  words[NAME_LENGTH_WORD] = 0;
  let byteCount = recvmsg(fd, incoming.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (byteCount < 0) {
    const errno = lastErrno();
    if (errno === ERRNO.EAGAIN) return 'would-block';
    if (errno !== ERRNO.EINTR) throw new SystemError(`recvmsg on fd ${fd}`, errno);
    byteCount = recvmsg(fd, incoming.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  }
  if (byteCount === 0) return 'closed';
  const fds = words[CONTROL_LENGTH_WORD] === 0 ? [] : receivedFds(words[CONTROL_LENGTH_WORD]!);
  return { byteCount, fds, truncatedControl: (words[FLAGS_WORD]! & MSG_CTRUNC) !== 0 };
}

function receivedFds(controlBytes: number): number[] {
  const { view } = incoming;
  const end = HEADER_BYTES + controlBytes;
  const fds: number[] = [];
  for (let at = HEADER_BYTES; at + CMSG_HEADER_BYTES <= end; ) {
    const length = view.getUint32(at, true);
    if (view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS) {
      for (let i = CMSG_HEADER_BYTES; i + 4 <= length; i += 4) fds.push(view.getInt32(at + i, true));
    }
    at += Math.max(CMSG_HEADER_BYTES, Math.ceil(length / CMSG_ALIGN_BYTES) * CMSG_ALIGN_BYTES);
  }
  return fds;
}

/**
 * Sends up to `length` bytes of `buffer` from `offset` on, with copies of `fds`. Never waits and raises no signal.
 * Returns how many bytes went out; when fewer than `length`, the descriptors have gone with them:
 * send the rest with none.
 * @throws SystemError, e.g. EPIPE when the peer has closed
 */
export function sendWithFds(
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  fds: readonly number[],
): number | 'would-block' {
  const { words } = outgoing;
  setTransfer(words, buffer, offset, length);
  setOutgoingFds(fds);
  for (;;) {
    const byteCount = sendmsg(fd, outgoing.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (byteCount >= 0) return byteCount;
    const errno = lastErrno();
    if (errno === ERRNO.EAGAIN) return 'would-block';
    if (errno !== ERRNO.EINTR) {
      throw new SystemError(`sendmsg of ${length} bytes and ${fds.length} descriptors on fd ${fd}`, errno);
    }
  }
}

function setOutgoingFds(fds: readonly number[]): void {
  const { words, view } = outgoing;
  if (fds.length === 0) {
    storeWord64(words, CONTROL_POINTER_WORD, 0);
    storeWord64(words, CONTROL_LENGTH_WORD, 0);
    return;
  }
  const wrong = fds.findIndex((fd) => !Number.isInteger(fd) || fd < 0);
  // Stored as it is, undefined would become 0: the peer would get this process's standard input.
  if (wrong >= 0)
    throw new TypeError(`passing descriptors: number ${wrong} of them is ${fds[wrong]}, not a descriptor`);
  if (fds.length > SEND_FD_LIMIT) {
    throw new RangeError(`${fds.length} descriptors in one message; the kernel takes ${SEND_FD_LIMIT}`);
  }
  const lengthBytes = CMSG_HEADER_BYTES + fds.length * 4;
  storeWord64(words, CONTROL_POINTER_WORD, outgoing.address + HEADER_BYTES);
  storeWord64(words, CONTROL_LENGTH_WORD, controlSpace(fds.length));
  view.setUint32(HEADER_BYTES, lengthBytes, true);
  view.setUint32(HEADER_BYTES + 4, 0, true);
  view.setInt32(HEADER_BYTES + 8, SOL_SOCKET, true);
  view.setInt32(HEADER_BYTES + 12, SCM_RIGHTS, true);
  for (let i = 0; i < fds.length; i++) view.setInt32(HEADER_BYTES + CMSG_HEADER_BYTES + i * 4, fds[i]!, true);
}

const pendingCount = allocatePinned(8);

/** Bytes waiting to be received. @throws SystemError */
export function pendingBytes(fd: number): number {
  if (ioctl(fd, SIOCINQ, pendingCount.address) < 0) throw lastError(`asking for the bytes waiting on fd ${fd}`);
  return pendingCount.view.getInt32(0, true);
}

// Asking for a buffer's address costs half as much as a system call, and callers mostly use the same buffer again.
let lastBuffer: Uint8Array = new Uint8Array(8);
let lastAddress = addressOf(lastBuffer);

function setTransfer(words: Uint32Array, buffer: Uint8Array, offset: number, length: number): void {
  const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length > 0;
  if (!valid || offset + length > buffer.length) {
    throw new RangeError(`transfer of ${length} bytes at offset ${offset} of a buffer of ${buffer.length} bytes`);
  }
  if (buffer !== lastBuffer) {
    lastAddress = addressOf(buffer);
    lastBuffer = buffer;
  }
  storeWord64(words, BASE_WORD, lastAddress + offset);
  storeWord64(words, LENGTH_WORD, length);
}

function newSocket(path: string): number {
  const fd = socket(AF_UNIX, STREAM_FLAGS, 0);
  if (fd < 0) throw lastError(`creating a socket for ${path}`);
  return fd;
}

/** struct sockaddr_un. */
function unixAddress(path: string): { address: number; bytes: Uint8Array } {
  const name = Buffer.from(path);
  if (name.length === 0 || name.includes(0)) throw new RangeError(`socket path ${JSON.stringify(path)} is no path`);
  if (name.length > MAX_PATH_BYTES) {
    const advice = `it has ${name.length} bytes, a socket's path at most ${MAX_PATH_BYTES}; use a shorter folder`;
    throw new SystemError(`using ${path} as a socket`, ERRNO.ENAMETOOLONG, advice);
  }
  const bytes = new Uint8Array(SUN_PATH_OFFSET + name.length + 1);
  bytes[0] = AF_UNIX;
  bytes.set(name, SUN_PATH_OFFSET);
  return { address: addressOf(bytes), bytes };
}
