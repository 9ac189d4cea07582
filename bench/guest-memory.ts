import type { BenchMachine, Benchmark } from '../emulator/plugin/index.js';
import { MEMORY_BAR } from './device.js';

/** Its mapped BAR's speed against RAM. */
async function measure({ accel, address, output, print }: BenchMachine): Promise<void> {
  const device = `/sys/bus/pci/devices/${address('bench0')}`;
  const measured = await output(`echo 1 > ${device}/enable; exec bar-bandwidth ${device}/resource${MEMORY_BAR}`);
  print(`A mapped BAR against RAM inside a guest under ${accel} (1.00 = as fast, more is faster)`);
  for (const line of measured.trim().split('\n')) {
    const [what, bar, ram] = line.split(' ');
    print(`  ${what}: ${(Number(ram) / Number(bar)).toFixed(2)}`);
  }
}

export const mappedBar: Benchmark = { name: 'a mapped BAR', measure };
