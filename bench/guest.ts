import { startEmulator } from '../emulator/emulator.js';
import { bootGuest, buildGuestPrograms, ensureImage, findQemu, type Guest } from '../qemu/index.js';
import { quiet } from './quiet-log.js';

export interface BenchGuest {
  readonly guest: Guest;
  /** `0x1234`, as sysfs shows them. */
  readonly vendor: string;
  readonly device: string;
}

/** Boots the latest kernel with one function of a plugin, and ends the guest afterwards. */
export async function withBenchGuest(
  plugin: string,
  use: (machine: BenchGuest) => Promise<void>,
  { moduleFolders = [] as readonly string[], packages = [] as readonly string[] } = {},
): Promise<void> {
  const onProgress = (text: string) => console.error(text);
  const qemu = await findQemu({ onProgress });
  const image = await ensureImage({ kernel: 'latest', packages: [...packages], onProgress });
  const programs = await buildGuestPrograms({ image, moduleFolders, onProgress });
  const emulator = await startEmulator({ devices: [{ plugin, options: {} }], log: quiet });
  try {
    const functions = emulator.functions.map(({ name, socketPath }) => ({ id: name, socketPath }));
    const extraFiles = [...emulator.guestFiles, ...programs];
    const guest = await bootGuest({ qemu, image, functions, extraFiles, onProgress });
    try {
      const { vendorId, deviceId } = emulator.functions[0]!.identity;
      await use({ guest, vendor: hexadecimal(vendorId), device: hexadecimal(deviceId) });
    } finally {
      await guest.shutdown();
    }
  } finally {
    await emulator.stop();
  }
}

/** Standard output of a shell script in the guest. @throws Error with what it printed, unless it exits with 0 */
export async function output(guest: Guest, script: string): Promise<string> {
  const { exitCode, stdout, stderr } = await guest.capture(['sh', '-euc', script]);
  if (exitCode !== 0) throw new Error(`this failed in the guest:\n${script}\n${stdout}${stderr}`);
  return stdout.toString();
}

function hexadecimal(id: number): string {
  return `0x${id.toString(16).padStart(4, '0')}`;
}

/** Prints the speed of each kind of copy against memcpy in the same guest. */
export function printCopies(speeds: readonly (readonly [name: string, mibps: number])[], memcpyMiBps: number): void {
  for (const [name, mibps] of speeds) console.log(`    ${name}: ${(mibps / memcpyMiBps).toFixed(2)}`);
}
