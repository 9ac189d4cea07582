/** What the GPU costs under the stock driver. */
import { type BenchMachine, type Benchmark, median } from 'ghostbus';

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

/** Copies, mapped VRAM, submissions and the probe. */
async function measure({ accel, output, print, printRatios }: BenchMachine): Promise<void> {
  await output('modprobe amdgpu');
  const measured: Measured = JSON.parse(await output('amdgpu-bench'));
  const probes = (await output(timeProbes)).trim().split('\n').map(Number);
  const { barRead, barWrite, ramRead, roundTripUs, informationUs } = measured;
  print(`A GPU under the stock driver, guest under ${accel}`);
  print('  copies by SDMA, against memcpy in the guest (1.00 = as fast, more is faster)');
  printRatios(
    [
      ['VRAM to VRAM', measured.vramToVram],
      ['VRAM to system memory', measured.vramToSystem],
      ['system memory to VRAM', measured.systemToVram],
    ],
    measured.memcpyMiBps,
  );
  print("  the CPU's memcpy from and to mapped VRAM, against its own memory (1.00 = as fast)");
  print(`    read: ${(barRead / ramRead).toFixed(2)}, write: ${(barWrite / ramRead).toFixed(2)}`);
  const ratio = (roundTripUs / informationUs).toFixed(1);
  const times = `(${roundTripUs} µs against ${informationUs} µs)`;
  print(`  submission until its fence, against an ioctl that does not reach the card: ${ratio}   ${times}`);
  print(`  probe: ${median(probes).toFixed(2)} s, median of ${PROBES}`);
}

/**
 * Seconds of each probe, one a line, by the kernel's own clock. Bound anew, not loaded anew: loading is mostly
 * ftrace's.
 */
const timeProbes = `cd /sys/bus/pci/drivers/amdgpu
    card=$(ls -d 0000:* | head -n 1)
    for round in $(seq ${PROBES}); do
      echo $card > unbind
      read start rest < /proc/uptime
      echo $card > bind
      read end rest < /proc/uptime
      echo "$end $start" | awk '{ print $1 - $2 }'
    done`;

export const bench: readonly Benchmark[] = [{ name: 'a GPU', measure }];
