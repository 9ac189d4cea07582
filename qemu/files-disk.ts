import { randomUUID } from 'node:crypto';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuestFile } from '../emulator/plugin/guest.js';
import { HostSetupError } from './errors.js';
import { overlayArchive } from './image.js';

/** The same for every machine: one that is restored still believes in the size that it once booted with. Sparse. */
const FILES_DISK_BYTES = 2 ** 30;

/**
 * Writes the disk that brings one run's files into the guest (its third): an archive that the guest unpacks over its
 * root, at boot (`guest-root/init`) or when it was restored (`guest-root/usr/local/lib/ghostbus/wake`). Without files
 * it is all zeros. It has no name: whatever ends this process, nothing of it stays.
 */
export async function makeFilesDisk(files: readonly GuestFile[]): Promise<FileHandle> {
  const archive = files.length === 0 ? Buffer.alloc(0) : overlayArchive(files);
  if (archive.length > FILES_DISK_BYTES) {
    throw new HostSetupError(
      `The files for the guest take ${archive.length} bytes; there is room for ${FILES_DISK_BYTES}.`,
      'Put what is larger into a folder and use --share.',
    );
  }
  const path = join(tmpdir(), `ghostbus-files-${randomUUID()}`);
  const file = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
    await file.truncate(FILES_DISK_BYTES);
    await file.write(archive, 0, archive.length, 0);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}
