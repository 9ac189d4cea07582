/** The GPU fails, and the stock amdgpu driver says so and goes on: `npm run test:guest`. One boot per kernel. */
import assert from 'node:assert/strict';
import type { Emulator } from '../../emulator/emulator.js';
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

/** What the driver prints about faults that this test provokes. */
const PROVOKED: readonly AllowedComplaint[] = [
  { pattern: /amdgpu .*ring \S+ timeout/, reason: 'amdgpu_job_timedout names the ring whose job the test made hang' },
];

/** What the emulator says of the packet that does not exist. */
const EXPECTED_OF_THE_GPU = /^warn: mec1 pipe \d queue \d stops at packet 0xc000fe00/;

/** More vectors than ring 0 holds: 256 KiB of 32 bytes (vega20_ih.c IH_RING_SIZE). */
const MORE_THAN_THE_RING = 9000;

/** A guest, its first GPU, and its kernel's log from one call to the next. */
class Scene {
  readonly guest: Guest;
  readonly emulator: Emulator;
  #seen = 0;

  constructor(guest: Guest, emulator: Emulator) {
    this.guest = guest;
    this.emulator = emulator;
  }

  /** Lines that the kernel logged since the last call. */
  async news(): Promise<string> {
    const lines = (await this.guest.dmesg()).split('\n');
    const fresh = lines.slice(this.#seen).join('\n');
    this.#seen = lines.length;
    return fresh;
  }

  /** Waits until the kernel has logged something. */
  async logged(pattern: string): Promise<string> {
    await sh(this.guest, `until dmesg | grep -qE ${JSON.stringify(pattern)}; do sleep 0.2; done`);
    return this.news();
  }

  /** Runs cases of amdgpu-fault; what it printed, and what the kernel did. */
  async provoke(...cases: string[]): Promise<{ said: string; log: string }> {
    const said = await sh(this.guest, `amdgpu-fault ${cases.join(' ')}`);
    return { said, log: await this.news() };
  }

  async stillWorks(): Promise<void> {
    await sh(this.guest, 'amdgpu-copy --bytes 64K');
  }
}

/** Addresses that the program said it would fail at. */
function placesIn(said: string): string[] {
  return [...said.matchAll(/(?:mapped|only) at (0x[0-9a-f]{16})/g)].map((match) => match[1]!);
}

/** Both directions by SDMA, a write by compute, a write to a page for reading: what, where, by whom. */
async function pageFaults(scene: Scene): Promise<void> {
  const { said, log } = await scene.provoke('sdma-page', 'compute-page', 'read-only');
  const [sdma, compute, readOnly] = placesIn(said);
  assert.ok(sdma && compute && readOnly, said);
  const page = (address: string, from: string) =>
    new RegExp(`in page starting at address ${address} from IH client ${from}`);
  const behind = `0x${(BigInt(sdma) + 4096n).toString(16).padStart(16, '0')}`;
  for (const address of [sdma, behind, readOnly]) assert.match(log, page(address, '0x12 \\(VMC\\)'));
  assert.match(log, page(compute, '0x1b \\(UTCL2\\)'));
  for (const line of [
    /\[mmhub0\] no-retry page fault \(src_id:0 ring:24 vmid:\d+ pasid:\d+\)/,
    /\[mmhub0\] no-retry page fault \(src_id:0 ring:40 vmid:\d+ pasid:\d+\)/,
    /\[gfxhub0\] no-retry page fault \(src_id:0 ring:40 vmid:\d+ pasid:\d+\)/,
    /[Pp]rocess amdgpu-fault pid \d+/,
    /Faulty UTCL2 client ID: SDMA0 \(0x100\)/,
    /Faulty UTCL2 client ID: CPC \(0x5\)/,
    /PERMISSION_FAULTS: 0x3/,
    /PERMISSION_FAULTS: 0x5/,
    /PERMISSION_FAULTS: 0x4/,
  ])
    assert.match(log, line);
}

/** By command: a fault with retry; more vectors than the ring holds while no CPU reads them; vectors that get lost. */
async function interruptsOnDemand(scene: Scene): Promise<void> {
  const { emulator, guest } = scene;
  const place = { vmid: 9, address: '0x123456000' };
  await emulator.control('gpu0', 'page-fault', { hub: 'gfxhub', ...place, retry: true });
  const retry = await scene.logged('retry page fault .*vmid:9 ');
  assert.match(retry, /\[gfxhub0\] retry page fault \(src_id:0 ring:24 vmid:9 pasid:\d+\)/);
  assert.match(retry, /in page starting at address 0x0000000123456000/);

  await guest.qmp('stop');
  await emulator.control('gpu0', 'page-fault', { hub: 'gfxhub', ...place, pages: MORE_THAN_THE_RING });
  await guest.qmp('cont');
  await scene.logged('IH ring buffer overflow');
  await scene.stillWorks();

  await emulator.control('gpu0', 'lose-interrupts', { vectors: 1 });
  await scene.stillWorks();
  assert.match(await scene.news(), /Fence fallback timer expired on ring/);
}

async function hangs(scene: Scene, kernel: Kernel): Promise<void> {
  const sdma = await scene.provoke('sdma-hang');
  assert.match(sdma.log, /ring sdma0 timeout, signaled seq=\d+, emitted seq=\d+/);
  assert.match(sdma.log, /GPU psp mode1 reset/);
  assert.match(sdma.log, /GPU reset\(\d+\) succeeded!/);

  const opcode = await scene.provoke('compute-opcode');
  assert.match(opcode.log, /Illegal opcode in command stream/);
  // 6.12 gives compute jobs a minute.
  if (kernel === 'latest') await scene.provoke('compute-hang');
  await scene.stillWorks();

  await scene.emulator.control('gpu0', 'hang', { queue: 'sdma0 gfx' });
  await sh(scene.guest, 'amdgpu-copy --bytes 64K > /dev/null 2>&1 || true');
  assert.match(await scene.logged('GPU reset.* succeeded'), /ring sdma0 timeout/);
  await scene.stillWorks();
}

/** The second card is pulled out under its driver. */
async function removal(scene: Scene, address: string): Promise<void> {
  await scene.emulator.control('gpu1', 'remove');
  const device = `/sys/bus/pci/devices/${address}`;
  assert.equal(await sh(scene.guest, `od -An -tx2 -N2 ${device}/config`), ' ffff\n', 'nobody answers');
  await sh(
    scene.guest,
    `echo 1 > ${device}/remove; [ ! -e ${device} ]; echo 1 > /sys/bus/pci/rescan; [ ! -e ${device} ]`,
  );
  assert.equal(await sh(scene.guest, 'ls /dev/dri | grep -c renderD'), '1\n');
  await scene.stillWorks();
}

async function everyFault(machine: ServedMachine, kernel: Kernel): Promise<void> {
  const guest = await machine.boot();
  const scene = new Scene(guest, machine.emulator);
  const addresses = await addressesOf(guest, machine.emulator);
  const debugfs = `/sys/kernel/debug/dri/${addresses.get('gpu0')}`;
  await sh(guest, 'modprobe amdgpu; mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug');
  assert.match(await sh(guest, `cat ${debugfs}/amdgpu_test_ib`), /ib ring tests passed/);
  await scene.news();

  await pageFaults(scene);
  await interruptsOnDemand(scene);
  await sh(guest, `cat ${debugfs}/amdgpu_gpu_recover`);
  assert.match(await scene.news(), /GPU reset\(\d+\) succeeded!/);
  await hangs(scene, kernel);
  assert.match(await sh(guest, `cat ${debugfs}/amdgpu_test_ib`), /ib ring tests passed/);
  await removal(scene, addresses.get('gpu1')!);

  assert.equal(await sh(guest, 'cat /proc/sys/kernel/tainted'), '0\n');
  await assertCleanKernelLog(guest, PROVOKED);
  const unexpected = machine.log.complaints.filter((line) => !EXPECTED_OF_THE_GPU.test(line));
  assert.deepEqual(unexpected, []);
  await guest.shutdown();
}

for (const kernel of KERNELS) {
  describe(`gpu faults, kernel ${kernel}`, () => {
    it('reports page faults, survives lost interrupts, hangs and a card that is pulled out', async () => {
      await withMachine(kernel, ['gpu', 'gpu'], (machine) => everyFault(machine, kernel));
    });
  });
}
