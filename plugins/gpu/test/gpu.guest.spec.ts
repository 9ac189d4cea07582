/** The GPU under the stock amdgpu driver: `npm run test:guest`. */
import assert from 'node:assert/strict';
import {
  assertCleanKernelLog,
  guestAddresses,
  KERNELS,
  type Kernel,
  sh,
  type TestMachine,
  withMachine,
} from 'ghostbus/session';
import { assertUntainted, driverReady, moveDmaBuf } from './guest-kit.js';

/** A modprobe costs about 12 s under TCG, ftrace's table mostly. 20 in a row were done outside: README, "Measured". */
const RELOADS = 3;

async function everythingWithOneDriver(machine: TestMachine, kernel: Kernel): Promise<void> {
  // The example's driver taints the kernel: it waits until amdgpu has shown that it does not.
  const guest = await machine.boot({ blockedModules: ['ghostbus_example'] });
  await driverReady(guest, 2);
  await sh(guest, 'amdgpu-copy');
  await moveDmaBuf(machine, guest, kernel === 'latest' ? 'peer' : 'staged');
  await assertUntainted(guest);

  // Another function's DMA rings the doorbell of a user's queue.
  await machine.emulator.resetCounters();
  await sh(guest, 'modprobe ghostbus_example');
  await sh(guest, 'amdgpu-user-queue -- example-copy poke /dev/ghostbus-example0');
  assert.equal((await machine.emulator.stateOf('example0')).counters.peers.gpu0?.registerWrites, 1);

  for (let count = 0; count < RELOADS; count++) await sh(guest, 'rmmod amdgpu; modprobe amdgpu');
  await driverReady(guest, 2);
  await sh(guest, 'amdgpu-copy --bytes 64K');
  await assertCleanKernelLog(guest);

  const addresses = await guestAddresses(guest, machine.emulator);
  for (const name of ['gpu0', 'gpu1']) {
    const debugfs = `/sys/kernel/debug/dri/${addresses.get(name)}`;
    assert.equal(await sh(guest, `cat ${debugfs}/amdgpu_gpu_recover`), '0\n');
  }
  await sh(guest, 'amdgpu-copy --bytes 64K');
  assert.deepEqual(machine.log.complaints, []);
  await guest.shutdown();
}

for (const kernel of KERNELS) {
  describe(`gpu with the stock driver, kernel ${kernel}`, () => {
    it('probes, copies, moves a dma-buf, is rung by a peer, reloads, recovers from a reset', async () => {
      await withMachine({ kernel, devices: ['gpu', 'gpu', 'example'] }, (machine) =>
        everythingWithOneDriver(machine, kernel),
      );
    });

    it('has 16 GiB of VRAM when told so', async () => {
      await withMachine({ kernel, devices: ['gpu,vram=16G'] }, async ({ boot, log }) => {
        const guest = await boot();
        await driverReady(guest, 1);
        assert.match(await guest.dmesg(), /Detected VRAM RAM=16384M, BAR=16384M/);
        await sh(guest, 'amdgpu-copy --bytes 32M');
        await assertUntainted(guest);
        assert.deepEqual(log.complaints, []);
        await guest.shutdown();
      });
    });
  });
}

describe('gpu peer-to-peer, kernel latest', () => {
  for (const [what, options, expected] of [
    ['goes through a switch', { topology: 'switch', cpu: 'qemu64' }, 'peer'],
    ['is refused by the kernel across root ports of an unknown host bridge', { cpu: 'qemu64' }, 'staged'],
  ] as const) {
    it(what, async () => {
      await withMachine({ kernel: 'latest', devices: ['gpu', 'gpu'] }, async (machine) => {
        const guest = await machine.boot(options);
        await driverReady(guest, 2);
        await moveDmaBuf(machine, guest, expected);
        await assertUntainted(guest);
        await guest.shutdown();
      });
    });
  }
});
