/**
 * Prints ratios that say what the emulator costs on this machine: a trapped register read against the least that any
 * server can do, a decoded one against a look-up, and DMA against memcpy. With `--guest`, also a guest's restoring
 * against its boot, and inside guests: a mapped BAR against RAM, and what the devices measure of themselves under their
 * drivers, those of `--device SPEC` too.
 * Nothing here passes or fails.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { resolveOptions } from '../emulator/device-spec.js';
import { SPIN_US, startEmulator } from '../emulator/emulator.js';
import { type LoadedPlugin, loadPlugin } from '../emulator/find-plugin.js';
import { measureDma } from './dma.js';
import { measureInGuest } from './guest.js';
import { mappedBar } from './guest-memory.js';
import { callersFolder, measuredDevices } from './measured.js';
import { quiet } from './quiet-log.js';
import { measureRegisters } from './registers.js';
import { measureStarts, STARTED_DEVICES, startLine } from './start.js';

const run = promisify(execFile);
const SOURCES = fileURLToPath(new URL('../../bench/', import.meta.url));
/** A device of the benchmark's own, in a module, as any other. */
const DEVICE = fileURLToPath(new URL('./device.js', import.meta.url));
const READS = 20_000;
const SIZES = [64, 4096, 65_536, 1_048_576, 16_777_216];

async function compile(name: string, folder: string): Promise<string> {
  const program = join(folder, name);
  await run('cc', ['-O2', '-Wall', '-o', program, join(SOURCES, `${name}.c`)]).catch((error: Error) => {
    throw new Error(`the benchmark needs a C compiler called cc (apt-get install gcc libc6-dev): ${error.message}`);
  });
  return program;
}

/** Mean nanoseconds of one read against the C server that only answers. */
async function echoRoundTrip(program: string, folder: string): Promise<number> {
  const path = join(folder, 'echo.sock');
  const server = spawn(program, ['server', path], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    for await (const line of createInterface(server.stdout)) if (line === 'listening') break;
    return Number((await run(program, ['client', path, String(READS)])).stdout);
  } finally {
    server.kill();
  }
}

/** Mean nanoseconds of one read of a trapped register. */
async function registerRoundTrip(program: string, device: LoadedPlugin, spinUs: number): Promise<number> {
  const emulator = await startEmulator({ devices: [resolveOptions(device, {})], log: quiet, spinUs });
  try {
    const path = emulator.functions[0]!.socketPath;
    return Number((await run(program, ['client', path, String(READS), 'vfio-user'])).stdout);
  } finally {
    await emulator.stop();
  }
}

async function memcpyTimes(program: string): Promise<Map<number, number>> {
  const { stdout } = await run(program, SIZES.map(String));
  return new Map(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.split(' ').map(Number) as [number, number]),
  );
}

/** What needs no guest. */
async function measureHost(device: LoadedPlugin): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'ghostbus-bench-'));
  try {
    const roundTrip = await compile('round-trip', folder);
    const echo = await echoRoundTrip(roundTrip, folder);
    console.log('Trapped register read, round trip, against a C server that only answers (1.00 = as fast)');
    for (const spinUs of [0, SPIN_US]) {
      const ours = await registerRoundTrip(roundTrip, device, spinUs);
      console.log(
        `  spin ${String(spinUs).padStart(2)} µs: ${(ours / echo).toFixed(2)}   (${us(ours)} against ${us(echo)})`,
      );
    }
    const { decodedNs, plainNs } = measureRegisters();
    console.log('Decoded register read, without a guest, against a look-up in a map and a call (1.00 = as fast)');
    console.log(
      `  ${(decodedNs / plainNs).toFixed(2)}   (${decodedNs.toFixed(0)} ns against ${plainNs.toFixed(0)} ns)`,
    );
    const memcpy = await memcpyTimes(await compile('memcpy', folder));
    const dma = measureDma(SIZES);
    console.log("DMA of a function's own memory, against memcpy between two memory files (1.00 = as fast)");
    console.log('        size   to guest RAM    to a peer');
    for (const sizeBytes of SIZES) {
      const reference = memcpy.get(sizeBytes)!;
      const { guestNs, peerNs } = dma.get(sizeBytes)!;
      const [guest, peer] = [guestNs, peerNs].map((ns) => (ns / reference).toFixed(2).padStart(12));
      console.log(`  ${String(sizeBytes).padStart(10)}   ${guest} ${peer}`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function printStarts(): Promise<void> {
  const times = await measureStarts();
  console.log(
    `From nothing to the end of a command in a guest with ${STARTED_DEVICES.join(', ')}: restored, the saved machine ` +
      'being there already, against booted (1.00 = as long)',
  );
  console.log(startLine(times));
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      guest: { type: 'boolean', default: false },
      device: { type: 'string', multiple: true, default: [] },
    },
  });
  const ownDevice = await loadPlugin(DEVICE);
  const benchmarks = [
    { loaded: ownDevice, asked: { plugin: DEVICE, options: {} }, benchmark: mappedBar },
    ...(await measuredDevices(values.device, callersFolder())),
  ];
  await measureHost(ownDevice);
  if (values.guest) {
    await printStarts();
    for (const measured of benchmarks) await measureInGuest(measured);
    return;
  }
  const names = new Intl.ListFormat('en-GB').format(benchmarks.map(({ benchmark }) => benchmark.name));
  console.log(`${names.charAt(0).toUpperCase()}${names.slice(1)} inside guests: npm run bench -- --guest`);
}

function us(ns: number): string {
  return `${(ns / 1000).toFixed(1)} µs`;
}

await main();
