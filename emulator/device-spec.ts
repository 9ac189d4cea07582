import { existsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { z } from 'zod';
import type { Plugin } from './plugin/index.js';

/** A device as the user asked for it: `gpu,vram=16G`. */
export interface DeviceSpec {
  /** Name of a plugin in `plugins/`, of an npm package, or a path. */
  readonly plugin: string;
  readonly options: Readonly<Record<string, string>>;
}

/** The folder with the plugins that ship with the program. */
const BUILT_IN = fileURLToPath(new URL('../plugins/', import.meta.url));

/** Names of the plugins that ship with the program. */
export const BUILT_IN_PLUGINS = ['gpu', 'habana', 'rdma', 'example'] as const;

/** Reads `name[,key=value…]`. Throws an Error that names the part that cannot be read. */
export function parseDeviceSpec(text: string): DeviceSpec {
  const [plugin = '', ...pairs] = text.split(',');
  if (plugin === '') throw new Error(`device ${JSON.stringify(text)} has no plugin name; write name[,key=value…]`);
  const options: Record<string, string> = {};
  for (const pair of pairs) {
    const equals = pair.indexOf('=');
    if (equals < 1) throw new Error(`device ${JSON.stringify(text)}: ${JSON.stringify(pair)} is not key=value`);
    const key = pair.slice(0, equals);
    if (key in options) throw new Error(`device ${JSON.stringify(text)} gives ${key} twice`);
    options[key] = pair.slice(equals + 1);
  }
  return { plugin, options };
}

/**
 * Finds a plugin: a path (starts with `.` or `/`), one of ours, or an npm package seen from the current folder
 * (`ghostbus-plugin-NAME` or `NAME`). Throws an Error that lists where it looked.
 */
export async function loadPlugin(name: string): Promise<Plugin> {
  const file = findPlugin(name);
  const module: Record<string, unknown> = await import(pathToFileURL(file).href).catch((cause: Error) => {
    throw new Error(`plugin ${name} at ${file} could not be loaded: ${cause.message}`, { cause });
  });
  const plugin = module.default ?? module.plugin;
  if (!isPlugin(plugin)) {
    throw new Error(
      `${file} has no plugin: its default export must be what definePlugin({ name, options, create }) returns`,
    );
  }
  return plugin;
}

function findPlugin(name: string): string {
  if (name.startsWith('.') || name.startsWith('/')) return entryOf(resolve(name));
  const builtIn = join(BUILT_IN, name, 'index.js');
  if ((BUILT_IN_PLUGINS as readonly string[]).includes(name)) return builtIn;
  const packages = [`ghostbus-plugin-${name}`, name];
  const from = createRequire(join(process.cwd(), 'package.json'));
  for (const candidate of packages) {
    try {
      return from.resolve(candidate);
    } catch {
      // Not installed under this name; the next one may be.
    }
  }
  throw new Error(
    `no plugin ${JSON.stringify(name)}: ours are ${BUILT_IN_PLUGINS.join(', ')}; no npm package ${packages.join(' or ')} is ` +
      `installed in ${process.cwd()}; a path must start with ./ or /`,
  );
}

function entryOf(path: string): string {
  if (!existsSync(path)) throw new Error(`plugin path ${path} does not exist`);
  if (!statSync(path).isDirectory()) return path;
  const from = createRequire(join(path, 'package.json'));
  for (const candidate of ['./', './index.js', './index.mjs', './index.ts']) {
    try {
      return from.resolve(candidate);
    } catch {
      // Another candidate may exist.
    }
  }
  throw new Error(`plugin folder ${basename(path)} has neither a package.json with "main" nor an index.js`);
}

function isPlugin(value: unknown): value is Plugin {
  const plugin = value as Partial<Plugin> | undefined;
  return typeof plugin?.name === 'string' && typeof plugin.create === 'function' && plugin.options !== undefined;
}

/** Checks a device's options against the plugin's schema; unknown keys are errors. Throws an Error that names the key. */
export function parseOptions(plugin: Plugin, options: Readonly<Record<string, unknown>>): unknown {
  const schema: z.ZodType = plugin.options instanceof z.ZodObject ? plugin.options.strict() : plugin.options;
  const result = schema.safeParse(options);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${issue.path.join('.') || plugin.name}: ${issue.message}`);
  throw new Error(`device ${plugin.name}: ${problems.join('; ')} (ghostbus devices ${plugin.name} lists the options)`);
}
