/** Runs what devices measure of themselves, each in a guest of its own on the latest kernel. */
import { resolveOptions } from '../emulator/device-spec.js';
import type { BenchMachine } from '../emulator/plugin/index.js';
import type { Guest } from '../qemu/index.js';
import { withCleanup } from '../session/cleanup.js';
import { guestAddresses } from '../session/guest-addresses.js';
import { startSession } from '../session/session.js';
import { ORDINARY_GUEST } from '../session/settings.js';
import { sessionTools } from '../session/tools.js';
import type { Measured } from './measured.js';
import { quiet } from './quiet-log.js';

/** Boots a guest with the device, measures, and ends it. */
export async function measureInGuest({ loaded, asked, benchmark }: Measured): Promise<void> {
  const { options, packages = [] } = benchmark;
  const devices = [resolveOptions(loaded, { ...options, ...asked.options }, asked.plugin)];
  await withCleanup(async (cleanup) => {
    const { guest, emulator } = await startSession(
      { devices },
      { ...ORDINARY_GUEST, kernel: 'latest', packages },
      { tools: sessionTools, log: quiet, progress: (text) => console.error(text), cleanup },
    );
    await benchmark.measure(machineIn(guest, await guestAddresses(guest, emulator)));
  });
}

function machineIn(guest: Guest, addresses: ReadonlyMap<string, string>): BenchMachine {
  return {
    accel: guest.accel,
    address: (functionName) => {
      const address = addresses.get(functionName);
      if (address === undefined) throw new Error(`the benchmark's guest has no function ${functionName}`);
      return address;
    },
    output: (script) => output(guest, script),
    print: (line) => console.log(line),
    printRatios: (speeds, reference) => {
      for (const [name, speed] of speeds) console.log(`    ${name}: ${(speed / reference).toFixed(2)}`);
    },
  };
}

async function output(guest: Guest, script: string): Promise<string> {
  const { exitCode, stdout, stderr } = await guest.capture(['sh', '-euc', script]);
  if (exitCode !== 0) throw new Error(`this failed in the guest:\n${script}\n${stdout}${stderr}`);
  return stdout.toString();
}
