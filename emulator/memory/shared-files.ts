/** The files behind a client's DMA maps: each is mapped once, however many maps name it. */
import {
  ERRNO,
  type FileIdentity,
  MappedFile,
  SystemError,
  sealAgainstShrinking,
  WINDOW_BYTES,
} from '../host/index.js';

export interface SharedFile {
  readonly key: string;
  readonly memory: MappedFile;
  /** How many DMA maps use it. */
  users: number;
}

/**
 * So many files stay mapped after their last unmap. A vIOMMU makes one map per page and unmaps it when the transfer is
 * done; without this a function with one transfer at a time would map its guest's memory anew each time, and addresses
 * come back only when the garbage collector has run (see host/mapping.ts).
 */
const IDLE_LIMIT = 2;

/** Told once per file that its owner could shrink it, which would end this process by SIGBUS. */
export type ShrinkableFileListener = (identity: FileIdentity) => void;

export class SharedFiles {
  // By identity and writability: a client may hand out a descriptor that cannot be mapped for writing.
  readonly #files = new Map<string, SharedFile>();
  readonly #onShrinkable: ShrinkableFileListener;
  /** Files without users, the one used last at the end. */
  #idle: SharedFile[] = [];

  constructor(onShrinkable: ShrinkableFileListener) {
    this.#onShrinkable = onShrinkable;
  }

  /**
   * The file behind `fd`, mapped up to `offset + lengthBytes` at least. The caller keeps `fd` and
   * calls {@link release}.
   * @throws SystemError EINVAL when the file is shorter; mmap's own errors
   */
  acquire(fd: number, identity: FileIdentity, offset: number, lengthBytes: number, writable: boolean): SharedFile {
    if (identity.sizeBytes < offset + lengthBytes) {
      throw new SystemError(
        `mapping bytes ${offset} to ${offset + lengthBytes} of file ${identity.key}`,
        ERRNO.EINVAL,
        `it has only ${identity.sizeBytes} bytes`,
      );
    }
    const slot = slotOf(identity.key, writable);
    const known = this.#files.get(slot);
    if (known !== undefined && known.memory.sizeBytes >= offset + lengthBytes) {
      touchWindows(known.memory, offset, lengthBytes);
      if (known.users === 0) this.#idle = this.#idle.filter((file) => file !== known);
      known.users++;
      return known;
    }
    const file = this.#open(fd, identity, offset, lengthBytes, writable);
    this.#files.set(slot, file);
    // The file grew. Maps made before keep the mapping they have.
    if (known !== undefined && known.users === 0) this.#close(known);
    return file;
  }

  /** Gives one use back. Of the files without users, the one that went unused longest is unmapped. */
  release(file: SharedFile): void {
    file.users--;
    if (file.users > 0) return;
    this.#idle.push(file);
    const current = this.#files.get(slotOf(file.key, file.memory.writable)) === file;
    if (!current) this.#close(file);
    else if (this.#idle.length > IDLE_LIMIT) this.#close(this.#idle[0]!);
  }

  /** Unmaps every file without users. */
  closeIdle(): void {
    for (const file of [...this.#idle]) this.#close(file);
  }

  #close(file: SharedFile): void {
    this.#idle = this.#idle.filter((other) => other !== file);
    const slot = slotOf(file.key, file.memory.writable);
    if (this.#files.get(slot) === file) this.#files.delete(slot);
    file.memory.close();
  }

  #open(fd: number, identity: FileIdentity, offset: number, lengthBytes: number, writable: boolean): SharedFile {
    const memory = new MappedFile(fd, identity.sizeBytes, { writable });
    try {
      touchWindows(memory, offset, lengthBytes);
    } catch (error) {
      memory.close();
      throw error;
    }
    if (!sealAgainstShrinking(fd)) this.#onShrinkable(identity);
    return { key: identity.key, memory, users: 1 };
  }
}

function slotOf(key: string, writable: boolean): string {
  return `${key}${writable ? ':w' : ':r'}`;
}

/**
 * Maps every window of the range now, so that a file that cannot be mapped is refused here and
 * not in the middle of a DMA.
 */
function touchWindows(memory: MappedFile, offset: number, lengthBytes: number): void {
  const first = Math.floor(offset / WINDOW_BYTES);
  const last = Math.floor((offset + lengthBytes - 1) / WINDOW_BYTES);
  for (let window = first; window <= last; window++) memory.span(window * WINDOW_BYTES, 1);
}
