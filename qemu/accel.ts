import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cachedFolder } from './cache.js';
import type { Qemu } from './provision.js';

const probeTimeoutMs = 10_000;
/** A new one each time that this host starts (random(4)). */
const HOST_BOOT_ID = '/proc/sys/kernel/random/boot_id';
const probed = new Map<string, Promise<boolean>>();

/**
 * Whether a kernel really runs under KVM here. That /dev/kvm exists, and that firmware runs, is not enough:
 * nested KVM may stop at the first instruction that it cannot emulate. So the kernel is started without
 * anything else until it prints its first line.
 */
export function kvmRunsKernel(qemu: Qemu, kernelPath: string): Promise<boolean> {
  const key = `${qemu.command.join(' ')} ${kernelPath}`;
  const known = probed.get(key);
  if (known !== undefined) return known;
  const result = rememberedProbe(qemu, kernelPath);
  probed.set(key, result);
  return result;
}

async function rememberedProbe(qemu: Qemu, kernelPath: string): Promise<boolean> {
  const usable = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!usable) return false;
  const hostBoot = await readFile(HOST_BOOT_ID, 'latin1');
  const { size, mtimeMs } = await stat(kernelPath);
  const inputs = { recipe: 1, command: qemu.command, version: qemu.version, kernelPath, size, mtimeMs, hostBoot };
  const folder = await cachedFolder(
    'kvm',
    inputs,
    async (target) => {
      await writeFile(join(target, 'runs'), String(await probeKvm(qemu, kernelPath)));
    },
    { description: 'whether this host runs guests with KVM' },
  );
  return (await readFile(join(folder, 'runs'), 'latin1')) === 'true';
}

async function probeKvm(qemu: Qemu, kernelPath: string): Promise<boolean> {
  const [program, ...leading] = qemu.command;
  const machine = [
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    '-machine',
    'q35',
    '-accel',
    'kvm',
    '-cpu',
    'host',
  ];
  const kernel = [
    '-m',
    '512M',
    '-serial',
    'stdio',
    '-kernel',
    kernelPath,
    '-append',
    'console=ttyS0 earlyprintk=ttyS0',
  ];
  const args = ['--pdeathsig', 'KILL', '--', program, ...leading, ...machine, ...kernel];
  return new Promise((resolve) => {
    const child = spawn('setpriv', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), probeTimeoutMs);
    let printed = '';
    const judge = (chunk: Buffer) => {
      printed += chunk.toString('latin1');
      if (printed.includes('Linux version') || printed.includes('KVM internal error')) child.kill('SIGKILL');
    };
    child.stdout.on('data', judge);
    child.stderr.on('data', judge);
    child.on('error', () => {});
    child.on('close', () => {
      clearTimeout(timer);
      resolve(printed.includes('Linux version'));
    });
  });
}
