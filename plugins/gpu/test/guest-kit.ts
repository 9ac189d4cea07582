/**
 * What the guest tests of the GPU share: a driver that is ready, a dma-buf moved between two GPUs, where its bytes are.
 */
import assert from 'node:assert/strict';
import {
  assertCleanKernelLog,
  type Emulator,
  type Guest,
  guestAddresses,
  sh,
  type TestMachine,
} from 'ghostbus/session';
import { patternBytes } from './pattern.js';

const BYTES = 4 * 2 ** 20;
const SEED = 20260101;
const RELEASE = '/tmp/p2p-release';
const OUTPUT = '/tmp/gpu-program.log';

/**
 * Loads the driver where udev has not, waits for its ring tests in IBs (2 s after probe, AMDGPU_RESUME_MS), mounts
 * debugfs.
 */
export async function driverReady(guest: Guest, gpus: number): Promise<void> {
  await sh(guest, 'modprobe amdgpu; mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug');
  assert.equal(await sh(guest, 'ls /dev/dri | grep -c renderD'), `${gpus}\n`);
  const tests = await sh(guest, 'for gpu in /sys/kernel/debug/dri/0000:*; do cat $gpu/amdgpu_test_ib; done');
  assert.equal(tests, 'run ib test:\nib ring tests passed.\n'.repeat(gpus));
}

/** No taint, and no complaint in the kernel's log. */
export async function assertUntainted(guest: Guest): Promise<void> {
  assert.equal(await sh(guest, 'cat /proc/sys/kernel/tainted'), '0\n');
  await assertCleanKernelLog(guest);
}

interface Buffer {
  readonly buffer: 'first' | 'second';
  readonly va: string;
}

interface Translation {
  readonly extents: readonly { readonly target: string; readonly address: number; readonly lengthBytes: number }[];
}

/** Where a buffer lies that is in VRAM as a whole: one list of stretches for each process that has something there. */
export async function vramExtents(
  emulator: Emulator,
  name: string,
  { va, bytes }: { readonly va: string; readonly bytes: number },
): Promise<Translation[]> {
  const found = (await emulator.control(name, 'translate', { address: va, bytes })) as Translation[];
  return found.filter(({ extents }) => extents.every(({ target }) => target === 'vram'));
}

/** The buffer's bytes in the memory behind BAR0; fails where part of it is beyond BAR0. */
async function inVram(emulator: Emulator, name: string, { va }: Buffer): Promise<Uint8Array[]> {
  const whole = await vramExtents(emulator, name, { va, bytes: BYTES });
  return Promise.all(
    whole.map(async ({ extents }) => {
      const parts = extents.map(({ address, lengthBytes }) => emulator.readBar(name, 0, address, lengthBytes));
      return Buffer.concat(await Promise.all(parts));
    }),
  );
}

/**
 * Which way a dma-buf goes: over the bus to the peer, over the hive's link, or through system memory, where the driver
 * put it.
 */
type Way = 'peer' | 'hive' | 'staged';

interface Move {
  /** The exporter and the importer, by function name. */
  readonly first: string;
  readonly second: string;
  /** Further arguments of amdgpu-p2p. */
  readonly options?: string;
}

/**
 * Moves a dma-buf between two GPUs in both directions. Exactly the buffer's bytes go the expected way, and none
 * another.
 */
export async function moveDmaBuf(
  { emulator }: TestMachine,
  guest: Guest,
  way: Way,
  { first, second, options = '' }: Move = { first: 'gpu0', second: 'gpu1' },
): Promise<void> {
  const addresses = await guestAddresses(guest, emulator);
  await emulator.resetCounters();
  await sh(guest, `rm -f ${RELEASE}`);
  const gpus = `${addresses.get(first)} ${addresses.get(second)}`;
  const program = `amdgpu-p2p --bytes ${BYTES} --seed ${SEED} --hold ${RELEASE} ${options} ${gpus}`;
  const lines = await startUntil(guest, program, 'hold');
  const pattern = patternBytes(SEED, 2, BYTES);
  for (const buffer of lines.filter((line) => 'buffer' in line) as unknown as Buffer[]) {
    if (way === 'staged' && buffer.buffer === 'first') continue;
    const name = buffer.buffer === 'first' ? first : second;
    const copies = await inVram(emulator, name, buffer);
    assert.ok(
      copies.some((bytes) => Buffer.compare(bytes, pattern) === 0),
      `pattern 2 in the VRAM of ${name}`,
    );
  }
  const { peers, links } = (await emulator.stateOf(second)).counters;
  const moved = { bytesRead: BYTES, bytesWritten: BYTES };
  assert.deepEqual(links, way === 'hive' ? { [first]: moved } : {});
  assert.deepEqual(peers, way === 'peer' ? { [first]: { ...moved, registerReads: 0, registerWrites: 0 } } : {});
  const exporter = (await emulator.stateOf(first)).counters;
  assert.deepEqual([exporter.peers, exporter.links], [{}, {}]);
  await sh(guest, `touch ${RELEASE}; until grep -q result ${OUTPUT}; do sleep 0.1; done`);
}

/** Starts a program that prints a JSON object per line; waits until `word` is among its output, and returns that. */
export async function startUntil(guest: Guest, program: string, word: string): Promise<Record<string, unknown>[]> {
  await sh(guest, `${program} > ${OUTPUT} 2>&1 < /dev/null & echo $! > ${OUTPUT}.pid`);
  return outputUntil(guest, word);
}

/** Waits for further output of the program that {@link startUntil} started. */
export async function outputUntil(guest: Guest, word: string): Promise<Record<string, unknown>[]> {
  const running = `kill -0 $(cat ${OUTPUT}.pid) || grep -q ${word} ${OUTPUT} || { cat ${OUTPUT}; exit 1; }`;
  await sh(guest, `until grep -q ${word} ${OUTPUT}; do ${running}; sleep 0.1; done`);
  const text = await sh(guest, `cat ${OUTPUT}`);
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}
