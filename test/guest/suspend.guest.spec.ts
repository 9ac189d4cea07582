/** Suspend and resume, with every kind of function: `npm run test:guest`. */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
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
import { operational, passes, UNBINDING } from '../../plugins/habana/test/guest-kit.js';
import {
  driverReady as adapterReady,
  pingPong,
  portsActive,
  rdmaDeviceNames,
} from '../../plugins/rdma/test/guest-kit.js';

const POLL_MS = 100;
const LAST_LINES = 5;
const ALLOWED: AllowedComplaint[] = [UNBINDING];

/** Each function's driver moves data and is told of it by interrupts. */
async function allWork(guest: Guest): Promise<void> {
  await operational(guest);
  await passes(guest, 'hl-test 0 1');
  await allButHabanaWork(guest);
}

async function allButHabanaWork(guest: Guest): Promise<void> {
  await sh(guest, 'example-copy /dev/ghostbus-example0');
  await gpuReady(guest, 1);
  await sh(guest, 'amdgpu-copy --bytes 64K');
  await portsActive(guest, 1);
  const [adapter] = await rdmaDeviceNames(guest);
  await pingPong(guest, 'ibv_rc_pingpong -c', adapter!, adapter!);
}

async function suspends(guest: Guest): Promise<number> {
  return (await guest.dmesg()).split('PM: suspend exit').length - 1;
}

/** Writes `state` to /sys/power/state and wakes the guest up as soon as it is asleep; fails when it does not sleep. */
async function sleepsUntil(
  guest: Guest,
  state: string,
  { isAsleep, wakeUp }: { isAsleep: () => Promise<boolean>; wakeUp: () => Promise<unknown> },
): Promise<void> {
  let ended = false;
  const slept = sh(guest, `echo ${state} > /sys/power/state`).finally(() => {
    ended = true;
  });
  // Awaited below, after what may take long.
  slept.catch(() => {});
  while (!ended && !(await isAsleep())) await delay(POLL_MS);
  if (!ended) await wakeUp();
  await slept;
}

/** Goes to sleep by suspend-to-idle; the power button wakes it up once the kernel says that it sleeps. */
async function sleepsUntilButton(guest: Guest): Promise<void> {
  await sh(
    guest,
    `modprobe button; echo none > /sys/power/pm_test
     echo N > /sys/module/printk/parameters/console_suspend; echo 1 > /sys/power/pm_debug_messages; dmesg -n debug`,
  );
  await sleepsUntil(guest, 'freeze', {
    isAsleep: async () => guest.consoleTail(LAST_LINES).includes('suspend-to-idle'),
    wakeUp: () => guest.qmp('system_powerdown'),
  });
  await sh(guest, 'dmesg -n warn; echo 0 > /sys/power/pm_debug_messages');
}

/** Goes to sleep by ACPI S3, where everything but memory loses its power; QEMU wakes it up. */
async function sleepsUntilWoken(guest: Guest): Promise<void> {
  await sleepsUntil(guest, 'mem', {
    isAsleep: async () => ((await guest.qmp('query-status')) as { status: string }).status === 'suspended',
    wakeUp: () => guest.qmp('system_wakeup'),
  });
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

  await sleepsUntilButton(guest);
  assert.equal(await suspends(guest), 2);
  await allWork(guest);

  await sh(guest, 'rmmod habanalabs');
  await sleepsUntilWoken(guest);
  assert.equal(await suspends(guest), 3);
  await allButHabanaWork(guest);

  for (const { broken } of await emulator.state()) assert.equal(broken, undefined);
  await assertCleanKernelLog(guest, ALLOWED);
  assert.deepEqual(log.complaints, []);
  await guest.shutdown();
}

for (const kernel of KERNELS) {
  describe(`suspend and resume, kernel ${kernel}`, () => {
    it('leaves commands, functions and their drivers as they were', async () => {
      await withGuest({ kernel, devices: ['example', 'gpu', 'habana', 'rdma'] }, sleepsAndWakes);
    });
  });
}
