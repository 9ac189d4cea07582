/** The GPU's engines and memory under the stock amdgpu driver: our own programs, and IGT's as Debian packages them. */
import assert from 'node:assert/strict';
import { assertCleanKernelLog, type Guest, KERNELS, sh, type TestMachine, withMachine } from 'ghostbus/session';

const MIB = 2 ** 20;
/** Little VRAM and much memory behind it: eviction then takes seconds, and everything that is evicted fits. */
const DEVICE = 'gpu,vram=256M';
const GUEST_MIB = 3072;
const VRAM_BYTES = 256 * MIB;
const PRESSURE_BYTES = 2 * VRAM_BYTES;

/** Only forky has IGT's tests; the others are what its packages want newer than trixie's. */
const IGT_PACKAGES = [
  'igt-gpu-tools-tests/forky',
  'igt-gpu-tools/forky',
  'intel-gpu-tools/forky',
  'libdrm-amdgpu1/forky',
  'libxv1/forky',
];

/** IGT's subtests that the driver or the test itself leaves out here. Whatever is not listed must succeed. */
const SKIPPED: readonly (readonly [subtest: RegExp, reason: string])[] = [
  [/GFX|gfx/, 'this ASIC has no graphics ring'],
  [/UMQ|-UQ-/, 'queues that user space maps through DRM came with GC 11'],
];

interface IgtRun {
  readonly program: string;
  /** As --run-subtest takes it; default: all. */
  readonly subtests?: string;
  /** What is left out, and why. */
  readonly because?: string;
}

const IGT_RUNS: readonly IgtRun[] = [
  {
    program: 'amd_info',
    subtests: 'query-firmware-version,query-timestamp-while-idle',
    because:
      'query-timestamp asks for 1 % over 10 ms, of which the three trapped accesses of one query take more under TCG; ' +
      'while-idle compares the same clocks over 7 s',
  },
  { program: 'amd_bo' },
  { program: 'amd_basic' },
  {
    program: 'amd_cs_nop',
    subtests: 'cs-nops-with-sync-fork-compute0',
    because:
      'each of its four loops over the compute rings takes 21 s and submits the same; this one has two processes',
  },
  { program: 'amd_vm' },
  { program: 'amd_cp_dma_misc' },
];

/** Runs one of IGT's programs; what went otherwise than expected, with all that it said. */
async function igtProblems(guest: Guest, { program, subtests }: IgtRun): Promise<string[]> {
  const filter = subtests === undefined ? '' : `--run-subtest ${subtests}`;
  const script = `cd /usr/libexec/igt-gpu-tools/amdgpu; IGT_FORCE_DRIVER=amdgpu NO_COLOR=1 ./${program} ${filter}`;
  const { exitCode, stdout, stderr } = await guest.capture(['sh', '-c', script]);
  const said = `${stdout}\n${stderr}`;
  const results = [...said.matchAll(/^Subtest (\S+): ([A-Z]+)/gm)].map(([, name, result]) => ({ name: name!, result }));
  const problems = results.flatMap(({ name, result }) => {
    const expected = SKIPPED.some(([pattern]) => pattern.test(name)) ? 'SKIP' : 'SUCCESS';
    return result === expected ? [] : [`subtest ${name}: ${result}, expected ${expected}`];
  });
  if (!results.some(({ result }) => result === 'SUCCESS')) problems.push('nothing succeeded');
  if (exitCode !== 0) problems.push(`exit status ${exitCode}`);
  return problems.length === 0 ? [] : [`${program}: ${problems.join(', ')}\n${said}`];
}

/**
 * Buffers of twice the VRAM displace each other: what does not fit must have left through the function's DMA, and come
 * back.
 */
async function memoryProblems({ emulator }: TestMachine, guest: Guest): Promise<string[]> {
  await emulator.resetCounters();
  const { exitCode, stdout, stderr } = await guest.capture(['amdgpu-memory', '--total', `${PRESSURE_BYTES / MIB}M`]);
  if (exitCode !== 0) return [`amdgpu-memory:\n${stdout}\n${stderr}`];
  const { bytesWritten, bytesRead } = (await emulator.stateOf('gpu0')).counters.guestMemory;
  const enough = bytesWritten >= PRESSURE_BYTES - VRAM_BYTES && bytesRead >= PRESSURE_BYTES;
  return enough ? [] : [`the GPU wrote ${bytesWritten} and read ${bytesRead} bytes of guest memory`];
}

for (const kernel of KERNELS) {
  describe(`gpu engines with the stock driver, kernel ${kernel}`, () => {
    it("passes the driver's ring tests, our memory program and IGT", async () => {
      await withMachine({ kernel, devices: [DEVICE], packages: IGT_PACKAGES }, async (machine) => {
        const guest = await machine.boot({ memMiB: GUEST_MIB });
        await sh(guest, 'modprobe amdgpu; mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug');
        assert.match(await sh(guest, 'cat /sys/kernel/debug/dri/0000:*/amdgpu_test_ib'), /ib ring tests passed/);
        const problems = await memoryProblems(machine, guest);
        for (const run of IGT_RUNS) problems.push(...(await igtProblems(guest, run)));
        assert.deepEqual(problems, []);
        assert.equal(await sh(guest, 'cat /proc/sys/kernel/tainted'), '0\n');
        await assertCleanKernelLog(guest);
        assert.deepEqual(machine.log.complaints, []);
        await guest.shutdown();
      });
    });
  });
}
