import { readdirSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';
import {
  askControl,
  CONTROL_SOCKET_NAME,
  type ControlRequest,
  connectError,
  findControlSockets,
} from '../../../session/control-socket.js';
import { UsageError } from '../../../session/exit-status.js';
import { socketRoot } from '../../../session/socket-folder.js';
import { BUILT_IN_COMMANDS } from '../../plugin/command.js';

function options(yargs: Argv) {
  return yargs
    .usage('$0 ctl FUNCTION COMMAND [key=value…]\n\nTalks to a running `ghostbus run`, `serve` or `shell` of yours.')
    .positional('function', { type: 'string', describe: 'For example gpu0, or all' })
    .positional('command', {
      type: 'string',
      describe:
        'state, inspect, reset-counters (of all functions), or a command of the device: see `ghostbus devices NAME`',
    })
    .positional('args', { type: 'string', array: true, default: [] as string[], describe: 'Arguments of that command' })
    .options({
      'socket-dir': {
        type: 'string',
        requiresArg: true,
        description: 'Folder with the sockets; needed when several are running',
      },
    } as const)
    .example('$0 ctl all state', 'counters and addresses of every function')
    .example('$0 ctl gpu0 inspect', 'what the device itself says of its engines')
    .example('$0 ctl rdma0 link state=down', 'a command of the device, with an argument');
}

type Arguments = ArgumentsCamelCase<ReturnType<typeof options> extends Argv<infer T> ? T : never>;

/** @throws UsageError */
export function controlRequest(functionName: string, name: string, args: readonly string[]): ControlRequest {
  if (BUILT_IN_COMMANDS.includes(name) && args.length > 0) {
    throw new UsageError(`${name} takes no arguments, and was given ${args.join(' ')}`);
  }
  if (name === 'reset-counters') return { command: 'reset-counters' };
  if (name === 'state') {
    return functionName === 'all' ? { command: 'state' } : { command: 'state', function: functionName };
  }
  if (functionName === 'all')
    throw new UsageError(`${name} needs one function, for example: ghostbus ctl gpu0 ${name}`);
  if (name === 'inspect') return { command: 'inspect', function: functionName };
  return { command: 'control', function: functionName, name, args: parsePairs(name, args) };
}

function parsePairs(name: string, texts: readonly string[]): Record<string, unknown> {
  const pairs = new Map<string, unknown>();
  for (const [key, value] of texts.map(parsePair)) {
    if (key === '__proto__') throw new UsageError(`${name}: ${key} cannot be the name of an argument`);
    if (pairs.has(key)) throw new UsageError(`${name}: ${key} is given twice`);
    pairs.set(key, value);
  }
  return Object.fromEntries(pairs);
}

/** `key=value`; a value that reads as a JSON number, boolean, list or object is one. */
function parsePair(text: string): [string, unknown] {
  const equals = text.indexOf('=');
  if (equals < 1) throw new UsageError(`${JSON.stringify(text)} is not key=value`);
  const value = text.slice(equals + 1);
  try {
    return [text.slice(0, equals), JSON.parse(value)];
  } catch {
    return [text.slice(0, equals), value];
  }
}

/** @throws UsageError when there is none, or more than one. */
export async function findTheSocket(socketDirectory: string | undefined, root = socketRoot()): Promise<string> {
  if (socketDirectory !== undefined) return socketIn(socketDirectory);
  const { live } = await findControlSockets(root);
  if (live.length === 0) {
    throw new UsageError(
      `nothing is running: ${root} has no folder ghostbus-* with a control socket (--socket-dir names another)`,
    );
  }
  if (live.length > 1) {
    const lines = live.map((path) => `  ${dirname(path)} (${functionsBeside(path).join(', ')})`).sort();
    throw new UsageError(`several are running; choose one with --socket-dir:\n${lines.join('\n')}`);
  }
  return live[0]!;
}

async function socketIn(folder: string): Promise<string> {
  const path = join(resolve(folder), CONTROL_SOCKET_NAME);
  const error = await connectError(path);
  if (error === undefined) return path;
  throw new UsageError(
    `--socket-dir ${folder}: nothing serves there (${path}: ${error}); start ghostbus serve --socket-dir ${folder} ` +
      'first, or leave the option out to find what runs',
  );
}

/** Names of the functions that are served beside a control socket, each on a socket of its own. */
function functionsBeside(controlSocket: string): string[] {
  return readdirSync(dirname(controlSocket))
    .filter((name) => name.endsWith('.sock') && name !== CONTROL_SOCKET_NAME)
    .map((name) => basename(name, '.sock'))
    .sort();
}

/** Yargs itself would only count the arguments. */
function given(name: string, value: string | undefined): string {
  if (value === undefined)
    throw new UsageError(`${name} is missing; write: ghostbus ctl FUNCTION COMMAND [key=value…]`);
  return value;
}

async function handler(args: Arguments): Promise<void> {
  const asked = controlRequest(given('FUNCTION', args.function), given('COMMAND', args.command), args.args);
  const result = await askControl(await findTheSocket(args.socketDir), asked);
  if (result !== null) console.log(JSON.stringify(result, undefined, 2));
}

export const ctlCommand: CommandModule<object, Arguments> = {
  command: 'ctl [function] [command] [args..]',
  describe: 'Look into a running emulator, or send a command to one of its devices',
  builder: options as never,
  handler,
};
