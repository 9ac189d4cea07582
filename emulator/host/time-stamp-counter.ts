/** How fast the processor's time stamp counter runs, measured against the monotonic clock. */
import { writeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { closeFd } from './fd.js';
import { functionAt, mmap, munmap } from './libc.js';
import { createMemfd } from './memfd.js';

/** include/uapi/asm-generic/mman-common.h, include/uapi/linux/mman.h */
const PROT_READ = 0x1;
const PROT_EXEC = 0x4;
const MAP_PRIVATE = 0x02;

const PAGE_BYTES = 4096;
const NS_PER_MS = 1e6;

/** rdtsc; shl rdx, 32; or rax, rdx; ret */
const READ_COUNTER = Uint8Array.of(0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0xc3);

/** Two measurements further apart than this are not believed: the host was too busy, or the counter is not steady. */
const AGREEMENT = 0.0005;
/** Of so many readings the one counts that took the shortest time: this process did not lose its processor in it. */
const READINGS = 50;
const INTERVAL_MS = 40;
const ATTEMPTS = 5;

/** One value of the counter, and the time when it was read, in nanoseconds of the monotonic clock. */
export interface CounterReading {
  readonly ticks: bigint;
  readonly timeNs: bigint;
}

/** Ticks in a millisecond, which is kHz, between two readings. */
export function frequencyKHz(first: CounterReading, second: CounterReading): number {
  return (Number(second.ticks - first.ticks) / Number(second.timeNs - first.timeNs)) * NS_PER_MS;
}

/**
 * Frequency of this processor's time stamp counter in kHz, to 0.05 %. Takes about 80 ms, during which others run.
 * Undefined where there is none (not x86-64), where no memory may be executed, and when measurements do not agree.
 */
export async function timeStampCounterKHz(): Promise<number | undefined> {
  if (process.arch !== 'x64') return undefined;
  const counter = mapCounter();
  if (counter === undefined) return undefined;
  try {
    return await agreedFrequency(() => tightReading(counter.read));
  } finally {
    counter.unmap();
  }
}

/** The mean of two measurements in a row that agree; of some more when they do not. */
export async function agreedFrequency(read: () => CounterReading): Promise<number | undefined> {
  let before = read();
  let known: number | undefined;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    await delay(INTERVAL_MS);
    const now = read();
    const measured = frequencyKHz(before, now);
    if (known !== undefined && Math.abs(measured / known - 1) < AGREEMENT) return (measured + known) / 2;
    known = measured;
    before = now;
  }
  return undefined;
}

function tightReading(readTicks: () => bigint): CounterReading {
  let best: CounterReading | undefined;
  let bestNs: bigint | undefined;
  for (let reading = 0; reading < READINGS; reading++) {
    const before = process.hrtime.bigint();
    const ticks = readTicks();
    const tookNs = process.hrtime.bigint() - before;
    if (bestNs !== undefined && tookNs >= bestNs) continue;
    bestNs = tookNs;
    best = { ticks, timeNs: before + tookNs / 2n };
  }
  return best!;
}

/** A function of machine code in a page of its own; undefined where the host's policy refuses that. */
function mapCounter(): { readonly read: () => bigint; unmap(): void } | undefined {
  const fd = createMemfd('ghostbus-counter', PAGE_BYTES);
  try {
    writeSync(fd, READ_COUNTER);
    const address = mmap(0, PAGE_BYTES, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    if (address === -1) return undefined;
    return { read: functionAt(address), unmap: () => void munmap(address, PAGE_BYTES) };
  } finally {
    closeFd(fd);
  }
}
