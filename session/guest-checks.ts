/** What tests ask of a guest: that a script succeeds, that the kernel had nothing to complain about. */
import assert from 'node:assert/strict';
import { type AllowedComplaint, findKernelComplaints, type Guest, SLOW_HOST } from '../qemu/index.js';

/** Runs a shell script in the guest; fails with its output unless it exits with 0. Resolves with standard output. */
export async function sh(guest: Pick<Guest, 'capture'>, script: string): Promise<string> {
  const { exitCode, signal, stdout, stderr } = await guest.capture(['sh', '-euc', script]);
  assert.equal(
    exitCode,
    0,
    `guest script ended with ${exitCode ?? `signal ${signal}`}:\n${script}\n${stdout}\n${stderr}`,
  );
  return stdout.toString();
}

/** What sounds like a complaint of this guest's kernel and is none, whatever its devices. */
export function harmlessComplaints({ addedModules }: Pick<Guest, 'addedModules'>): AllowedComplaint[] {
  const reason = 'this module was built for this guest, outside the kernel, and is not signed';
  const added = addedModules.map((name) => ({
    pattern: new RegExp(`(^|\\s)${name}: (loading out-of-tree module|module verification failed)`),
    reason,
  }));
  return [SLOW_HOST, ...added];
}

/** Fails when the guest's kernel complained about anything that is not allowed with a reason. */
export async function assertCleanKernelLog(
  guest: Pick<Guest, 'dmesg' | 'addedModules'>,
  allowed: readonly AllowedComplaint[] = [],
): Promise<void> {
  const complaints = findKernelComplaints(await guest.dmesg(), [...harmlessComplaints(guest), ...allowed]);
  assert.deepEqual(complaints, [], `the guest's kernel complained:\n${complaints.map(({ line }) => line).join('\n')}`);
}
