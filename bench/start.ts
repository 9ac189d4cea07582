/** How long it takes until a command has run in a guest: in one that is restored, and in one that boots. */
import { resolveDevices } from '../emulator/device-spec.js';
import { withCleanup } from '../session/cleanup.js';
import { makeAhead, type SessionTools, startSession } from '../session/session.js';
import { ORDINARY_GUEST } from '../session/settings.js';
import { sessionTools } from '../session/tools.js';
import { quiet } from './quiet-log.js';

/** A machine with drivers that take their time. */
export const STARTED_DEVICES: readonly string[] = ['gpu', 'gpu', 'habana', 'rdma'];
/** One after the other, so that what else the host does concerns both alike. */
const ROUNDS = 2;

const SETTINGS = { ...ORDINARY_GUEST, kernel: 'latest' };

export interface StartTimes {
  readonly accel: string;
  readonly coldMs: readonly number[];
  /** With the machine that is restored in the cache already. */
  readonly warmMs: readonly number[];
}

export async function measureStarts(
  tools: SessionTools = sessionTools,
  progress: (text: string) => void = console.error,
): Promise<StartTimes> {
  const devices = await resolveDevices(STARTED_DEVICES);
  await withCleanup((cleanup) => makeAhead(devices, SETTINGS, { tools, progress, cleanup }));
  const times = { coldMs: [] as number[], warmMs: [] as number[] };
  let accel = '';
  const measure = (cold: boolean) =>
    withCleanup(async (cleanup) => {
      const start = performance.now();
      const settings = { ...SETTINGS, cold };
      const { guest } = await startSession({ devices }, settings, { tools, log: quiet, progress, cleanup });
      await guest.run(['true']);
      times[cold ? 'coldMs' : 'warmMs'].push(performance.now() - start);
      accel = guest.accel;
    });
  for (let round = 0; round < ROUNDS; round++) {
    await measure(true);
    await measure(false);
  }
  return { accel, ...times };
}

/** The means' ratio, and what was measured. */
export function startLine({ accel, coldMs, warmMs }: StartTimes): string {
  const ratio = mean(warmMs) / mean(coldMs);
  return `  ${accel}: ${ratio.toFixed(2)}   (${inSeconds(warmMs)} against ${inSeconds(coldMs)})`;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function inSeconds(timesMs: readonly number[]): string {
  return timesMs.map((ms) => `${(ms / 1000).toFixed(1)} s`).join(', ');
}
