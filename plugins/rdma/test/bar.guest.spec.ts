/**
 * A BAR that vfio-pci exports as a dma-buf (drivers/vfio/pci/vfio_pci_dmabuf.c, CONFIG_VFIO_PCI_DMABUF, since 6.19) as
 * a memory region of the adapter. vfio-pci needs an IOMMU: Debian builds neither CONFIG_VFIO_NOIOMMU nor
 * CONFIG_IOMMUFD.
 */
import assert from 'node:assert/strict';
import { assertCleanKernelLog, type Emulator, type Guest, guestAddresses, sh, withMachine } from 'ghostbus/session';
import { bytesMoved, driverReady, GUEST_SCRIPTS, portsActive, RDMA_GUEST, rdmaDeviceNames } from './guest-kit.js';

const EXPORTER = 'example0';
const MEMORY_BAR = 2;

/** Takes the exporter from whatever driver it has and gives it to vfio-pci; the address it is bound at. */
async function bindToVfio(guest: Guest, emulator: Emulator): Promise<string> {
  const address = (await guestAddresses(guest, emulator)).get(EXPORTER)!;
  await sh(
    guest,
    `modprobe vfio-pci; modprobe vfio_iommu_type1
      echo vfio-pci > /sys/bus/pci/devices/${address}/driver_override
     echo ${address} > /sys/bus/pci/drivers_probe
     [ "$(basename $(readlink -f /sys/bus/pci/devices/${address}/driver))" = vfio-pci ]`,
  );
  return address;
}

describe('rdma and a BAR exported by vfio-pci, kernel latest', () => {
  for (const { name, kernelArgs, way } of [
    { name: 'iommu=pt: by address', kernelArgs: ['iommu=pt'], way: 'peer' },
    { name: 'translated: by DMA messages', kernelArgs: [], way: 'messages' },
  ] as const) {
    it(`reaches it by WRITE, READ, atomics and SEND, byte for byte, and not while it is revoked (${name})`, async () => {
      await withMachine(
        { kernel: 'latest', devices: ['example', 'rdma'], ...RDMA_GUEST, peerRouting: 'iommu' },
        async ({ boot, emulator }) => {
          const guest = await boot({
            blockedModules: ['ghostbus_example'],
            viommu: true,
            kernelArgs,
            shareDir: GUEST_SCRIPTS,
          });
          await driverReady(guest, 1);
          await portsActive(guest, 1);
          const address = await bindToVfio(guest, emulator);
          const [device] = await rdmaDeviceNames(guest);
          await emulator.resetCounters();
          const output = await sh(
            guest,
            `python3 -B /mnt/share/rdma-dmabuf.py ${device} ${device} vfio ${address} ${MEMORY_BAR}`,
          );
          const { peers, messages } = (await emulator.stateOf('rdma0')).counters;
          assert.deepEqual(way === 'peer' ? peers[EXPORTER] : messages, bytesMoved(output));
          await assertCleanKernelLog(guest);
          await guest.shutdown();
        },
      );
    });
  }
});
