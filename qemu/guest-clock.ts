/** Whether a guest's clock runs as the host's does. */
import { setTimeout as delay } from 'node:timers/promises';

/** What the guest's clock said at some moment between two of the host's monotonic clock, all in milliseconds. */
export interface ClockReading {
  readonly guestMs: number;
  readonly askedMs: number;
  readonly answeredMs: number;
}

/** What a kernel that knows its clock may be off by, and far less than what one that does not is. */
const SLOWEST_RATIO = 0.8;
const FASTEST_RATIO = 1.25;

/** How long to go on reading while answers that were slow leave room for doubt. */
const DOUBT_LIMIT_MS = 10_000;
const DOUBT_STEP_MS = 250;

/** The guest's speed over the host's lies between `least` and `most`, which are as far apart as answers were slow. */
export interface ClockComparison {
  readonly least: number;
  readonly most: number;
  readonly verdict: 'right' | 'wrong' | 'unsure';
}

/** Compares how far both clocks went between two readings. */
export function compareClocks(first: ClockReading, second: ClockReading): ClockComparison {
  const guestMs = second.guestMs - first.guestMs;
  const least = guestMs / (second.answeredMs - first.askedMs);
  const most = guestMs / Math.max(0, second.askedMs - first.answeredMs);
  if (least >= SLOWEST_RATIO && most <= FASTEST_RATIO) return { least, most, verdict: 'right' };
  if (most < SLOWEST_RATIO || least > FASTEST_RATIO) return { least, most, verdict: 'wrong' };
  return { least, most, verdict: 'unsure' };
}

type Read = () => Promise<ClockReading>;

/**
 * What is wrong with the guest's clock since its first reading, or undefined. What is wrong has to be so a second time:
 * somebody in the guest may have set the clock meanwhile, as the kernel does when a driver of a real-time clock comes.
 */
export async function clockFault(first: ClockReading, read: Read, stepMs = DOUBT_STEP_MS): Promise<string | undefined> {
  const before = await comparison(first, read, stepMs);
  if (before.verdict !== 'wrong') return undefined;
  const again = await comparison(before.last, read, stepMs);
  return again.verdict === 'wrong' ? complaint(again) : undefined;
}

/** Reads again until it is sure, at most for ten seconds; a clock still in doubt then counts as right. */
async function comparison(first: ClockReading, read: Read, stepMs: number) {
  for (;;) {
    const last = await read();
    const compared = compareClocks(first, last);
    const isOver = last.answeredMs - first.askedMs >= DOUBT_LIMIT_MS;
    if (compared.verdict !== 'unsure' || isOver) return { ...compared, last };
    await delay(stepMs);
  }
}

function complaint({ least, most }: ClockComparison): string {
  const [speed, timeOuts] =
    least > 1
      ? [`at least ${least.toFixed(1)} times too fast`, 'short']
      : [`at ${most.toFixed(2)} of its speed at most`, 'long'];
  return (
    `The guest's clock runs ${speed}: its kernel has the frequency of the processor's counter wrong, ` +
    `and all time-outs in it are as much too ${timeOuts}.`
  );
}
