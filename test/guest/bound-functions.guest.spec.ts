/** What becomes of a boot in which a driver does not take its function. */
import assert from 'node:assert/strict';
import { DriverNotBoundError, sh, withMachine } from 'ghostbus/session';

describe('a driver that does not take its function, kernel latest', () => {
  it('ends the boot with the kernel’s words, unless it is kept from loading or may refuse', async () => {
    // It wants MSI-X, which such a kernel does not give.
    const kernelArgs = ['pci=nomsi'];
    await withMachine({ devices: ['example'], kernelArgs }, async ({ boot }) => {
      await assert.rejects(boot(), (error) => {
        assert.ok(error instanceof DriverNotBoundError, `${error}`);
        assert.match(error.message, /^ghostbus_example did not take example0 \(0000:01:00\.0, 1234:6762\)\.\n/);
        assert.match(error.message, /0000:01:00\.0: .*probe.* failed with error -\d+/);
        return true;
      });
      const blocked = await boot({ blockedModules: ['ghostbus_example'] });
      await sh(blocked, '[ ! -e /sys/bus/pci/devices/0000:01:00.0/driver ]');
      await blocked.kill();
      const refusing = await boot({ expectBound: false });
      await sh(refusing, '[ -e /sys/module/ghostbus_example ] && [ ! -e /sys/bus/pci/devices/0000:01:00.0/driver ]');
    });
  });
});
