/** Where plugins are found, and how they are loaded. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { moduleResolve } from 'import-meta-resolve';
import { errorText } from './error-text.js';
import { pluginProblem } from './plugin/brand.js';
import type { DefinedPlugin } from './plugin/index.js';
import { pluginShapeProblem } from './plugin/shape.js';

/** The folder with the plugins that ship with the program. */
const BUILT_IN = fileURLToPath(new URL('../plugins/', import.meta.url));

/** Names of the plugins that ship with the program. */
export const BUILT_IN_PLUGINS: readonly string[] = readdirSync(BUILT_IN)
  .filter((name) => existsSync(join(BUILT_IN, name, 'index.js')))
  .sort();

/** As Node.js has them for `import`. */
const IMPORT_CONDITIONS = new Set(['node', 'import']);

export interface LoadedPlugin {
  readonly plugin: DefinedPlugin;
  /** The module whose default export it is; another thread imports it from there. */
  readonly moduleUrl: string;
}

/**
 * Finds and loads a plugin: a path (starts with `.` or `/`), one of ours, or an npm package that `import` would find
 * from `folder` (`ghostbus-plugin-NAME` or `NAME`). Rejects with a message that says where it looked, or what is wrong
 * with what is there.
 */
export async function loadPlugin(name: string, folder: string = process.cwd()): Promise<LoadedPlugin> {
  const moduleUrl = findPlugin(name, folder);
  return { plugin: await importPlugin(moduleUrl), moduleUrl };
}

/** Imports a plugin from where {@link loadPlugin} found it. */
export async function importPlugin(moduleUrl: string): Promise<DefinedPlugin> {
  const file = moduleUrl.startsWith('file:') ? fileURLToPath(moduleUrl) : moduleUrl;
  const module: Record<string, unknown> = await import(moduleUrl).catch((cause: unknown) => {
    const isSource = errorCode(cause) === 'ERR_UNKNOWN_FILE_EXTENSION';
    const hint = isSource ? '; build it first, and name the .js file' : '';
    throw new Error(`plugin ${file} could not be loaded: ${errorText(cause)}${hint}`, { cause });
  });
  const plugin = module.default ?? module.plugin;
  const problem = pluginProblem(plugin) ?? pluginShapeProblem(plugin as DefinedPlugin);
  if (problem !== undefined) throw new Error(`plugin ${file} ${problem}`);
  return plugin as DefinedPlugin;
}

function errorCode(thrown: unknown): unknown {
  return thrown instanceof Error ? (thrown as NodeJS.ErrnoException).code : undefined;
}

function findPlugin(name: string, folder: string): string {
  if (name.startsWith('.') || name.startsWith('/')) return entryOf(resolve(folder, name));
  if (BUILT_IN_PLUGINS.includes(name)) return pathToFileURL(join(BUILT_IN, name, 'index.js')).href;
  const packages = [`ghostbus-plugin-${name}`, name];
  for (const candidate of packages) {
    const found = findPackage(candidate, folder);
    if (found !== undefined) return found;
  }
  throw new Error(
    `no plugin ${JSON.stringify(name)}: ours are ${BUILT_IN_PLUGINS.join(', ')}; no npm package ` +
      `${packages.join(' or ')} is installed in ${folder}; a path must start with ./ or /`,
  );
}

/**
 * The module of a package, by the rules of `import`; undefined when it is not installed. @throws Error when it is, and
 * has none
 */
function findPackage(specifier: string, folder: string): string | undefined {
  try {
    const { protocol, href } = moduleResolve(specifier, pathToFileURL(join(folder, 'plugin.js')), IMPORT_CONDITIONS);
    // Else it is a module of Node.js itself.
    return protocol === 'file:' ? href : undefined;
  } catch (cause) {
    const installed = installedFolder(specifier, folder);
    if (installed === undefined) return undefined;
    const why = missingModule(cause, installed) ?? errorText(cause);
    throw new Error(`plugin package ${specifier} is installed in ${installed}, but: ${why}`, { cause });
  }
}

/** Where `node_modules` of the folder or one above has the package. */
function installedFolder(specifier: string, folder: string): string | undefined {
  const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
  for (let above = resolve(folder); ; above = dirname(above)) {
    const candidate = join(above, 'node_modules', name);
    if (existsSync(candidate)) return candidate;
    if (above === dirname(above)) return undefined;
  }
}

/** The module of a path: a file, or a folder with a package.json or an index.js. */
function entryOf(path: string): string {
  if (!existsSync(path)) throw new Error(`plugin path ${path} does not exist`);
  if (!statSync(path).isDirectory()) return pathToFileURL(path).href;
  const manifestPath = join(path, 'package.json');
  const manifest = existsSync(manifestPath) ? readManifest(manifestPath) : {};
  if (manifest.exports !== undefined) return ownExport(path, manifest.name);
  const candidates = [...(manifest.main === undefined ? [] : [manifest.main]), 'index.js', 'index.mjs'];
  const found = candidates
    .map((name) => join(path, name))
    .find((file) => statSync(file, { throwIfNoEntry: false })?.isFile());
  if (found !== undefined) return pathToFileURL(found).href;
  if (manifest.main !== undefined) throw new Error(`plugin folder ${path}: ${notThere(manifest.main)}`);
  throw new Error(
    `plugin folder ${path} has neither a package.json with "exports" or "main" nor an index.js ` +
      `(looked for ${candidates.join(', ')})`,
  );
}

interface Manifest {
  readonly name?: string;
  readonly main?: string;
  readonly exports?: unknown;
}

function readManifest(path: string): Manifest {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Manifest;
  } catch (cause) {
    throw new Error(`plugin's ${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** What a package's "exports" say of itself: a module inside of it may import it by its name. */
function ownExport(folder: string, name: string | undefined): string {
  if (name === undefined)
    throw new Error(`plugin folder ${folder}: its package.json has "exports", which need a "name"`);
  try {
    return moduleResolve(name, pathToFileURL(join(folder, 'plugin.js')), IMPORT_CONDITIONS).href;
  } catch (cause) {
    throw new Error(`plugin folder ${folder}: ${missingModule(cause, folder) ?? errorText(cause)}`, { cause });
  }
}

/** What is wrong when "exports" of the package in `folder` lead to no file; undefined: it is something else. */
function missingModule(cause: unknown, folder: string): string | undefined {
  const { url } = cause as { readonly url?: string };
  if (errorCode(cause) !== 'ERR_MODULE_NOT_FOUND' || url === undefined) return undefined;
  return notThere(relative(folder, fileURLToPath(url)));
}

function notThere(target: string): string {
  return `its package.json names ${target}, which does not exist; build it first`;
}
