/**
 * Prints ratios that say what the emulator costs on this machine: a trapped register read against the least that any server
 * can do, and DMA against memcpy. With `--guest`, also inside guests: a mapped BAR against RAM, a Gaudi
 * under its stock driver, RDMA against rdma_rxe. Nothing here passes or fails.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startEmulator } from '../emulator/emulator.js';
import { measureDma } from './dma.js';
import { measureGaudi } from './gaudi.js';
import { measureGpu } from './gpu.js';
import { measureGuestMemory } from './guest-memory.js';
import { measureGuestRdma } from './guest-rdma.js';
import { quiet } from './quiet-log.js';

const run = promisify(execFile);
const SOURCES = fileURLToPath(new URL('../../bench/', import.meta.url));
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

/** Mean nanoseconds of one read of a trapped register of the example function. */
async function registerRoundTrip(program: string, spinUs: number): Promise<number> {
  const emulator = await startEmulator({ devices: [{ plugin: 'example', options: {} }], log: quiet, spinUs });
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

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'ghostbus-bench-'));
  try {
    const roundTrip = await compile('round-trip', folder);
    const echo = await echoRoundTrip(roundTrip, folder);
    console.log('Trapped register read, round trip, against a C server that only answers (1.00 = as fast)');
    for (const spinUs of [0, 50]) {
      const ours = await registerRoundTrip(roundTrip, spinUs);
      console.log(
        `  spin ${String(spinUs).padStart(2)} µs: ${(ours / echo).toFixed(2)}   (${us(ours)} against ${us(echo)})`,
      );
    }
    const memcpy = await memcpyTimes(await compile('memcpy', folder));
    const dma = measureDma(SIZES);
    console.log("DMA of a function's own memory, against memcpy between two memory files (1.00 = as fast)");
    console.log('        size   to guest RAM    to a peer');
    for (const sizeBytes of SIZES) {
      const reference = memcpy.get(sizeBytes)!;
      const { guestNs, peerNs } = dma.get(sizeBytes)!;
      console.log(
        `  ${String(sizeBytes).padStart(10)}   ${(guestNs / reference).toFixed(2).padStart(12)} ${(peerNs / reference).toFixed(2).padStart(12)}`,
      );
    }
    if (process.argv.includes('--guest')) await measureGuests();
    else console.log('A mapped BAR, a GPU, a Gaudi and RDMA inside guests: npm run bench -- --guest');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureGuests(): Promise<void> {
  await measureGuestMemory();
  await measureGpu();
  await measureGaudi();
  await measureGuestRdma();
}

function us(ns: number): string {
  return `${(ns / 1000).toFixed(1)} µs`;
}

await main();
