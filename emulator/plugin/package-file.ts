import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The nearest folder with a package.json above a module: also where its sources are compiled to a folder of their own.
 */
function packageFolder(moduleUrl: string): string {
  const module = fileURLToPath(moduleUrl);
  let folder = dirname(module);
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`there is no package.json above ${module}`);
    folder = parent;
  }
  return folder;
}

/**
 * The absolute path of a file or folder that belongs to the package of a module, wherever that is installed:
 * `packageFile(import.meta.url, 'guest/programs')`. @throws Error when the package does not have it
 */
export function packageFile(moduleUrl: string, path: string): string {
  const folder = packageFolder(moduleUrl);
  const found = join(folder, path);
  if (!existsSync(found)) {
    throw new Error(`the package in ${folder} has no ${path}; if it was published without, add it to "files" there`);
  }
  return found;
}
