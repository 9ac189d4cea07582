import { posix } from 'node:path';
import type { GuestFile } from '../emulator/plugin/guest.js';

export interface AllowedComplaint {
  pattern: RegExp;
  /** Why this line is harmless. */
  reason: string;
}

export interface KernelComplaint {
  /** From 1. */
  lineNumber: number;
  line: string;
  /** `panic`, `oops`, `stall`, `bug`, `warning`, `call trace`, `hung task`, `lockdep`, `driver timeout` or `taint`. */
  kind: string;
}

// What the kernel prints: kernel/panic.c __warn, lib/bug.c, arch/x86/kernel/dumpstack.c,
// kernel/hung_task.c, kernel/rcu/tree_stall.h, kernel/watchdog.c, mm/kasan, kernel/module/main.c
// (taint), lib/ubsan.c, kernel/locking/lockdep.c.
const complaintPatterns: readonly (readonly [kind: string, pattern: RegExp])[] = [
  ['panic', /Kernel panic/],
  ['oops', /\bOops\b|general protection fault|unable to handle (?:kernel|page fault)|kernel NULL pointer/],
  ['stall', /rcu.*(?:detected stalls|self-detected stall)|soft lockup|hard LOCKUP/],
  ['bug', /\bBUG: |kernel BUG at|UBSAN:|KASAN:|KFENCE:/],
  ['warning', /\bWARNING: /],
  ['call trace', /\bCall Trace:/],
  ['hung task', /blocked for more than \d+ seconds/],
  ['lockdep', /possible (?:recursive|circular) locking|suspicious RCU usage|bad unlock balance/],
  ['driver timeout', /\btime(?:d |-)?out\b/i],
  ['taint', /\btaint(?:s|ing) kernel\b|\bTainted: /],
];

/** What sounds like a complaint of any guest's kernel and is none. */
export const SLOW_HOST: AllowedComplaint = {
  pattern: /clocksource: .*(Watchdog remote CPU \d+ read timed out|timekeeping watchdog)/,
  reason: 'kernel/time/clocksource.c compares clocks across virtual CPUs, one of which the host did not run meanwhile',
};

/** Of the `.ko` files among these; a name has underscores in the kernel (scripts/Makefile.lib, `name-fix`). */
export function kernelModuleNames(files: readonly Pick<GuestFile, 'path'>[]): string[] {
  return files
    .map(({ path }) => posix.basename(path))
    .filter((name) => name.endsWith('.ko'))
    .map((name) => name.slice(0, -'.ko'.length).replaceAll('-', '_'));
}

/**
 * Lines of a kernel log that a clean run must not have, less those that match `allowed`. Each
 * line is named once, by the first kind that fits.
 */
export function findKernelComplaints(dmesg: string, allowed: readonly AllowedComplaint[] = []): KernelComplaint[] {
  const complaints: KernelComplaint[] = [];
  dmesg.split('\n').forEach((line, index) => {
    const kind = complaintPatterns.find(([, pattern]) => pattern.test(line))?.[0];
    if (kind === undefined || allowed.some(({ pattern }) => pattern.test(line))) return;
    complaints.push({ lineNumber: index + 1, line, kind });
  });
  return complaints;
}

/** What `guest-root/usr/local/lib/ghostbus/wake` writes into the kernel's log. */
const RESTORED = 'ghostbus: restored';

/** The part of a kernel log that belongs to this run: all of it, or what follows the machine's being restored. */
export function sinceRestored(dmesg: string): string {
  const lines = dmesg.split('\n');
  return lines.slice(lines.findIndex((line) => line.endsWith(RESTORED)) + 1).join('\n');
}
