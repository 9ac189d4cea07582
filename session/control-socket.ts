/** The socket that `ghostbus ctl` talks to: one JSON request a line, one JSON reply a line. */
import { chmodSync, readdirSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import type { Emulator } from '../emulator/emulator.js';

export const CONTROL_SOCKET_NAME = 'control.sock';
/** A request is a few words; whoever sends more without an end of line is no client of ours. */
const LONGEST_REQUEST_BYTES = 1024 * 1024;

const request = z.discriminatedUnion('command', [
  z.strictObject({ command: z.literal('state'), function: z.string().optional() }),
  z.strictObject({ command: z.literal('inspect'), function: z.string() }),
  z.strictObject({ command: z.literal('reset-counters') }),
  z.strictObject({
    command: z.literal('control'),
    function: z.string(),
    name: z.string(),
    args: z.record(z.string(), z.unknown()).default({}),
  }),
]);

export type ControlRequest = z.input<typeof request>;
type ControlReply = { readonly result: unknown } | { readonly error: string };

/** What the control socket needs of an emulator. */
export type Controllable = Pick<Emulator, 'state' | 'stateOf' | 'control' | 'resetCounters' | 'socketDirectory'>;

export interface ControlServer {
  readonly path: string;
  close(): Promise<void>;
}

/** Carries out one request. Rejects with a message for people. */
async function answerControl(emulator: Controllable, text: string): Promise<unknown> {
  const parsed = request.safeParse(JSON.parse(text));
  if (!parsed.success) throw new Error(`not a request: ${z.prettifyError(parsed.error)}`);
  const asked = parsed.data;
  switch (asked.command) {
    case 'state':
      return asked.function === undefined ? emulator.state() : emulator.stateOf(asked.function);
    case 'inspect':
      return (await emulator.stateOf(asked.function)).model;
    case 'reset-counters':
      return emulator.resetCounters().then(() => null);
    case 'control':
      return emulator.control(asked.function, asked.name, asked.args);
  }
}

/** Listens beside the functions' sockets; only this user may connect. */
export async function serveControl(emulator: Controllable): Promise<ControlServer> {
  const path = join(emulator.socketDirectory, CONTROL_SOCKET_NAME);
  const clients = new Set<Socket>();
  const server = createServer((socket) => {
    clients.add(socket);
    socket.on('close', () => clients.delete(socket));
    socket.on('error', () => socket.destroy());
    answerLines(emulator, socket);
  });
  await listen(server, path);
  chmodSync(path, 0o600);
  return {
    path,
    close: () =>
      new Promise((resolve) => {
        for (const client of clients) client.destroy();
        server.close(() => {
          rmSync(path, { force: true });
          resolve();
        });
      }),
  };
}

function listen(server: Server, path: string): Promise<AddressInfo | string | null> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new Error(`cannot listen on the control socket ${path}: ${error.message}`, { cause: error })),
    );
    server.listen(path, () => resolve(server.address()));
  });
}

function answerLines(emulator: Controllable, socket: Socket): void {
  let pending = '';
  let queue = Promise.resolve();
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => {
    const lines = (pending + chunk).split('\n');
    pending = lines.pop()!;
    for (const line of lines) {
      if (line.trim() !== '') queue = queue.then(() => answerLine(emulator, line, socket));
    }
    if (pending.length > LONGEST_REQUEST_BYTES) socket.destroy();
  });
}

async function answerLine(emulator: Controllable, line: string, socket: Socket): Promise<void> {
  let reply: ControlReply;
  try {
    reply = { result: (await answerControl(emulator, line)) ?? null };
  } catch (error) {
    reply = { error: (error as Error).message };
  }
  if (!socket.destroyed) socket.write(`${JSON.stringify(reply)}\n`);
}

/** Sends one request and resolves with its result. Rejects with the other side's message when it refuses. */
export async function askControl(path: string, asked: ControlRequest): Promise<unknown> {
  const socket = connect(path);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    socket.write(`${JSON.stringify(asked)}\n`);
    for await (const line of createInterface({ input: socket })) {
      const reply = JSON.parse(line) as ControlReply;
      if ('error' in reply) throw new Error(reply.error);
      return reply.result;
    }
    throw new Error(`${path} closed the connection without an answer`);
  } finally {
    socket.destroy();
  }
}

/** Control sockets of this user's emulators: those that answer, and folders that a killed process left behind. */
export async function findControlSockets(root: string): Promise<{ live: string[]; abandonedFolders: string[] }> {
  const live: string[] = [];
  const abandonedFolders: string[] = [];
  const folders = readdirSync(root).filter((name) => name.startsWith('ghostbus-'));
  for (const folder of folders.map((name) => join(root, name))) {
    const path = join(folder, CONTROL_SOCKET_NAME);
    const error = await connectError(path);
    if (error === undefined) live.push(path);
    else if (error === 'ECONNREFUSED') abandonedFolders.push(folder);
  }
  return { live, abandonedFolders };
}

/** Undefined when somebody listens there, else errno's name. */
export function connectError(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}
