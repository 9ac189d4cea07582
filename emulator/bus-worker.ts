/** The bus thread: creates the functions, serves them, and answers the main thread. */
import { readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { Log } from './ambient/log.js';
import { Bus } from './bus.js';
import type {
  BusCommand,
  BusReport,
  BusRequest,
  BusThreadData,
  DeviceInstance,
  ServedFunction,
} from './bus-messages.js';
import { loadPlugin, parseOptions } from './device-spec.js';
import { drainEventfd } from './host/index.js';
import { Machine } from './machine.js';

const port = parentPort as MessagePort;
const data = workerData as BusThreadData;

function report(message: BusReport): void {
  port.postMessage(message);
}

function logFor(source: string): Log {
  const write =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (message: string, fields: object = {}) => {
      report({ kind: 'log', level, source, message, fields: JSON.parse(JSON.stringify(fields, plainValue)) });
    };
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}

/** 64-bit values have no JSON; people read them in hexadecimal. */
function plainValue(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
}

function plain(value: unknown): unknown {
  return value === undefined ? null : JSON.parse(JSON.stringify(value, plainValue));
}

async function addDevice(machine: Machine, device: DeviceInstance): Promise<ServedFunction[]> {
  const plugin = await loadPlugin(device.plugin);
  const created = plugin.create(parseOptions(plugin, device.options), {
    name: device.name,
    instance: device.instance,
    log: logFor(device.name),
    createMemory: (name, sizeBytes) => machine.createMemory(`${device.name}.${name}`, sizeBytes),
    machineService: (key, create) => machine.service(key, create),
  });
  const models = Array.isArray(created) ? created : [created];
  return models.map((model) => {
    const name = `${device.name}${model.nameSuffix ?? ''}`;
    const socketPath = join(data.socketDirectory, `${name}.sock`);
    machine.add(name, model, socketPath, logFor(name));
    return { name, plugin: plugin.name, identity: model.identity, socketPath };
  });
}

function execute(machine: Machine, bus: Bus, command: BusCommand): unknown {
  switch (command.kind) {
    case 'control':
      return machine.control(command.function, command.command, command.args);
    case 'state':
      return machine.state(command.function);
    case 'reset-counters':
      machine.resetCounters();
      return null;
    case 'read-bar':
      return machine.readBar(command.function, command.bar, command.offset, command.lengthBytes);
    case 'stop':
      bus.stop();
      return null;
  }
}

function answer(machine: Machine, bus: Bus, request: BusRequest): void {
  try {
    const result = execute(machine, bus, request.command);
    report({ kind: 'reply', id: request.id, result: result instanceof Uint8Array ? result : plain(result) });
  } catch (error) {
    report({ kind: 'refused', id: request.id, message: (error as Error).message });
  }
}

async function main(): Promise<void> {
  const bus = new Bus({ log: logFor('bus'), spinUs: data.spinUs, busySinceMs: data.busySinceMs });
  const machine = new Machine(bus, data.peerRouting);
  const functions: ServedFunction[] = [];
  for (const device of data.devices) functions.push(...(await addDevice(machine, device)));
  bus.watch(data.wakeFd, () => {
    drainEventfd(data.wakeFd);
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
      answer(machine, bus, next.message as BusRequest);
    }
  });
  report({ kind: 'ready', functions, threadId: Number(basename(readlinkSync('/proc/thread-self'))) });
  bus.run();
  bus.unwatch(data.wakeFd);
  machine.close();
  bus.close();
  port.close();
}

main().catch((error: Error) => {
  report({ kind: 'failed', message: error.message });
  port.close();
});
