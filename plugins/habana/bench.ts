/** What the Gaudi costs under the stock driver. */
import { type BenchMachine, type Benchmark, median } from 'ghostbus';

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

/** Copies, submissions and the probe. */
async function measure({ accel, output, print, printRatios }: BenchMachine): Promise<void> {
  await output('modprobe habanalabs');
  const measured: Measured = JSON.parse(await output('hl-bench'));
  const probes = (await output(timeProbes)).trim().split('\n').map(Number);
  print(`A Gaudi under the stock driver, guest under ${accel}`);
  print('  copies, against memcpy in the guest (1.00 = as fast, more is faster)');
  printRatios(
    [
      ['host to HBM', measured.hostToHbm],
      ['HBM to HBM', measured.hbmToHbm],
      ['HBM to host', measured.hbmToHost],
    ],
    measured.memcpyMiBps,
  );
  const { roundTripUs, informationUs } = measured;
  const ratio = (roundTripUs / informationUs).toFixed(1);
  const times = `(${roundTripUs} µs against ${informationUs} µs)`;
  print(`  submission and wait, against an ioctl that does not reach the card: ${ratio}   ${times}`);
  print(`  modprobe until the card is operational: ${median(probes).toFixed(2)} s, median of ${PROBES}`);
}

/** Seconds of each probe, one a line. The kernel's own clock: the guest has no other that a shell can read. */
const timeProbes = `card=/sys/class/accel/accel0/device/status
    for round in $(seq ${PROBES}); do
      rmmod habanalabs
      read start rest < /proc/uptime
      modprobe habanalabs
      until grep -qx Operational $card 2>/dev/null; do :; done
      read end rest < /proc/uptime
      echo "$end $start" | awk '{ print $1 - $2 }'
    done`;

export const bench: readonly Benchmark[] = [{ name: 'a Gaudi', measure }];
