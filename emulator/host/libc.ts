/**
 * The libc functions this project calls, as plain synchronous functions over numbers, and memory with a fixed address
 * to build C structures in. The only importer of koffi.
 *
 * Pointers travel as `number`: user addresses stay below 2^47 on x86-64 and 2^48 on arm64, so they are safe integers,
 * and koffi converts a number several times faster than a bigint or an object.
 * Variadic functions (fcntl, ioctl) are declared with the one argument used here: on both Linux ABIs integer arguments
 * of variadic calls go into the same registers as those of ordinary ones.
 */
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

type IntFunction = (...args: number[]) => number;

function declare(name: string, result: string, args: readonly string[]): IntFunction {
  return libc.func(name, result, [...args]) as IntFunction;
}

export const close = declare('close', 'int', ['int']);
export const fcntl = declare('fcntl', 'int', ['int', 'int', 'int']);
export const ioctl = declare('ioctl', 'int', ['int', 'ulong', 'uintptr_t']);
export const read = declare('read', 'int64_t', ['int', 'uintptr_t', 'size_t']);
export const write = declare('write', 'int64_t', ['int', 'uintptr_t', 'size_t']);
export const poll = declare('poll', 'int', ['uintptr_t', 'ulong', 'int']);
export const fchmod = declare('fchmod', 'int', ['int', 'uint']);
export const ftruncate = declare('ftruncate', 'int', ['int', 'int64_t']);
export const fallocate = declare('fallocate', 'int', ['int', 'int', 'int64_t', 'int64_t']);
export const mmap = declare('mmap', 'int64_t', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'int64_t']);
export const munmap = declare('munmap', 'int', ['uintptr_t', 'size_t']);
export const socket = declare('socket', 'int', ['int', 'int', 'int']);
export const socketpair = declare('socketpair', 'int', ['int', 'int', 'int', 'uintptr_t']);
export const bind = declare('bind', 'int', ['int', 'uintptr_t', 'uint']);
export const listen = declare('listen', 'int', ['int', 'int']);
export const accept4 = declare('accept4', 'int', ['int', 'uintptr_t', 'uintptr_t', 'int']);
export const connect = declare('connect', 'int', ['int', 'uintptr_t', 'uint']);
export const recvmsg = declare('recvmsg', 'int64_t', ['int', 'uintptr_t', 'int']);
export const sendmsg = declare('sendmsg', 'int64_t', ['int', 'uintptr_t', 'int']);
export const eventfd = declare('eventfd', 'int', ['uint', 'int']);
export const epollCreate = declare('epoll_create1', 'int', ['int']);
export const epollCtl = declare('epoll_ctl', 'int', ['int', 'int', 'int', 'uintptr_t']);
export const epollWait = declare('epoll_wait', 'int', ['int', 'uintptr_t', 'int', 'int']);
export const memfdCreate = libc.func('memfd_create', 'int', ['str', 'uint']) as (name: string, flags: number) => number;
export const strerror = libc.func('strerror', 'str', ['int']) as (errno: number) => string;

/** errno of the libc call just made on this thread. Ask before doing anything else. */
export function lastErrno(): number {
  return koffi.errno();
}

/** Memory of fixed address for C structures, zeroed and 8-byte aligned. Keep the object for as long as C uses it. */
export interface PinnedMemory {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly view: DataView;
}

export function allocatePinned(sizeBytes: number): PinnedMemory {
  const storage = new ArrayBuffer(Math.ceil(sizeBytes / 8) * 8);
  const bytes = new Uint8Array(storage);
  return { address: addressOf(bytes), bytes, words: new Uint32Array(storage), view: new DataView(storage) };
}

/**
 * Address of a typed array's first byte; fixed for the array's life, because asking for it moves a small array's
 * contents out of the garbage-collected heap.
 */
export function addressOf(bytes: Uint8Array): number {
  return Number(koffi.address(bytes));
}

/** An ArrayBuffer over foreign memory. The memory must stay mapped until the buffer has been garbage-collected. */
export function viewMemory(address: number, lengthBytes: number): ArrayBuffer {
  return koffi.view(address, lengthBytes);
}

const wordFunction = koffi.proto('uint64_t ghostbus_word_function()');

/** Machine code at an address, which takes no argument and returns 64 bits. It must stay mapped while it is called. */
export function functionAt(address: number): () => bigint {
  return () => BigInt(koffi.call(address, wordFunction));
}

/** Stores a 64-bit pointer or size, given as a safe integer, as two words at `wordIndex` (little-endian). */
export function storeWord64(words: Uint32Array, wordIndex: number, value: number): void {
  words[wordIndex] = value >>> 0;
  words[wordIndex + 1] = value / 0x1_0000_0000;
}
