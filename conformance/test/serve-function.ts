/**
 * A vfio-user server in a process of its own: `node serve-function.js SOCKET`. Each line on stdin is a variant as JSON:
 * it serves a fresh function of that kind from then on, and says `ready`. The end of stdin ends it.
 */
import { createInterface } from 'node:readline';
import { Bus } from '../../emulator/bus.js';
import { FunctionServer } from '../../emulator/vfio-user/server.js';
import { FixtureDevice } from '../fixture-device.js';
import type { Variant } from '../shape.js';

const [socketPath] = process.argv.slice(2);
const log = { debug() {}, info() {}, warn() {}, error() {} };
const bus = new Bus({ log });
let stop = (): void => {};

function start(variant: Variant): void {
  stop();
  const device = new FixtureDevice(variant);
  const serveBus = (timeoutMs: number) => bus.serveReady(timeoutMs);
  const server = new FunctionServer(device, socketPath!, { log, watcher: bus, serveBus });
  stop = () => {
    server.close();
    device.close();
  };
  process.stdout.write('ready\n');
}

const lines = createInterface(process.stdin);
lines.on('line', (line) => start(JSON.parse(line) as Variant));
lines.on('close', () => {
  stop();
  process.exit();
});

/** A moment at a time, so that stdin is heard. */
function serve(): void {
  bus.serveReady(1);
  setImmediate(serve);
}
serve();
