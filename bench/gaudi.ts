import { fileURLToPath } from 'node:url';
import { output, printCopies, withBenchGuest } from './guest.js';

const WORKAROUND = fileURLToPath(new URL('../../plugins/habana/guest-workaround', import.meta.url));
const PROBES = 5;

/** What hl-bench prints. */
interface Measured {
  readonly memcpyMiBps: number;
  readonly hostToHbm: number;
  readonly hbmToHbm: number;
  readonly hbmToHost: number;
  readonly roundTripUs: number;
  readonly informationUs: number;
}

/** Boots a guest with a Gaudi under its stock driver and prints copies, submissions and the probe. */
export async function measureGaudi(): Promise<void> {
  await withBenchGuest(
    'habana',
    async ({ guest }) => {
      await output(guest, 'modprobe habanalabs');
      const measured: Measured = JSON.parse(await output(guest, 'hl-bench'));
      const probes = (await output(guest, timeProbes())).trim().split('\n').map(Number);
      console.log(`A Gaudi under the stock driver, guest under ${guest.accel}`);
      console.log('  copies, against memcpy in the guest (1.00 = as fast, more is faster)');
      printCopies(
        [
          ['host to HBM', measured.hostToHbm],
          ['HBM to HBM', measured.hbmToHbm],
          ['HBM to host', measured.hbmToHost],
        ],
        measured.memcpyMiBps,
      );
      const { roundTripUs, informationUs } = measured;
      console.log(
        `  submission and wait, against an ioctl that does not reach the card: ${(roundTripUs / informationUs).toFixed(1)}   (${roundTripUs} µs against ${informationUs} µs)`,
      );
      const median = probes.sort((a, b) => a - b)[PROBES >> 1]!;
      console.log(`  modprobe until the card is operational: ${median.toFixed(2)} s, median of ${PROBES}`);
    },
    { moduleFolders: [WORKAROUND] },
  );
}

/** Seconds of each probe, one a line. The kernel's own clock: the guest has no other that a shell can read. */
function timeProbes(): string {
  return `card=/sys/class/accel/accel0/device/status
    for round in $(seq ${PROBES}); do
      rmmod habanalabs
      read start rest < /proc/uptime
      modprobe habanalabs
      until grep -qx Operational $card 2>/dev/null; do :; done
      read end rest < /proc/uptime
      echo "$end $start" | awk '{ print $1 - $2 }'
    done`;
}
