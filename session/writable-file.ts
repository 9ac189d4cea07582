import { closeSync, openSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { UsageError } from './exit-status.js';

/**
 * The absolute path, once it is sure that a file there can be written: whoever waits for minutes is told before. It is
 * made when there is none, and keeps what is in it. @throws UsageError
 */
export function writableFile(option: string, file: string): string {
  const path = resolve(file);
  try {
    // Whoever reads a FIFO would take our closing it for the end.
    if (!statSync(path, { throwIfNoEntry: false })?.isFIFO()) closeSync(openSync(path, 'a'));
  } catch (error) {
    throw new UsageError(`${option} ${file} cannot be written: ${(error as NodeJS.ErrnoException).code}`);
  }
  return path;
}
