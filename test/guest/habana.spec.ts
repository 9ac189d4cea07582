/** The Gaudi under the stock habanalabs driver: `npm run test:guest`. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import type { AllowedComplaint, Guest } from '../../qemu/index.js';
import {
  addressesOf,
  assertCleanKernelLog,
  KERNELS,
  type Kernel,
  type ServedMachine,
  sh,
  withMachine,
} from './support.js';

const WORKAROUND = fileURLToPath(new URL('../../../plugins/habana/guest-workaround', import.meta.url));
const P2P_BYTES = 4 * 2 ** 20;
const P2P_SEED = 4711;

const OUR_MODULE: AllowedComplaint = {
  pattern: /ghostbus_habana_open: .* taint/,
  reason: 'the workaround is built out of the kernel tree and not signed',
};
/** With no faults asked for, the driver says nothing else above the level of information. */
const COLLECTIVE: AllowedComplaint = {
  pattern: /Collective operations not supported when NIC ports are disabled/,
  reason: 'hl-test tries one and expects the refusal',
};

const withHabana = (
  kernel: Kernel,
  devices: readonly string[],
  use: (machine: ServedMachine, guest: Guest) => Promise<void>,
  boot: Parameters<ServedMachine['boot']>[0] = {},
) =>
  withMachine(
    kernel,
    devices,
    async (machine) => {
      const guest = await machine.boot(boot);
      await sh(guest, 'modprobe habanalabs');
      await operational(guest);
      await use(machine, guest);
    },
    { moduleFolders: [WORKAROUND] },
  );

/** Waits until a card's driver says what it should. */
async function operational(guest: Guest, wanted = 'Operational', card = 0): Promise<void> {
  const status = `/sys/class/accel/accel${card}/device/status`;
  await sh(
    guest,
    `for i in $(seq 300); do grep -qx '${wanted}' ${status} && exit 0; sleep 0.2; done; cat ${status}; exit 1`,
  );
}

/** Waits until the kernel's log has a line. */
async function logged(guest: Guest, text: string): Promise<void> {
  await sh(
    guest,
    `for i in $(seq 200); do dmesg | grep -qF '${text}' && exit 0; sleep 0.2; done; dmesg | tail -20; exit 1`,
  );
}

/** Waits until the driver has reset the card so often. */
async function resets(guest: Guest, count: number): Promise<void> {
  const done = `dmesg | grep -c "Successfully finished resetting" | grep -qx ${count}`;
  await sh(guest, `for i in $(seq 250); do ${done} && exit 0; sleep 0.2; done; dmesg | tail -20; exit 1`);
  await operational(guest);
}

for (const kernel of KERNELS) {
  describe(`habana, kernel ${kernel}`, () => {
    it('probes, shows sensors, and moves data through every queue', async () => {
      await withHabana(kernel, ['habana,temperature=51'], async ({ emulator, log }, guest) => {
        await logged(guest, 'Successfully added device 0000:01:00.0 to habanalabs driver');
        assert.equal(
          await sh(guest, 'cat /sys/class/hwmon/hwmon*/name /sys/class/hwmon/hwmon*/temp1_input'),
          'HL205\n51000\n',
        );
        assert.match(await sh(guest, 'hl-test 0 16'), /# 0 failed/);
        await assertCleanKernelLog(guest, [OUR_MODULE, COLLECTIVE]);
        const state = await emulator.stateOf('habana0');
        assert.equal(state.broken, undefined);
        assert.deepEqual(log.complaints, []);
        await guest.shutdown();
      });
    });

    it('recovers from what is asked for: events, faults, time-outs', async () => {
      await withHabana(kernel, ['habana'], async ({ emulator }, guest) => {
        const ask = (command: string, args: Record<string, unknown> = {}) => emulator.control('habana0', command, args);
        await ask('ecc', { block: 'hbm0', correctable: true, address: 4096, syndrome: 1 });
        await logged(guest, 'ECC error detected. address: 0x1000');
        await ask('thermal', { state: 'start' });
        await logged(guest, 'Clock throttling due to overheating');
        await ask('qman-error', { engine: 'DMA3', stream: 2, cause: 1 << 9 });
        await logged(guest, 'FENCE 1 inc over max value and clipped');
        await operational(guest);
        assert.match(await sh(guest, 'hl-fault undefined-opcode'), /# 0 failed/);
        for (const fault of ['page-fault', 'timeout']) {
          assert.match(await sh(guest, `hl-fault ${fault}`), /# 0 failed/);
          await operational(guest);
        }
        await logged(guest, 'MMU page fault on va 0x1234567890000');
        await ask('event', { type: 'PLL0' });
        await logged(guest, 'Received H/W interrupt 239');
        await resets(guest, 3);
        await operational(guest);
        assert.match(await sh(guest, 'hl-test 0 1'), /# 0 failed/);
      });
    });
  });
}

for (const kernel of KERNELS) {
  describe(`habana with fatal errors, kernel ${kernel}`, () => {
    it('is reset for each, and given up by the driver after two in a row', async () => {
      await withHabana(kernel, ['habana'], async ({ emulator }, guest) => {
        const ask = (command: string, args: Record<string, unknown> = {}) => emulator.control('habana0', command, args);
        await ask('out-of-sync', { pi: 1, ci: 2 });
        await resets(guest, 1);
        await ask('reset-request');
        await resets(guest, 2);
        await ask('heartbeat', { answers: false });
        await logged(guest, 'heartbeat failed!');
        await resets(guest, 3);
        await operational(guest);
        assert.match(await sh(guest, 'hl-test 0 1'), /# 0 failed/);
        await ask('ecc', { block: 'hbm1', correctable: false, address: 64, syndrome: 3 });
        await resets(guest, 4);
        await ask('event', { type: 'PLL0' });
        await logged(guest, 'Consecutive fatal errors, stopping hard reset');
        await operational(guest, 'Disabled');
      });
    });
  });
}

for (const kernel of KERNELS) {
  describe(`habana without the workaround, kernel ${kernel}`, () => {
    it('reloads 20 times; its node cannot be opened', async () => {
      await withMachine(kernel, ['habana'], async ({ emulator, log, boot }) => {
        const guest = await boot();
        await sh(guest, 'for i in $(seq 20); do rmmod habanalabs; modprobe habanalabs; done');
        await operational(guest);
        assert.equal(await sh(guest, 'dmesg | grep -c "Successfully added device"'), '21\n');
        await assertCleanKernelLog(guest);
        const { exitCode, stderr } = await guest.capture(['hl-test']);
        assert.equal(exitCode, 1);
        assert.match(stderr.toString(), /cannot open .*: Invalid argument/);
        assert.equal((await emulator.stateOf('habana0')).broken, undefined);
        assert.deepEqual(log.complaints, []);
      });
    });

    it('stays out when its firmware does not boot, and comes when it does', async () => {
      await withMachine(kernel, ['habana,failBoot=boot-fit'], async ({ emulator, boot }) => {
        const guest = await boot();
        // The driver leaves the nodes of a card that it gave up (hl_device_init, expose_interfaces_on_err).
        await sh(guest, 'modprobe habanalabs');
        await logged(guest, 'is NOT usable');
        await operational(guest, 'Disabled');
        await emulator.control('habana0', 'fail-boot', { stage: 'none' });
        await guest.reboot('reset');
        await sh(guest, 'modprobe habanalabs');
        await operational(guest);
      });
    });
  });
}

describe('habana peer-to-peer', () => {
  it('latest: the GPU imports HBM and copies both ways, and exactly those bytes go from peer to peer', async () => {
    await withHabana('latest', ['habana', 'gpu'], async ({ emulator }, guest) => {
      const output = await sh(
        guest,
        `modprobe amdgpu; hl-export ${P2P_BYTES} amdgpu-import 3 ${P2P_BYTES} ${P2P_SEED}`,
      );
      assert.match(output, /# 0 failed/);
      const peers = (await emulator.stateOf('gpu0')).counters.peers.habana0;
      assert.deepEqual([peers?.bytesRead, peers?.bytesWritten], [P2P_BYTES, P2P_BYTES]);
      await assertCleanKernelLog(guest, [OUR_MODULE]);
    });
  });

  it('lts: the driver refuses to map its memory for a peer', async () => {
    await withHabana('lts', ['habana', 'gpu'], async ({ emulator }, guest) => {
      const { exitCode, stdout, stderr } = await guest.capture([
        'sh',
        '-c',
        `modprobe amdgpu; hl-export ${P2P_BYTES} amdgpu-import 3 ${P2P_BYTES} ${P2P_SEED}`,
      ]);
      assert.equal(exitCode, 2, `${stdout}${stderr}`);
      assert.equal((await emulator.stateOf('gpu0')).counters.peers.habana0, undefined);
    });
  });
});

describe('habana, life of two cards', () => {
  it('two at once, unbind and bind, FLR, hard reset, reboot', async () => {
    await withHabana('latest', ['habana', 'habana'], async ({ emulator }, guest) => {
      await operational(guest, 'Operational', 1);
      assert.match(
        await sh(guest, 'hl-test 0 1 & first=$!; hl-test 1 1 && wait $first'),
        /# 0 failed[\s\S]*# 0 failed/,
      );
      const address = (await addressesOf(guest, emulator)).get('habana0')!;
      const driver = '/sys/bus/pci/drivers/habanalabs';
      await sh(guest, `echo ${address} > ${driver}/unbind; echo ${address} > ${driver}/bind`);
      await operational(guest);
      await sh(guest, `echo 1 > /sys/bus/pci/devices/${address}/reset`);
      await operational(guest);
      await sh(guest, `echo 1 > /sys/bus/pci/devices/${address}/hard_reset`);
      await operational(guest);
      assert.match(await sh(guest, 'hl-test 0 1'), /# 0 failed/);
      await guest.reboot('guest');
      await sh(guest, 'modprobe habanalabs');
      await operational(guest);
      assert.match(await sh(guest, 'hl-test 0 1'), /# 0 failed/);
    });
  });
});
