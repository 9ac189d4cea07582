/** What a guest under TCG has to know of the host's processor: how fast its time stamp counter runs. */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { timeStampCounterKHz } from '../emulator/host/index.js';
import { cacheFolder } from '../qemu/index.js';

/** What is remembered holds as long as a measurement is no further away from it than this. */
const AGREEMENT = 0.005;
const KHZ_PER_MHZ = 1000;

/** Where a frequency comes from; the host's own, or a test's. */
export interface ClockSources {
  /** For example the processor's name: what is remembered of one says nothing of another. */
  model(): Promise<string>;
  measure(): Promise<number | undefined>;
  readonly file: string;
}

let measured: Promise<number | undefined> | undefined;

/**
 * Frequency of the host's time stamp counter in kHz, in whole MHz, measured once in a process; undefined where it
 * cannot be measured. The same number every time on one host: it is remembered in the cache, since it becomes part of a
 * guest's kernel command line.
 */
export function hostCounterKHz(): Promise<number | undefined> {
  measured ??= rememberedCounterKHz({
    model: hostModel,
    measure: timeStampCounterKHz,
    file: join(cacheFolder(), 'counter-frequencies.json'),
  });
  return measured;
}

/** As {@link hostCounterKHz}, from other sources. */
export async function rememberedCounterKHz({ model, measure, file }: ClockSources): Promise<number | undefined> {
  const kHz = await measure();
  if (kHz === undefined) return undefined;
  const name = await model();
  const known = await readFrequencies(file);
  const remembered = known[name];
  if (remembered !== undefined && Math.abs(kHz / remembered - 1) < AGREEMENT) return remembered;
  const rounded = Math.round(kHz / KHZ_PER_MHZ) * KHZ_PER_MHZ;
  await writeFrequencies(file, { ...known, [name]: rounded });
  return rounded;
}

async function hostModel(): Promise<string> {
  const text = await readFile('/proc/cpuinfo', 'utf8');
  return /^model name\s*:\s*(.*)$/m.exec(text)?.[1] ?? '';
}

/** What is not there, or not as it was written, counts as nothing remembered. */
async function readFrequencies(file: string): Promise<Record<string, number>> {
  try {
    const known: unknown = JSON.parse(await readFile(file, 'utf8'));
    const entries = Object.entries(known ?? {}).filter(([, kHz]) => Number.isSafeInteger(kHz) && kHz > 0);
    return Object.fromEntries(entries);
  } catch {
    return {};
  }
}

/** Without the file, as on a full disk, the next process measures anew: no reason to fail. */
async function writeFrequencies(file: string, frequencies: Record<string, number>): Promise<void> {
  const unfinished = `${file}.${process.pid}`;
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    await writeFile(unfinished, JSON.stringify(frequencies));
    await rename(unfinished, file);
  } catch {}
}
