import { startEmulator } from '../emulator/emulator.js';
import { bootGuest, buildGuestPrograms, ensureImage, findQemu } from '../qemu/index.js';

const quiet = { debug: () => {}, info: () => {}, warn: console.error, error: console.error };
/** Where the example function's memory BAR is. */
const MEMORY_BAR = 2;

/** Boots a guest with the example function and prints its mapped BAR's speed against RAM. */
export async function measureGuestMemory(): Promise<void> {
  const onProgress = (text: string) => console.error(text);
  const qemu = await findQemu({ onProgress });
  const image = await ensureImage({ kernel: 'latest', onProgress });
  const extraFiles = await buildGuestPrograms({ image, onProgress });
  const emulator = await startEmulator({ devices: [{ plugin: 'example', options: {} }], log: quiet });
  try {
    const [served] = emulator.functions;
    const { vendorId, deviceId } = served!.identity;
    const functions = [{ id: served!.name, socketPath: served!.socketPath }];
    const guest = await bootGuest({ qemu, image, functions, extraFiles, onProgress });
    try {
      const pattern = `0x${vendorId.toString(16).padStart(4, '0')} 0x${deviceId.toString(16).padStart(4, '0')}`;
      const script = `for d in /sys/bus/pci/devices/*; do
        [ "$(cat $d/vendor) $(cat $d/device)" = "${pattern}" ] || continue
        echo 1 > $d/enable; exec bar-bandwidth $d/resource${MEMORY_BAR}
      done; echo "no function ${pattern}" >&2; exit 1`;
      const { exitCode, stdout, stderr } = await guest.capture(['sh', '-c', script]);
      if (exitCode !== 0) throw new Error(`bar-bandwidth failed: ${stderr.toString()}`);
      console.log(`A mapped BAR against RAM inside a guest under ${guest.accel} (1.00 = as fast)`);
      for (const line of stdout.toString().trim().split('\n')) {
        const [what, bar, ram] = line.split(' ');
        console.log(`  ${what}: ${(Number(bar) / Number(ram)).toFixed(2)}`);
      }
    } finally {
      await guest.shutdown();
    }
  } finally {
    await emulator.stop();
  }
}
