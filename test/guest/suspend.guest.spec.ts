/** Suspend and resume, with every kind of function: `npm run test:guest`. */
import assert from 'node:assert/strict';
import {
  type AllowedComplaint,
  assertCleanKernelLog,
  type Guest,
  KERNELS,
  sh,
  type TestMachine,
  withGuest,
} from 'ghostbus/session';
import { driverReady as gpuReady } from '../../plugins/gpu/test/guest-kit.js';
import { operational, passes } from '../../plugins/habana/test/guest-kit.js';
import {
  driverReady as adapterReady,
  pingPong,
  portsActive,
  RDMA_GUEST,
  rdmaDeviceNames,
} from '../../plugins/rdma/test/guest-kit.js';

const ALLOWED: AllowedComplaint[] = [];

/** Each function's stock driver moves data and is told of it by interrupts. */
async function allWork(guest: Guest): Promise<void> {
  await sh(guest, 'example-copy /dev/ghostbus-example0');
  await gpuReady(guest, 1);
  await sh(guest, 'amdgpu-copy --bytes 64K');
  await operational(guest);
  await passes(guest, 'hl-test 0 1');
  await portsActive(guest, 1);
  const [adapter] = await rdmaDeviceNames(guest);
  await pingPong(guest, 'ibv_rc_pingpong -c', adapter!, adapter!);
}

/** What the guest's kernel says of itself between two of its lines. */
async function suspends(guest: Guest): Promise<number> {
  return (await guest.dmesg()).split('PM: suspend exit').length - 1;
}

async function sleepsAndWakes({ guest, emulator, log }: TestMachine & { guest: Guest }): Promise<void> {
  await sh(guest, 'modprobe amdgpu; modprobe habanalabs; modprobe ghostbus_example');
  await adapterReady(guest, 1);
  await allWork(guest);

  // A command that sends the guest to sleep goes on afterwards, and so does another that was running.
  const bystander = guest.capture([
    'sh',
    '-c',
    'until [ -e /tmp/awake ]; do sleep 0.2; done; seq 100000 | tail -1; exit 5',
  ]);
  const { stdout, exitCode } = await guest.capture([
    'sh',
    '-c',
    'echo devices > /sys/power/pm_test; echo freeze > /sys/power/state && echo awake; touch /tmp/awake; exit 7',
  ]);
  assert.deepEqual({ stdout: stdout.toString(), exitCode }, { stdout: 'awake\n', exitCode: 7 });
  const { stdout: counted, exitCode: status } = await bystander;
  assert.deepEqual({ stdout: counted.toString(), exitCode: status }, { stdout: '100000\n', exitCode: 5 });
  assert.equal(await suspends(guest), 1);
  await allWork(guest);

  for (const { broken } of await emulator.state()) assert.equal(broken, undefined);
  await assertCleanKernelLog(guest, ALLOWED);
  assert.deepEqual(log.complaints, []);
  await guest.shutdown();
}

for (const kernel of KERNELS) {
  describe(`suspend and resume, kernel ${kernel}`, () => {
    it('leaves commands, functions and their drivers as they were', async () => {
      await withGuest(
        { kernel, devices: ['example', 'gpu', 'habana', 'rdma'], packages: RDMA_GUEST.packages },
        sleepsAndWakes,
      );
    });
  });
}
