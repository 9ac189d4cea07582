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

/** Told once per file that its owner could shrink it, which would end this process by SIGBUS. */
export type ShrinkableFileListener = (identity: FileIdentity) => void;

export class SharedFiles {
  // By identity and writability: a client may hand out a descriptor that cannot be mapped for writing.
  readonly #files = new Map<string, SharedFile>();
  readonly #onShrinkable: ShrinkableFileListener;

  constructor(onShrinkable: ShrinkableFileListener) {
    this.#onShrinkable = onShrinkable;
  }

  /**
   * The file behind `fd`, mapped up to `offset + lengthBytes` at least. The caller keeps `fd` and calls {@link release}.
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
    const slot = `${identity.key}${writable ? ':w' : ':r'}`;
    const known = this.#files.get(slot);
    if (known !== undefined && known.memory.sizeBytes >= offset + lengthBytes) {
      touchWindows(known.memory, offset, lengthBytes);
      known.users++;
      return known;
    }
    const file = this.#open(fd, identity, offset, lengthBytes, writable);
    // A file that grew is mapped anew; maps made before keep the object they have.
    this.#files.set(slot, file);
    return file;
  }

  /** Gives one use back; the last one unmaps the file. */
  release(file: SharedFile): void {
    file.users--;
    if (file.users > 0) return;
    file.memory.close();
    for (const [slot, known] of this.#files) if (known === file) this.#files.delete(slot);
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

/** Maps every window of the range now, so that a file that cannot be mapped is refused here and not in the middle of a DMA. */
function touchWindows(memory: MappedFile, offset: number, lengthBytes: number): void {
  const first = Math.floor(offset / WINDOW_BYTES);
  const last = Math.floor((offset + lengthBytes - 1) / WINDOW_BYTES);
  for (let window = first; window <= last; window++) memory.span(window * WINDOW_BYTES, 1);
}
