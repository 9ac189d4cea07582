/** The GPU fails, and the stock amdgpu driver says so and goes on: `npm run test:guest`. One boot per kernel. */
import assert from 'node:assert/strict';
import {
  type AllowedComplaint,
  assertCleanKernelLog,
  type Emulator,
  type Guest,
  guestAddresses,
  KERNELS,
  type Kernel,
  sh,
  type TestMachine,
  withMachine,
} from 'ghostbus/session';

/** What the driver prints about faults that this test provokes. */
const PROVOKED: readonly AllowedComplaint[] = [
  { pattern: /amdgpu .*ring \S+ timeout/, reason: 'amdgpu_job_timedout names the ring whose job the test made hang' },
];

/** The driver lets go of a card that is not there any more: no register ever shows what it waits for. */
const PULLED_OUT: readonly AllowedComplaint[] = [
  ...PROVOKED,
  {
    pattern: /(\[drm\]|amdgpu).*time(d |-)?out/i,
    reason: 'for example gfx_v9_0_wait_for_rlc_serdes: registers of a card that is gone never become idle',
  },
];

/** What the emulator says of the packet that does not exist. */
const EXPECTED_OF_THE_GPU = /stops at packet 0xc000fe00/;

/** More vectors than ring 0 holds: 256 KiB of 32 bytes (vega20_ih.c IH_RING_SIZE). */
const MORE_THAN_THE_RING = 9000;

/** A guest, its GPUs, and its kernel's log from one call to the next. */
class Scene {
  readonly guest: Guest;
  readonly emulator: Emulator;
  #last = '';

  constructor(guest: Guest, emulator: Emulator) {
    this.guest = guest;
    this.emulator = emulator;
  }

  /** Lines that the kernel logged since the last call; they begin with the time, which tells them apart. */
  async news(): Promise<string> {
    const lines = (await this.guest.dmesg()).trimEnd().split('\n');
    const fresh = lines.slice(lines.lastIndexOf(this.#last) + 1);
    this.#last = lines.at(-1) ?? '';
    return fresh.join('\n');
  }

  /** Waits until the kernel has logged all of this; what it logged meanwhile. */
  async until(...patterns: RegExp[]): Promise<string> {
    for (let log = await this.news(); ; log += `\n${await this.news()}`) {
      if (patterns.every((pattern) => pattern.test(log))) return log;
      await sh(this.guest, 'sleep 0.2');
    }
  }

  /** Runs a case of amdgpu-fault; the address that it said it would fail at, if any. */
  async provoke(name: string): Promise<string> {
    const said = await sh(this.guest, `amdgpu-fault ${name}`);
    return /(?:mapped|only) at (0x[0-9a-f]{16})/.exec(said)?.[1] ?? '';
  }

  async stillWorks(): Promise<void> {
    await sh(this.guest, 'amdgpu-copy --bytes 64K');
  }
}

const VMC = '0x12 \\(VMC\\)';
const UTCL2 = '0x1b \\(UTCL2\\)';

function pageLine(address: string, client: string): RegExp {
  return new RegExp(`in page starting at address ${address} from IH client ${client}`);
}

/** Both directions by SDMA, a write by compute, a write to a page for reading: what, where, by whom. */
async function pageFaults(scene: Scene): Promise<void> {
  const sdma = await scene.provoke('sdma-page');
  const behind = `0x${(BigInt(sdma) + 4096n).toString(16).padStart(16, '0')}`;
  await scene.until(
    /\[mmhub0\] no-retry page fault \(src_id:0 ring:24 vmid:\d+ pasid:\d+\)/,
    /[Pp]rocess amdgpu-fault pid \d+/,
    pageLine(sdma, VMC),
    /Faulty UTCL2 client ID: SDMA0 \(0x100\)/,
    /PERMISSION_FAULTS: 0x3/,
    /\[mmhub0\] no-retry page fault \(src_id:0 ring:40 vmid:\d+ pasid:\d+\)/,
    pageLine(behind, VMC),
  );
  const compute = await scene.provoke('compute-page');
  await scene.until(
    /\[gfxhub0\] no-retry page fault \(src_id:0 ring:40 vmid:\d+ pasid:\d+\)/,
    pageLine(compute, UTCL2),
    /Faulty UTCL2 client ID: CPC \(0x5\)/,
    /PERMISSION_FAULTS: 0x5/,
    /RW: 0x1/,
  );
  const readOnly = await scene.provoke('read-only');
  await scene.until(pageLine(readOnly, VMC), /PERMISSION_FAULTS: 0x4/, /RW: 0x1/);
}

/** 7.3 is silent about a fault of nobody's process (kgd2kfd_vmfault_fast_path), but both answer the retry CAM. */
async function retryAnswered(scene: Scene, kernel: Kernel): Promise<void> {
  if (kernel === 'lts')
    await scene.until(/\[gfxhub0\] retry page fault \(src_id:0 ring:24 vmid:1 /, pageLine('0x0000000123456000', UTCL2));
  for (;;) {
    const { model } = await scene.emulator.stateOf('gpu0');
    if ((model as { interrupts: { retries: { waiting: number } } }).interrupts.retries.waiting === 0) return;
    await sh(scene.guest, 'sleep 0.2');
  }
}

/**
 * By command: a fault with retry; more vectors than the ring holds while no CPU reads them; interrupts that get lost.
 */
async function interruptsOnDemand(scene: Scene, kernel: Kernel, debugfs: string): Promise<void> {
  const { emulator, guest } = scene;
  const place = { hub: 'gfxhub', vmid: 1, address: '0x123456000' };
  const raised = await emulator.control('gpu0', 'page-fault', { ...place, retry: true });
  assert.deepEqual(raised, { reported: true });
  await retryAnswered(scene, kernel);

  await guest.qmp('stop');
  await emulator.control('gpu0', 'page-fault', { ...place, pages: MORE_THAN_THE_RING });
  await guest.qmp('cont');
  await scene.until(/ring buffer overflow/);
  await scene.stillWorks();

  await emulator.control('gpu0', 'lose-interrupts', { vectors: 2 ** 20 });
  await scene.provoke('read-only');
  await emulator.control('gpu0', 'lose-interrupts', {});
  await scene.until(/Fence fallback timer expired on ring sdma0/);
  await scene.stillWorks();

  // One lost message: the ring waits for its read pointer, and the CPU for a message. Only a reset cures it.
  await emulator.control('gpu0', 'lose-interrupts', { messages: 1 });
  await scene.provoke('read-only');
  await scene.until(/Fence fallback timer expired on ring sdma0/);
  await sh(guest, `cat ${debugfs}/amdgpu_gpu_recover`);
  await scene.until(/GPU reset\(\d+\) succeeded!/);
  await scene.stillWorks();
}

async function hangs(scene: Scene, kernel: Kernel): Promise<void> {
  const recovered = [
    /ring sdma0 timeout, signaled seq=\d+, emitted seq=\d+/,
    /psp mode1 reset/,
    /GPU reset\(\d+\) succeeded!/,
  ];
  await scene.provoke('sdma-hang');
  await scene.until(...recovered);
  await scene.stillWorks();

  await scene.provoke('compute-opcode');
  await scene.until(/Illegal opcode in command stream/, /ring comp_\S+ timeout/);
  // 6.12 gives compute jobs a minute.
  if (kernel === 'latest') await scene.provoke('compute-hang');
  await scene.stillWorks();
  await scene.news();

  await scene.emulator.control('gpu0', 'hang', { queue: 'sdma0 gfx' });
  await sh(scene.guest, 'amdgpu-copy --bytes 64K > /dev/null 2>&1 || true');
  await scene.until(...recovered);
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

async function everyFault(machine: TestMachine, kernel: Kernel): Promise<void> {
  const guest = await machine.boot();
  const scene = new Scene(guest, machine.emulator);
  const addresses = await guestAddresses(guest, machine.emulator);
  const debugfs = `/sys/kernel/debug/dri/${addresses.get('gpu0')}`;
  await sh(guest, 'modprobe amdgpu; mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug');
  assert.match(await sh(guest, `cat ${debugfs}/amdgpu_test_ib`), /ib ring tests passed/);
  await scene.news();

  await pageFaults(scene);
  await interruptsOnDemand(scene, kernel, debugfs);
  await hangs(scene, kernel);
  assert.match(await sh(guest, `cat ${debugfs}/amdgpu_test_ib`), /ib ring tests passed/);
  await assertCleanKernelLog(guest, PROVOKED);
  await removal(scene, addresses.get('gpu1')!);

  // First, since it names what tainted.
  await assertCleanKernelLog(guest, PULLED_OUT);
  assert.equal(await sh(guest, 'cat /proc/sys/kernel/tainted'), '0\n');
  const unexpected = machine.log.complaints.filter((line) => !EXPECTED_OF_THE_GPU.test(line));
  assert.deepEqual(unexpected, []);
  await guest.shutdown();
}

for (const kernel of KERNELS) {
  describe(`gpu faults, kernel ${kernel}`, () => {
    it('reports page faults, survives lost interrupts, hangs and a card that is pulled out', async () => {
      await withMachine({ kernel, devices: ['gpu', 'gpu'] }, (machine) => everyFault(machine, kernel));
    });
  });
}
