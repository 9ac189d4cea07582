/** The files of this repository that are written by hand. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

const OTHERS = new Set(['node_modules', 'dist', 'coverage', '.git']);

/** Paths from the root on of all files whose name fits. */
export function filesOf(name: RegExp, folder = ''): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return OTHERS.has(entry.name) ? [] : filesOf(name, path);
    return name.test(entry.name) ? [path] : [];
  });
}
