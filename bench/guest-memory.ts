import { output, withBenchGuest } from './guest.js';

/** Where the example function's memory BAR is. */
const MEMORY_BAR = 2;

/** Boots a guest with the example function and prints its mapped BAR's speed against RAM. */
export async function measureGuestMemory(): Promise<void> {
  await withBenchGuest('example', async ({ guest, vendor, device }) => {
    const measured = await output(
      guest,
      `for d in /sys/bus/pci/devices/*; do
        [ "$(cat $d/vendor) $(cat $d/device)" = "${vendor} ${device}" ] || continue
        echo 1 > $d/enable; exec bar-bandwidth $d/resource${MEMORY_BAR}
      done; echo "no function ${vendor}:${device}" >&2; exit 1`,
    );
    console.log(`A mapped BAR against RAM inside a guest under ${guest.accel} (1.00 = as fast, more is faster)`);
    for (const line of measured.trim().split('\n')) {
      const [what, bar, ram] = line.split(' ');
      console.log(`  ${what}: ${(Number(ram) / Number(bar)).toFixed(2)}`);
    }
  });
}
