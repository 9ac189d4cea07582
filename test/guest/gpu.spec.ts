/** The GPU under the stock amdgpu driver: `npm run test:guest`. */
import assert from 'node:assert/strict';
import { patternBytes } from '../../demo/pattern.js';
import type { Emulator } from '../../emulator/emulator.js';
import { type AllowedComplaint, type Guest, heldBackModules } from '../../qemu/index.js';
import {
  addressesOf,
  assertCleanKernelLog,
  KERNELS,
  type Kernel,
  type ServedMachine,
  sh,
  withMachine,
} from './support.js';

const BYTES = 4 * 2 ** 20;
const SEED = 20260101;
const RELEASE = '/tmp/p2p-release';

/** Loads the driver where udev has not, waits for its ring tests in IBs (2 s after probe, AMDGPU_RESUME_MS), mounts debugfs. */
async function driverReady(guest: Guest, gpus: number): Promise<void> {
  await sh(guest, 'modprobe amdgpu; mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug');
  assert.equal(await sh(guest, 'ls /dev/dri | grep -c renderD'), `${gpus}\n`);
  await sh(guest, 'for gpu in /sys/kernel/debug/dri/0000:*; do cat $gpu/amdgpu_test_ib; done');
}

/** No taint, and no complaint in the kernel's log. */
async function assertUntainted(guest: Guest): Promise<void> {
  assert.equal(await sh(guest, 'cat /proc/sys/kernel/tainted'), '0\n');
  await assertCleanKernelLog(guest);
}

const EXAMPLE_DRIVER: AllowedComplaint = {
  pattern: /ghostbus_example: .* taint/,
  reason: "the example's own driver is built out of the kernel's tree and not signed",
};

interface Buffer {
  readonly buffer: 'first' | 'second';
  readonly va: string;
}

interface Translation {
  readonly extents: readonly { readonly target: string; readonly address: number; readonly lengthBytes: number }[];
}

/** The buffer's bytes in the memory behind BAR0, as the emulator's page tables place it; undefined if it is not there. */
async function inVram(emulator: Emulator, name: string, { va }: Buffer): Promise<Uint8Array[]> {
  const found = (await emulator.control(name, 'translate', { address: va, bytes: BYTES })) as Translation[];
  const whole = found.filter(({ extents }) => extents.every(({ target }) => target === 'vram'));
  return Promise.all(
    whole.map(async ({ extents }) => {
      const parts = extents.map(({ address, lengthBytes }) => emulator.readBar(name, 0, address, lengthBytes));
      return Buffer.concat(await Promise.all(parts));
    }),
  );
}

/**
 * Moves a dma-buf between the two GPUs in both directions. `peer`: the second GPU reaches the first one's VRAM, and exactly
 * the buffer's bytes go that way; otherwise the driver stages them and no byte does.
 */
async function moveDmaBuf({ emulator }: ServedMachine, guest: Guest, expected: 'peer' | 'staged'): Promise<void> {
  await emulator.resetCounters();
  await sh(guest, `rm -f ${RELEASE}`);
  const program = `amdgpu-p2p --bytes ${BYTES} --seed ${SEED} --hold ${RELEASE}`;
  await sh(guest, `${program} > /tmp/p2p.log 2>&1 < /dev/null & echo $! > /tmp/p2p.pid`);
  await sh(
    guest,
    'until grep -q hold /tmp/p2p.log; do kill -0 $(cat /tmp/p2p.pid) || { cat /tmp/p2p.log; exit 1; }; sleep 0.1; done',
  );
  const lines = (await sh(guest, 'cat /tmp/p2p.log'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const pattern = patternBytes(SEED, 2, BYTES);
  for (const buffer of lines.filter((line) => 'buffer' in line) as Buffer[]) {
    if (expected === 'staged' && buffer.buffer === 'first') continue;
    const name = buffer.buffer === 'first' ? 'gpu0' : 'gpu1';
    const copies = await inVram(emulator, name, buffer);
    assert.ok(
      copies.some((bytes) => Buffer.compare(bytes, pattern) === 0),
      `pattern 2 in the VRAM of ${name}`,
    );
  }
  const peers = (await emulator.stateOf('gpu1')).counters.peers.gpu0;
  if (expected === 'staged') assert.equal(peers, undefined);
  else assert.deepEqual([peers?.bytesRead, peers?.bytesWritten], [BYTES, BYTES]);
  assert.deepEqual((await emulator.stateOf('gpu0')).counters.peers, {});
  await sh(guest, `touch ${RELEASE}; until grep -q result /tmp/p2p.log; do sleep 0.1; done`);
}

async function everythingWithOneDriver(machine: ServedMachine, kernel: Kernel): Promise<void> {
  // The example's driver taints the kernel: it waits until amdgpu has shown that it does not.
  const guest = await machine.boot({ blockedModules: [...heldBackModules, 'ghostbus_example'] });
  await driverReady(guest, 2);
  await sh(guest, 'amdgpu-copy');
  await moveDmaBuf(machine, guest, kernel === 'latest' ? 'peer' : 'staged');
  await assertUntainted(guest);

  // Another function's DMA rings the doorbell of a user's queue.
  await machine.emulator.resetCounters();
  await sh(guest, 'modprobe ghostbus_example');
  await sh(guest, 'amdgpu-user-queue -- example-copy poke /dev/ghostbus-example0');
  assert.equal((await machine.emulator.stateOf('example0')).counters.peers.gpu0?.registerWrites, 1);

  for (let count = 0; count < 10; count++) await sh(guest, 'rmmod amdgpu; modprobe amdgpu');
  await driverReady(guest, 2);
  await sh(guest, 'amdgpu-copy --bytes 64K');
  await assertCleanKernelLog(guest, [EXAMPLE_DRIVER]);

  // 6.12 follows a NULL pointer in amdgpu_dpm_is_mode1_reset_supported when an ASIC of this age has no power management block.
  const addresses = await addressesOf(guest, machine.emulator);
  for (const name of kernel === 'latest' ? ['gpu0', 'gpu1'] : []) {
    const debugfs = `/sys/kernel/debug/dri/${addresses.get(name)}`;
    assert.equal(await sh(guest, `cat ${debugfs}/amdgpu_gpu_recover`), '0\n');
  }
  await sh(guest, 'amdgpu-copy --bytes 64K');
  assert.deepEqual(machine.log.complaints, []);
  await guest.shutdown();
}

for (const kernel of KERNELS) {
  describe(`gpu with the stock driver, kernel ${kernel}`, () => {
    it('probes, copies, moves a dma-buf, is rung by a peer, reloads ten times, recovers from a reset (latest)', async () => {
      await withMachine(kernel, ['gpu', 'gpu', 'example'], (machine) => everythingWithOneDriver(machine, kernel));
    });

    it('has 16 GiB of VRAM when told so', async () => {
      await withMachine(kernel, ['gpu,vram=16G'], async ({ boot, log }) => {
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
      await withMachine('latest', ['gpu', 'gpu'], async (machine) => {
        const guest = await machine.boot(options);
        await driverReady(guest, 2);
        await moveDmaBuf(machine, guest, expected);
        await assertUntainted(guest);
        await guest.shutdown();
      });
    });
  }
});
