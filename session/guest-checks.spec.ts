import assert from 'node:assert/strict';
import { assertCleanKernelLog } from './guest-checks.js';

const guestWith = (addedModules: readonly string[], ...lines: string[]) => ({
  addedModules,
  dmesg: async () => `${lines.join('\n')}\n`,
});

describe('assertCleanKernelLog', () => {
  for (const line of [
    '[    4.2] ghostbus_example: loading out-of-tree module taints kernel.',
    '[    4.2] ghostbus_example: module verification failed: signature and/or required key missing - tainting kernel',
    'ghostbus_example: loading out-of-tree module taints kernel.',
  ]) {
    it(`allows a module that was built for this guest, and no other: ${line}`, async () => {
      await assertCleanKernelLog(guestWith(['other', 'ghostbus_example'], line));
      for (const modules of [[], ['example'], ['ghostbus'], ['amdgpu', 'mlx5_core']]) {
        await assert.rejects(assertCleanKernelLog(guestWith(modules, line)), /kernel complained:\n.*ghostbus_example/);
      }
    });
  }

  it('allows nothing else of a module that was built for this guest', async () => {
    const guest = guestWith(['ghostbus_example'], 'ghostbus_example: unsafe option - tainting kernel');
    await assert.rejects(assertCleanKernelLog(guest), /unsafe option/);
  });

  it('allows what a busy host causes, and what the test gives a reason for', async () => {
    const slow = 'clocksource: Watchdog remote CPU 1 read timed out';
    await assertCleanKernelLog(guestWith([], slow));
    const provoked = guestWith([], slow, 'WARNING: provoked');
    await assert.rejects(assertCleanKernelLog(provoked), /complained:\nWARNING: provoked$/m);
    await assertCleanKernelLog(provoked, [{ pattern: /provoked/, reason: 'by this test' }]);
  });
});
