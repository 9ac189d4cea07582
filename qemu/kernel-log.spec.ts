import assert from 'node:assert/strict';
import { findKernelComplaints, kernelModuleNames, sinceRestored } from './kernel-log.js';

describe('findKernelComplaints', () => {
  const cases: readonly (readonly [kind: string, line: string])[] = [
    ['panic', 'Kernel panic - not syncing: sysrq triggered crash'],
    ['oops', 'Oops: 0000 [#1] PREEMPT SMP NOPTI'],
    ['oops', 'BUG: kernel NULL pointer dereference, address: 0000000000000008'],
    ['oops', 'BUG: unable to handle page fault for address: ffffc90000a01000'],
    ['bug', 'kernel BUG at mm/slub.c:448!'],
    ['bug', 'UBSAN: array-index-out-of-bounds in drivers/gpu/drm/amd/x.c:1:2'],
    ['warning', 'WARNING: CPU: 1 PID: 77 at drivers/pci/msi/msi.c:1 pci_irq+0x1/0x2'],
    ['call trace', 'Call Trace:'],
    ['hung task', 'INFO: task modprobe:123 blocked for more than 120 seconds.'],
    ['stall', 'rcu: INFO: rcu_preempt self-detected stall on CPU'],
    ['stall', 'rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:'],
    ['stall', 'watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [modprobe:88]'],
    ['driver timeout', 'amdgpu 0000:01:00.0: amdgpu: ring sdma0 timeout, signaled seq=1, emitted seq=2'],
    ['driver timeout', 'mlx5_core 0000:03:00.0: wait_func:1194: MANAGE_PAGES timed out'],
    ['taint', 'example: loading out-of-tree module taints kernel.'],
    ['taint', 'module verification failed: signature and/or required key missing - tainting kernel'],
  ];
  for (const [kind, line] of cases) {
    it(`${kind}: ${line.slice(0, 60)}`, () => {
      assert.deepEqual(findKernelComplaints(`[    1.0] fine\n[    2.0] ${line}\n`), [
        { lineNumber: 2, line: `[    2.0] ${line}`, kind },
      ]);
    });
  }

  it('knows the modules among files by their names in the kernel', () => {
    const folder = '/usr/lib/modules/7.2.12+deb13-amd64';
    const paths = [`${folder}/extra/ghostbus-example.ko`, `${folder}/modules.dep.bin`, '/usr/local/bin/example-copy'];
    assert.deepEqual(kernelModuleNames(paths.map((path) => ({ path }))), ['ghostbus_example']);
  });

  it('finds nothing in an ordinary log', () => {
    const log = [
      '[    0.0] Linux version 7.2.12+deb13-amd64 (debian-kernel@lists.debian.org)',
      '[    0.5] workqueue: debugging is off',
      '[    0.6] rcu: Hierarchical RCU implementation.',
      '[    1.0] pcieport 0000:00:05.0: AER: enabled with IRQ 24',
      '[    2.0] CPU: 0 UID: 0 PID: 1 Comm: swapper Not tainted 7.2.12',
    ].join('\n');
    assert.deepEqual(findKernelComplaints(log), []);
  });

  it('lets through what is allowed, and only that', () => {
    const log = 'example: loading out-of-tree module taints kernel.\nWARNING: other\n';
    const allowed = [{ pattern: /out-of-tree module taints/, reason: 'the example driver is ours' }];
    assert.deepEqual(
      findKernelComplaints(log, allowed).map(({ kind }) => kind),
      ['warning'],
    );
  });
});

describe('the log of a run', () => {
  const boot = '[    1.0] Linux version 7.3\n[    9.0] WARNING: at boot\n';
  const run = '[   70.0] amdgpu: hello\n[   71.0] ghostbus: restored\n[   72.0] WARNING: later\n';

  it('is all of it where the machine was booted', () => {
    assert.equal(sinceRestored(boot), boot);
  });

  it('begins where the machine was restored, whatever is written there later', () => {
    assert.equal(sinceRestored(`${boot}[   69.0] ghostbus: restored\n${run}`), run);
    assert.equal(sinceRestored(`${boot}[   69.0] ghostbus: restored`), '');
  });
});
