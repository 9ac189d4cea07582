import type { DemoMachine } from './machine.js';

/** 4: the example engine's DMA writes the GPU's doorbell, and the GPU's ring starts without the CPU. */
export async function ringDoorbell({ report, emulator, guest, sh }: DemoMachine): Promise<void> {
  report.step(
    '4. The example engine’s DMA is aimed at the first GPU’s doorbell page: a ring of the GPU starts without the CPU.',
  );
  await sh('modprobe ghostbus_example');
  await emulator.resetCounters();
  const gpu = (await sh('ls -d /sys/bus/pci/drivers/amdgpu/0000:* | head -n 1')).trim().split('/').pop()!;
  const argv = ['amdgpu-user-queue', '--gpu', gpu, '--', 'example-copy', 'poke', '/dev/ghostbus-example0'];
  const { exitCode, stdout, stderr } = await guest.capture(argv, { timeoutMs: 60_000 });
  report.evidence(stdout.toString());
  if (stderr.length > 0) report.evidence(stderr.toString());
  report.check(
    exitCode === 0,
    'the ring stood still until the engine rang, then filled 1 MiB of VRAM and signalled its fence',
  );
  const { counters } = await emulator.stateOf('example0');
  const writes = counters.peers.gpu0?.registerWrites ?? 0;
  report.evidence(`example0 to gpu0: ${writes} register write(s)`);
  report.check(writes === 1, 'the fabric counted exactly one doorbell from example0 to gpu0');
}
