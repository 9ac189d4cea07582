/**
 * Whether what a plugin hands over has the parts that its types promise: JavaScript may hand over anything. Problems
 * are told as the end of a sentence that names the device; undefined: there is none.
 */
import type { Command } from './command.js';
import type { FunctionModel, PcieFunction } from './function.js';
import type { Plugin } from './plugin.js';

type Unchecked<Type> = { readonly [Key in keyof Type]?: unknown };

export function pluginShapeProblem(plugin: Unchecked<Plugin>): string | undefined {
  const { name, description, options, create, commands } = plugin;
  if (typeof name !== 'string') return `has no name: definePlugin({ name: 'my-device', … })`;
  const of = `(${name})`;
  if (typeof description !== 'string') return `${of} has no description: say in one line what it is`;
  if (!isSchema(options))
    return `${of} has ${lacking(options, 'options')}: give a schema of zod 4, z.object({}) for none`;
  if (typeof create !== 'function')
    return `${of} has ${lacking(create, 'create')}: give a function that makes the cards`;
  if (commands === undefined) return undefined;
  if (!isObject(commands)) return `${of} has commands that are ${kindOf(commands)}: give an object of them by name`;
  for (const [command, declared] of Object.entries(commands)) {
    const problem = commandProblem(declared);
    if (problem !== undefined) return `${of} has a command ${command} ${problem}: make it by command({ … })`;
  }
  return undefined;
}

function commandProblem(command: unknown): string | undefined {
  if (!isObject(command)) return `that is ${kindOf(command)}`;
  const { description, arguments: schema, run } = command as Unchecked<Command>;
  if (typeof description !== 'string') return 'without a description';
  if (!isSchema(schema) || !('shape' in schema)) return 'whose arguments are no object schema of zod 4';
  return typeof run === 'function' ? undefined : 'without a run function';
}

const IDENTITY_KEYS = ['vendorId', 'deviceId', 'subsystemVendorId', 'subsystemId', 'classCode', 'revisionId'] as const;

/** Of what `create` returned, or a list of which it returned. */
export function cardProblem(card: unknown): string | undefined {
  if (!isObject(card) || isPromise(card)) return `${kindOf(card)}; return a function, or a list of functions`;
  const { identity, bars, capabilities, powerOn } = card as Unchecked<PcieFunction>;
  if (!isObject(identity)) return `a function without identity: give { ${IDENTITY_KEYS.join(', ')} }`;
  const wrong = IDENTITY_KEYS.find((key) => !Number.isInteger((identity as Record<string, unknown>)[key]));
  if (wrong !== undefined) return `a function whose identity has no ${wrong}: give a whole number`;
  if (!Array.isArray(bars)) return 'a function without bars: give a list of them, [] for none';
  if (!Array.isArray(capabilities)) return 'a function without capabilities: give a list of them, [] for none';
  if (typeof powerOn !== 'function') return 'a function without powerOn: give powerOn(port), which makes the model';
  return undefined;
}

/** Of what `powerOn` returned. */
export function modelProblem(model: unknown): string | undefined {
  if (!isObject(model) || isPromise(model)) return `${kindOf(model)}; return the model`;
  const { bars, configRegisters = [] } = model as Unchecked<FunctionModel>;
  if (!isObject(bars)) return 'a model without bars: give the parts of each BAR by its index, {} for none';
  const wrong = Object.entries(bars).find(([, parts]) => !Array.isArray(parts));
  if (wrong !== undefined) return `a model whose bars[${wrong[0]}] is ${kindOf(wrong[1])}: give a list of parts`;
  return Array.isArray(configRegisters) ? undefined : 'a model whose configRegisters are no list';
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function isPromise(value: object): boolean {
  return 'then' in value && typeof value.then === 'function';
}

/** By what every schema of zod 4 has: a plugin may have a copy of zod of its own. */
function isSchema(value: unknown): value is object {
  return isObject(value) && '_zod' in value && 'safeParse' in value;
}

function lacking(value: unknown, part: string): string {
  return value === undefined ? `no ${part}` : `${part} of the wrong kind (${kindOf(value)})`;
}

function kindOf(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (typeof value !== 'object') return `a ${typeof value}`;
  return isPromise(value) ? 'a promise' : 'an object';
}
