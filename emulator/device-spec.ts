import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { type LoadedPlugin, loadPlugin } from './find-plugin.js';
import type { Plugin } from './plugin/index.js';

/** A device as the user asked for it: `gpu,vram=16G`. */
export interface DeviceSpec {
  /** Name of a plugin in `plugins/`, of an npm package, or a path. */
  readonly plugin: string;
  readonly options: Readonly<Record<string, string>>;
}

/**
 * A device whose plugin was found and loaded, and whose options the plugin's schema has parsed. Only once: see {@link
 * resolveDevices}.
 */
export interface ResolvedDevice extends LoadedPlugin {
  /** Plain data: the bus thread gets a copy. */
  readonly options: unknown;
}

/**
 * Loads the devices' plugins and checks their options. A relative path or a package is looked for from the current
 * folder. Rejects with a message that names what is wrong.
 */
export async function resolveDevices(devices: readonly (string | DeviceSpec)[]): Promise<ResolvedDevice[]> {
  return Promise.all(
    devices.map(async (device) => {
      const spec = typeof device === 'string' ? parseDeviceSpec(device) : device;
      return resolveOptions(await loadPlugin(spec.plugin), spec.options, spec.plugin);
    }),
  );
}

/**
 * @param asked the plugin as the user wrote it, for messages
 * @throws Error that names the option which is wrong, or which another thread cannot be given
 */
export function resolveOptions(
  loaded: LoadedPlugin,
  given: Readonly<Record<string, string>>,
  asked: string = loaded.plugin.name,
): ResolvedDevice {
  const options = parseOptions(loaded.plugin, given, asked);
  return { ...loaded, options: plainCopy(options, asked) };
}

/** A copy that the bus thread may have. A class instance would arrive there as a plain object, without its methods. */
function plainCopy(options: unknown, asked: string): unknown {
  let copy: unknown;
  try {
    copy = structuredClone(options);
  } catch (cause) {
    throw notPlain(asked, (cause as Error).message, { cause });
  }
  if (!isDeepStrictEqual(copy, options)) throw notPlain(asked, 'an instance of a class would lose it');
  return copy;
}

function notPlain(asked: string, why: string, cause?: ErrorOptions): Error {
  return new Error(
    `device ${asked}: its options cannot be passed to the bus thread: ${why}; let its schema give plain data, ` +
      'and make the rest of it in create()',
    cause,
  );
}

/** Reads `name[,key=value…]`. Throws an Error that names the part that cannot be read. */
export function parseDeviceSpec(text: string): DeviceSpec {
  const [plugin = '', ...pairs] = text.split(',');
  if (plugin === '') throw new Error(`device ${JSON.stringify(text)} has no plugin name; write name[,key=value…]`);
  const options = new Map<string, string>();
  for (const pair of pairs) {
    const equals = pair.indexOf('=');
    if (equals < 1) throw new Error(`device ${JSON.stringify(text)}: ${JSON.stringify(pair)} is not key=value`);
    const key = pair.slice(0, equals);
    if (options.has(key)) throw new Error(`device ${JSON.stringify(text)} gives ${key} twice`);
    options.set(key, pair.slice(equals + 1));
  }
  return { plugin, options: Object.fromEntries(options) };
}

/**
 * Checks a device's options against the plugin's schema; unknown keys are errors. Throws an Error that names the key.
 * @param asked the plugin as the user wrote it, for messages
 */
export function parseOptions(
  plugin: Plugin,
  options: Readonly<Record<string, unknown>>,
  asked: string = plugin.name,
): unknown {
  const object = plugin.options instanceof z.ZodObject ? plugin.options : undefined;
  const schema: z.ZodType = object?.strict() ?? plugin.options;
  const result = schema.safeParse(options);
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) => [
    ...(path.length > 0 ? [path.join('.')] : []),
    message,
  ]);
  const known = object === undefined ? '' : `options: ${Object.keys(object.shape).join(', ') || 'none'}; `;
  const remedy = `${known}ghostbus devices ${asked} tells more`;
  throw new Error(`device ${asked}: ${problems.map((parts) => parts.join(': ')).join('; ')} (${remedy})`);
}
