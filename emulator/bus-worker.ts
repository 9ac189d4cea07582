/** The bus thread: creates the functions, serves them, and answers the main thread. */
import { readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { Log } from './ambient/log.js';
import { Bus, slowHandlersSummary } from './bus.js';
import type {
  BusCommand,
  BusReport,
  BusRequest,
  BusThreadData,
  DeviceInstance,
  ServedFunction,
} from './bus-messages.js';
import { createFunctions } from './create-functions.js';
import { errorText } from './error-text.js';
import { importPlugin } from './find-plugin.js';
import { drainEventfd } from './host/index.js';
import { Machine } from './machine.js';
import type { BarShape } from './pci/bar.js';
import { ServedMachine } from './served-machine.js';

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

async function addDevice(served: ServedMachine, device: DeviceInstance): Promise<ServedFunction[]> {
  const plugin = await importPlugin(device.moduleUrl);
  const context = served.machine.context(device.name, device.instance, logFor(device.name));
  return createFunctions(plugin, device.options, context).map((card) => {
    const name = `${device.name}${card.nameSuffix ?? ''}`;
    const socketPath = join(data.socketDirectory, `${name}.sock`);
    served.add(name, card, { socketPath, log: logFor(name), commands: plugin.commands });
    return { name, plugin: plugin.name, identity: card.identity, socketPath, barBytes: barBytes(card.bars) };
  });
}

function barBytes(bars: readonly BarShape[]): ServedFunction['barBytes'] {
  const memory = bars.filter(({ kind }) => kind !== 'io');
  const sum = (chosen: readonly BarShape[]) => chosen.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  return {
    prefetchable: sum(memory.filter(({ prefetchable }) => prefetchable)),
    other: sum(memory.filter(({ prefetchable }) => !prefetchable)),
  };
}

function execute(served: ServedMachine, bus: Bus, command: BusCommand): unknown {
  const { machine } = served;
  switch (command.kind) {
    case 'control':
      return machine.find(command.function).control(command.command, command.args);
    case 'state':
      return served.state(command.function);
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

function answer(served: ServedMachine, bus: Bus, request: BusRequest): void {
  try {
    const result = execute(served, bus, request.command);
    report({ kind: 'reply', id: request.id, result: result instanceof Uint8Array ? result : plain(result) });
  } catch (error) {
    report({ kind: 'refused', id: request.id, message: (error as Error).message });
  }
}

async function main(): Promise<void> {
  const log = logFor('bus');
  const bus = new Bus({ log, spinUs: data.spinUs, busySinceMs: data.busySinceMs });
  const served = new ServedMachine(new Machine(bus, data.peerRouting));
  const functions: ServedFunction[] = [];
  for (const device of data.devices) functions.push(...(await addDevice(served, device)));
  bus.watch(data.wakeFd, () => {
    drainEventfd(data.wakeFd);
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
      answer(served, bus, next.message as BusRequest);
    }
  });
  report({ kind: 'ready', functions, threadId: Number(basename(readlinkSync('/proc/thread-self'))) });
  bus.run();
  const slow = slowHandlersSummary(bus.statistics());
  if (slow !== undefined) log.warn(slow);
  bus.unwatch(data.wakeFd);
  served.close();
  bus.close();
  port.close();
}

main().catch((error: unknown) => {
  report({ kind: 'failed', message: errorText(error) });
  port.close();
});
