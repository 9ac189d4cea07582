import assert from 'node:assert/strict';
import {
  assertCleanKernelLog,
  type Emulator,
  type Guest,
  guestAddresses,
  KERNELS,
  sh,
  withMachine,
} from 'ghostbus/session';
import { UNBINDING } from '../../plugins/habana/test/guest-kit.js';
import { topologies } from '../../qemu/index.js';

const DEVICES = ['gpu', 'habana', 'rdma', 'example'];

/** Every BAR of a function as the guest's kernel placed it: start, end, flags. */
const resources = (address: string) => `cat /sys/bus/pci/devices/${address}/resource`;

for (const kernel of KERNELS) {
  describe(`every function's life, kernel ${kernel}`, () => {
    for (const topology of topologies) {
      it(`boots behind ${topology}, with configuration space that lspci finds nothing odd in`, async () => {
        await withMachine({ kernel, devices: DEVICES, warmAtOnce: true }, async ({ emulator, boot, log }) => {
          // Only a boot shows that the firmware finds the functions, and drivers that are loaded for them.
          const guest = await boot({ topology, warm: undefined });
          const booted = await guestAddresses(guest, emulator);
          for (const [name, address] of booted) {
            const text = await sh(guest, `lspci -vvv -s ${address} 2>&1`);
            assert.doesNotMatch(text, /chain looped|!!!|unknown header|access denied|pcilib:/i, `${name}:\n${text}`);
            assert.match(text, /Capabilities: \[[0-9a-f]+\] Express/, name);
          }
          for (const state of await emulator.state()) {
            assert.equal(state.connected, true);
            assert.equal(state.broken, undefined);
          }
          await assertCleanKernelLog(guest, [UNBINDING]);
          await guest.shutdown();
          if (kernel === 'latest') {
            const restored = await boot({ topology });
            assert.deepEqual(
              await guestAddresses(restored, emulator),
              booted,
              'restored, they have the same addresses',
            );
            await assertCleanKernelLog(restored, [UNBINDING]);
            await restored.shutdown();
          }
          assert.deepEqual(log.complaints, []);
        });
      });
    }

    it('survives remove and rescan, unbind, FLR, reboot, reset and hot-plug', async () => {
      await withMachine({ kernel, devices: DEVICES }, async ({ emulator, boot, log }) => {
        const guest = await boot();
        const before = await guestAddresses(guest, emulator);
        for (const [name, address] of before) {
          const device = `/sys/bus/pci/devices/${address}`;
          const placed = await sh(guest, resources(address));
          await sh(guest, `[ ! -e ${device}/driver ] || echo ${address} > ${device}/driver/unbind`);
          await sh(
            guest,
            `grep -qw flr ${device}/reset_method; echo flr > ${device}/reset_method; echo 1 > ${device}/reset`,
          );
          assert.equal(await sh(guest, resources(address)), placed, `${name}: BARs after an FLR`);
          await sh(
            guest,
            `echo 1 > ${device}/remove; [ ! -e ${device} ]; echo 1 > /sys/bus/pci/rescan; [ -e ${device} ]`,
          );
          assert.equal(
            (await sh(guest, resources(address))).split('\n').length,
            placed.split('\n').length,
            `${name}: BARs after a rescan`,
          );
          assert.equal((await emulator.stateOf(name)).broken, undefined);
        }
        await assertCleanKernelLog(guest, [UNBINDING]);
        for (const how of ['guest', 'reset'] as const) {
          await guest.reboot(how);
          assert.deepEqual(await guestAddresses(guest, emulator), before, `after a reboot by ${how}`);
          await assertCleanKernelLog(guest, [UNBINDING]);
        }
        await unplugAndPlug(guest, emulator, before, 'MSI');
        await assertCleanKernelLog(guest, [UNBINDING]);
        assert.deepEqual(log.complaints, []);
        await guest.shutdown();
      });
    });

    it('hot-plugs functions with MSI-X as far as QEMU can', async () => {
      await withMachine({ kernel, devices: DEVICES }, async ({ emulator, boot }) => {
        const guest = await boot();
        const before = await guestAddresses(guest, emulator);
        try {
          await unplugAndPlug(guest, emulator, before, 'MSI-X');
        } catch (error) {
          // hw/vfio-user/pci.c vfio_user_instance_finalize (11.1.3): takes the pending-bit region out of a BAR that is
          // gone already, so device_del of any vfio-user function with MSI-X aborts QEMU. No server can prevent it.
          assert.match(
            String((error as Error).message),
            /memory_region_del_subregion: Assertion .subregion->container == mr/,
          );
        }
        await guest.kill();
        const next = await boot();
        await guestAddresses(next, emulator);
        await next.kill();
      });
    });

    it('is ready for the next QEMU whenever one is killed', async () => {
      await withMachine({ kernel, devices: DEVICES }, async ({ emulator, boot, log }) => {
        for (const afterMs of [50, 400, 1500, 4000]) {
          const abort = new AbortController();
          const timer = setTimeout(() => abort.abort(), afterMs);
          await boot({ abort: abort.signal }).then(
            (guest) => guest.kill(),
            () => undefined,
          );
          clearTimeout(timer);
        }
        const guest = await boot();
        await guestAddresses(guest, emulator);
        await assertCleanKernelLog(guest, [UNBINDING]);
        assert.deepEqual(log.complaints, []);
        await guest.kill();
      });
    });
  });
}

/**
 * Takes every function with that kind of interrupt out of the machine, puts it in again elsewhere, and takes it out.
 */
async function unplugAndPlug(
  guest: Guest,
  emulator: Emulator,
  addresses: ReadonlyMap<string, string>,
  interrupts: 'MSI' | 'MSI-X',
): Promise<void> {
  for (const { name, socketPath, identity } of emulator.functions) {
    const address = addresses.get(name)!;
    const device = `/sys/bus/pci/devices/${address}`;
    const kind = /MSI-X: /.test(await sh(guest, `lspci -vv -s ${address}`)) ? 'MSI-X' : 'MSI';
    if (kind !== interrupts) continue;
    const present = `lspci -d ${identity.vendorId.toString(16)}:${identity.deviceId.toString(16)}`;
    await sh(guest, `[ ! -e ${device}/driver ] || echo ${address} > ${device}/driver/unbind`);
    await guest.unplug(name);
    assert.equal(await sh(guest, present), '', `${name} is gone`);
    await guest.plug({ id: name, socketPath });
    await sh(guest, `for i in $(seq 600); do [ -z "$(${present})" ] || exit 0; sleep 0.1; done; exit 1`);
    assert.equal((await emulator.stateOf(name)).connected, true);
    await guest.unplug(name);
  }
}
