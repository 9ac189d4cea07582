/** Commands of a device, for tests and for people (`ghostbus ctl`): faults to inject, state to show. */
import { z } from 'zod';

/** One command. Make it by {@link command}, which knows the arguments' types from their schema. */
export interface Command<Model = unknown> {
  /** One line for `ghostbus devices NAME`. */
  readonly description: string;
  /** A zod object schema; every key described, optional or with a default where it can be. */
  readonly arguments: z.ZodObject;
  /**
   * Runs on the bus thread, on the function's model of the time. The result is plain JSON (64-bit values become
   * hexadecimal text). Throws with a message for people when it cannot be done.
   */
  run(model: Model, args: Readonly<Record<string, unknown>>): unknown;
}

/** What `ghostbus ctl` has for every function; no command of a device can have one of these names. */
export const BUILT_IN_COMMANDS: readonly string[] = ['state', 'inspect', 'reset-counters'];

/** Commands by name. */
export type Commands<Model = unknown> = Readonly<Record<string, Command<Model>>>;

/**
 * Declares a command: `command({ description, arguments: z.strictObject({ … }), run: (model: MyModel, { … }) => … })`.
 */
export function command<Model, Arguments extends z.ZodObject = z.ZodObject<Record<never, never>>>(declaration: {
  readonly description: string;
  readonly arguments?: Arguments;
  run(model: Model, args: z.output<Arguments>): unknown;
}): Command<Model> {
  return { ...declaration, arguments: declaration.arguments ?? z.strictObject({}) } as Command<Model>;
}

/**
 * Checks the arguments and runs a command of `model`. A value may be text for what it means (`0x10`, `true`), as a
 * command line has it.
 * @throws Error that names the commands there are, or the argument that is wrong
 */
export function runCommand(
  commands: Commands,
  model: unknown,
  name: string,
  args: Readonly<Record<string, unknown>> = {},
): unknown {
  const found = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (found === undefined) {
    const known = Object.keys(commands).join(', ') || 'none';
    const always = `ghostbus ctl has for every function: ${BUILT_IN_COMMANDS.join(', ')}`;
    throw new Error(`unknown command ${JSON.stringify(name)}; there are: ${known}; ${always}`);
  }
  return found.run(model, parseArguments(name, found.arguments, args));
}

function parseArguments(
  name: string,
  schema: z.ZodObject,
  args: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const strict = schema.strict();
  const first = strict.safeParse(args);
  if (first.success) return first.data;
  const refused = new Set(first.error.issues.map(({ path }) => path[0]));
  const entries = Object.entries(args).map(([key, value]) => [key, refused.has(key) ? otherReading(value) : value]);
  const second = strict.safeParse(Object.fromEntries(entries));
  if (second.success) return second.data;
  const problems = first.error.issues.map(
    ({ path, message }) => `${path.length > 0 ? `${path.join('.')}: ` : ''}${message}`,
  );
  const known = Object.keys(schema.shape).join(', ') || 'none';
  throw new Error(`${name}: ${problems.join('; ')} (arguments of ${name}: ${known})`);
}

/** What the value may mean instead: text for a number, a boolean or a list, and these for text. */
function otherReading(value: unknown): unknown {
  if (typeof value !== 'string') return JSON.stringify(value);
  if (/^0x[0-9a-f]+$/i.test(value)) return Number(value);
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}
