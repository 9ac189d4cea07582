/**
 * Peer-to-peer with a translating IOMMU in the guest. amdgpu maps a peer's VRAM with dma_map_resource
 * (amdgpu_vram_mgr.c amdgpu_vram_mgr_alloc_sgt), so the importer is given an IOVA, below a switch too. QEMU tells a
 * function no address for it: only a DMA message, which QEMU translates, gets there.
 */
import assert from 'node:assert/strict';
import { assertCleanKernelLog, sh, withMachine } from 'ghostbus/session';

const BYTES = 2 ** 20;
const GPUS = ['gpu,vram=256M', 'gpu,vram=256M'];

describe('peer-to-peer behind a translating IOMMU, kernel latest', () => {
  for (const [topology, peerRouting] of [
    ['root-ports', 'iommu'],
    ['switch', 'address'],
  ] as const) {
    it(`moves every byte of a dma-buf by DMA messages (${topology})`, async () => {
      // Restored, so that this is seen to go behind an IOMMU, too.
      const machine = { kernel: 'latest', devices: GPUS, peerRouting, warmAtOnce: true };
      await withMachine(machine, async ({ emulator, boot, log }) => {
        const guest = await boot({ viommu: true, topology });
        await sh(guest, 'modprobe amdgpu');
        await emulator.resetCounters();
        await sh(guest, `amdgpu-p2p --bytes ${BYTES}`);
        const { messages, peers } = (await emulator.stateOf('gpu1')).counters;
        assert.deepEqual([messages.bytesRead, messages.bytesWritten], [BYTES, BYTES]);
        assert.deepEqual(peers, {});
        await assertCleanKernelLog(guest);
        assert.deepEqual(log.complaints, []);
        await guest.shutdown();
      });
    });
  }
});
