/** The GPU in its variants under the stock amdgpu driver: several at once, a real product's id, a hive, a small BAR. */
import assert from 'node:assert/strict';
import {
  type AllowedComplaint,
  assertCleanKernelLog,
  type Guest,
  guestAddresses,
  KERNELS,
  type Kernel,
  sh,
  type TestMachine,
  withMachine,
} from 'ghostbus/session';
import { assertUntainted, driverReady, moveDmaBuf, outputUntil, startUntil, vramExtents } from './guest-kit.js';

/** gpu0 and gpu1 in one hive, gpu2 outside, gpu3 with a BAR smaller than its VRAM. */
const HIVE = 'gpu,id=740f,hive=gpu0+gpu1';
const VARIANTS = [HIVE, HIVE, 'gpu', 'gpu,bar=256M'];
const BAR = 256 * 2 ** 20;
const RELEASE = '/tmp/visible-release';

/** TAINT_USER on 7.x: there ip_block_mask is declared unsafe (amdgpu_drv.c). */
const TAINTED_BY_PARAMETER = { lts: '0\n', latest: '64\n' } as const;
const TAINTING: AllowedComplaint = {
  pattern: /Setting dangerous option ip_block_mask - tainting kernel/,
  reason: 'the parameters of id=740f, which the plugin gives the guest',
};

/**
 * 6.12 believes a GPU of this type in a virtual machine to be passed through, and then follows a NULL pointer without a
 * power management block (amdgpu_dpm.c amdgpu_dpm_handle_passthrough_sbr; 7.2 looks first): it must not see that it is
 * in one.
 */
const BOOT = { lts: { cpu: 'EPYC,-hypervisor' }, latest: {} } as const;

/** What the CPU does not see is filled and read by SDMA, and moved by the driver when the CPU touches it. */
async function useInvisibleVram({ emulator }: TestMachine, guest: Guest, gpu: string): Promise<void> {
  const address = (await guestAddresses(guest, emulator)).get(gpu);
  await sh(guest, `rm -f ${RELEASE}`);
  const lines = await startUntil(guest, `amdgpu-visible --hold ${RELEASE} ${address}`, 'placed');
  const { vram, visible, bar0 } = lines[0] as Record<'vram' | 'visible' | 'bar0', number>;
  assert.equal(bar0, BAR);
  // The driver keeps some of both for itself.
  assert.ok(visible <= BAR && visible > BAR / 2 && vram > 2 * BAR, JSON.stringify(lines[0]));
  const placeOf = async (step: string, output: typeof lines) => {
    const held = output.find((line) => line.step === step) as unknown as { va: string; bytes: number };
    const [place] = await vramExtents(emulator, gpu, held);
    assert.ok(place, `the buffer is in VRAM when ${step}`);
    return place.extents;
  };
  const placed = await placeOf('placed', lines);
  assert.ok(
    placed.every((extent) => extent.address >= BAR),
    'the driver placed it, and SDMA filled it, beyond BAR0',
  );
  await sh(guest, `touch ${RELEASE}`);
  const later = await outputUntil(guest, 'moved');
  assert.equal(later.find(({ step }) => step === 'refused')?.error, 'Operation not permitted');
  assert.equal(later.find(({ step }) => step === 'fault')?.cpu_faults, 1);
  const moved = await placeOf('moved', later);
  assert.ok(
    moved.every((extent) => extent.address + extent.lengthBytes <= BAR),
    'the driver moved it to where the CPU sees it',
  );
  await sh(guest, `touch ${RELEASE}`);
  await outputUntil(guest, 'result');
}

async function variantsAtOnce(machine: TestMachine, kernel: Kernel): Promise<void> {
  const guest = await machine.boot(BOOT[kernel]);
  await driverReady(guest, VARIANTS.length);
  const log = await guest.dmesg();
  for (const node of [0, 1]) assert.match(log, new RegExp(`XGMI: Add node ${node}, hive 0x10`));
  assert.match(log, /Detected VRAM RAM=1024M, BAR=256M/);
  const bus = kernel === 'latest' ? 'peer' : 'staged';
  await moveDmaBuf(machine, guest, 'hive', { first: 'gpu0', second: 'gpu1', options: '--hive' });
  await moveDmaBuf(machine, guest, bus, { first: 'gpu1', second: 'gpu2' });
  await useInvisibleVram(machine, guest, 'gpu3');
  // Exporting for a peer, the driver moves the buffer from where no peer sees it (amdgpu_dma_buf_map).
  await moveDmaBuf(machine, guest, bus, { first: 'gpu3', second: 'gpu2', options: '--unmapped' });
  assert.equal(await sh(guest, 'cat /proc/sys/kernel/tainted'), TAINTED_BY_PARAMETER[kernel]);
  await assertCleanKernelLog(guest, [TAINTING]);
  assert.deepEqual(machine.log.complaints, []);
  await guest.shutdown();
}

/** Four synthetic GPUs without a parameter come and go as the machine and its owner please. */
async function comeAndGo(machine: TestMachine): Promise<void> {
  const guest = await machine.boot();
  await driverReady(guest, 4);
  await sh(guest, 'test -c /dev/kfd');
  assert.equal(await sh(guest, 'cat /sys/class/kfd/kfd/topology/nodes/*/gpu_id | grep -cv ^0'), '4\n');
  const addresses = await guestAddresses(guest, machine.emulator);
  const driver = '/sys/bus/pci/drivers/amdgpu';
  const second = addresses.get('gpu1');
  await sh(guest, `echo ${second} > ${driver}/unbind; echo ${second} > ${driver}/bind`);
  await driverReady(guest, 4);
  await sh(guest, 'rmmod amdgpu; modprobe amdgpu');
  await driverReady(guest, 4);
  await moveFrom(guest);
  await assertUntainted(guest);
  await guest.reboot('guest');
  await driverReady(guest, 4);
  await moveFrom(guest);
  await assertUntainted(guest);
  assert.deepEqual(machine.log.complaints, []);
  await guest.shutdown();
}

async function moveFrom(guest: Guest): Promise<void> {
  await sh(guest, 'for gpu in $(lspci -D -d 1002: | cut -d" " -f1); do amdgpu-copy --bytes 64K $gpu; done');
}

for (const kernel of KERNELS) {
  describe(`variants of the gpu with the stock driver, kernel ${kernel}`, () => {
    it('a hive, a GPU outside it and one with a small BAR: each buffer goes the way that the driver chose', async () => {
      await withMachine({ kernel, devices: VARIANTS }, (machine) => variantsAtOnce(machine, kernel));
    });

    it('four at once: unbind and bind, reload, reboot, without parameter or taint', async () => {
      await withMachine({ kernel, devices: ['gpu', 'gpu', 'gpu', 'gpu'] }, comeAndGo);
    });
  });
}
