/**
 * How the loader tells a plugin from other objects, and which plugin API it was written against: also with two copies
 * of ghostbus.
 */

/** Raised when a plugin for the version before would no longer work. */
export const API_VERSION = 1;

const BRAND = Symbol.for('ghostbus.plugin');

/** What {@link definePlugin} adds to a plugin. */
export interface PluginStamp {
  readonly apiVersion: number;
}

export function stamped<Plugin extends object>(plugin: Plugin): Plugin & PluginStamp {
  const stamp = { apiVersion: API_VERSION, [BRAND]: true };
  return { ...plugin, ...stamp };
}

/** Why this emulator takes no such plugin, as the end of a sentence that names where it lies; undefined: it does. */
export function pluginProblem(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) {
    return 'has no plugin: its default export must be what definePlugin({ name, options, create }) returns';
  }
  const { apiVersion } = value as Partial<PluginStamp>;
  if (!Object.hasOwn(value, BRAND) || typeof apiVersion !== 'number') {
    const remedy = 'export default definePlugin({ name, options, create })';
    return `exports an object that definePlugin of ghostbus did not make: ${remedy}`;
  }
  if (apiVersion === API_VERSION) return undefined;
  const remedy =
    apiVersion > API_VERSION ? 'update this ghostbus' : 'update the plugin, or the ghostbus that it is written against';
  return `was made for version ${apiVersion} of the plugin API, and this ghostbus has version ${API_VERSION}: ${remedy}`;
}
