import { output, printCopies, withBenchGuest } from './guest.js';

const PROBES = 5;

/** What amdgpu-bench prints. */
interface Measured {
  readonly memcpyMiBps: number;
  readonly vramToVram: number;
  readonly vramToSystem: number;
  readonly systemToVram: number;
  readonly barRead: number;
  readonly barWrite: number;
  readonly ramRead: number;
  readonly roundTripUs: number;
  readonly informationUs: number;
}

/** Boots a guest with a GPU under its stock driver and prints copies, mapped VRAM, submissions and the probe. */
export async function measureGpu(): Promise<void> {
  await withBenchGuest('gpu', async ({ guest }) => {
    await output(guest, 'modprobe amdgpu');
    const measured: Measured = JSON.parse(await output(guest, 'amdgpu-bench'));
    const probes = (await output(guest, timeProbes())).trim().split('\n').map(Number);
    console.log(`A GPU under the stock driver, guest under ${guest.accel}`);
    console.log('  copies by SDMA, against memcpy in the guest (1.00 = as fast, more is faster)');
    printCopies(
      [
        ['VRAM to VRAM', measured.vramToVram],
        ['VRAM to system memory', measured.vramToSystem],
        ['system memory to VRAM', measured.systemToVram],
      ],
      measured.memcpyMiBps,
    );
    const { barRead, barWrite, ramRead, roundTripUs, informationUs } = measured;
    console.log("  the CPU's memcpy from and to mapped VRAM, against its own memory (1.00 = as fast)");
    console.log(`    read: ${(barRead / ramRead).toFixed(2)}, write: ${(barWrite / ramRead).toFixed(2)}`);
    console.log(
      `  submission until its fence, against an ioctl that does not reach the card: ${(roundTripUs / informationUs).toFixed(1)}   (${roundTripUs} µs against ${informationUs} µs)`,
    );
    const median = probes.sort((a, b) => a - b)[PROBES >> 1]!;
    console.log(`  probe: ${median.toFixed(2)} s, median of ${PROBES}`);
  });
}

/** Seconds of each probe, one a line, by the kernel's own clock. Bound anew, not loaded anew: loading is mostly ftrace's. */
function timeProbes(): string {
  return `cd /sys/bus/pci/drivers/amdgpu
    card=$(ls -d 0000:* | head -n 1)
    for round in $(seq ${PROBES}); do
      echo $card > unbind
      read start rest < /proc/uptime
      echo $card > bind
      read end rest < /proc/uptime
      echo "$end $start" | awk '{ print $1 - $2 }'
    done`;
}
