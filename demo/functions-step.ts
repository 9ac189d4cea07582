import type { DemoMachine } from './machine.js';

/**
 * Tainted by the example's driver, which is no part of Debian's kernel (kernel: TAINT_OOT_MODULE,
 * TAINT_UNSIGNED_MODULE).
 */
const EXAMPLE_DRIVER_TAINT = (1 << 12) | (1 << 13);

/** 1: the guest names all functions, and its own driver takes the GPUs. */
export async function showFunctions({ report, guest, emulator, sh }: DemoMachine): Promise<void> {
  report.step('1. The guest sees the functions, and the kernel’s own driver takes the GPUs.');
  const lspci = (await sh('lspci -nn')).split('\n');
  for (const { name, identity } of emulator.functions) {
    const hex = (value: number) => value.toString(16).padStart(4, '0');
    const id = `[${hex(identity.vendorId)}:${hex(identity.deviceId)}]`;
    const position = Number(/\d+$/.exec(name)?.[0] ?? 0);
    const line = lspci.filter((candidate) => candidate.includes(id))[position];
    if (line !== undefined) report.evidence(line);
    report.check(line !== undefined, `lspci names ${name}`);
  }
  const log = await guest.dmesg();
  const driverLines = log.split('\n').filter((line) => /\bamdgpu\b/.test(line));
  report.evidence(driverLines.filter((line) => /Fetched VBIOS|VRAM: .* used|Initialized/.test(line)));
  const bound = (await sh('ls -d /sys/bus/pci/drivers/amdgpu/0000:*')).trim().split('\n');
  report.evidence(bound);
  report.check(bound.length === 2, `amdgpu is bound to both GPUs, without a parameter: ${await kernelOf(sh)}`);
  const taint = Number(await sh('cat /proc/sys/kernel/tainted'));
  report.check(
    (taint & ~EXAMPLE_DRIVER_TAINT) === 0,
    'the kernel is not tainted but by the example’s driver, which is ours',
  );
}

async function kernelOf(sh: DemoMachine['sh']): Promise<string> {
  return (await sh('uname -rv')).trim();
}
