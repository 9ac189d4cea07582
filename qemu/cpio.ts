import type { GuestFile } from '../emulator/plugin/guest.js';

// Field order and widths: Linux Documentation/driver-api/early-userspace/buffer-format.rst ("newc").
const magic = '070701';
const directoryMode = 0o040755;
const regularType = 0o100000;
const trailerName = 'TRAILER!!!';

/**
 * A "newc" cpio archive as the kernel takes it for an initial RAM disk; parent folders are added. Archives may be
 * concatenated: the length is a multiple of 4.
 * @throws Error when a path is not absolute or has empty, `.` or `..` parts.
 */
export function writeCpio(files: readonly GuestFile[]): Buffer {
  const parts: Buffer[] = [];
  const folders = new Set<string>();
  let inode = 1;
  const add = (name: string, mode: number, contents: Uint8Array) => {
    parts.push(...entry(name, mode, contents, inode));
    inode += 1;
  };
  for (const file of files) {
    const segments = checkedSegments(file.path);
    for (let depth = 1; depth < segments.length; depth++) {
      const folder = segments.slice(0, depth).join('/');
      if (folders.has(folder)) continue;
      folders.add(folder);
      add(folder, directoryMode, Buffer.alloc(0));
    }
    add(segments.join('/'), regularType | (file.mode ?? 0o644), file.contents);
  }
  parts.push(...entry(trailerName, 0, Buffer.alloc(0), 0));
  return Buffer.concat(parts);
}

function checkedSegments(path: string): string[] {
  const segments = path.split('/').slice(1);
  if (!path.startsWith('/') || segments.some((segment) => segment === '' || segment === '.' || segment === '..')) {
    throw new Error(`a file for the guest needs a plain absolute path, and "${path}" is not one`);
  }
  return segments;
}

function entry(name: string, mode: number, contents: Uint8Array, inode: number): Buffer[] {
  const nameBytes = Buffer.from(`${name}\0`);
  const fields = [inode, mode, 0, 0, 1, 0, contents.length, 0, 0, 0, 0, nameBytes.length, 0];
  const header = Buffer.from(magic + fields.map((field) => field.toString(16).padStart(8, '0')).join(''));
  return [
    header,
    nameBytes,
    padding(header.length + nameBytes.length),
    Buffer.from(contents),
    padding(contents.length),
  ];
}

function padding(length: number): Buffer {
  return Buffer.alloc(-length & 3);
}
