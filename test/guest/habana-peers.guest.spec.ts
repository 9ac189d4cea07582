/** The Gaudi's memory as a dma-buf of other functions' stock drivers: `npm run test:guest`. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { assertCleanKernelLog, type Guest, sh } from 'ghostbus/session';
import { passes, withHabana } from '../../plugins/habana/test/guest-kit.js';
import {
  bytesMoved,
  driverReady,
  portsActive,
  RDMA_GUEST,
  rdmaDeviceNames,
} from '../../plugins/rdma/test/guest-kit.js';

const DEVICES = ['habana', 'gpu', 'rdma,functions=2'];
const OPTIONS = {
  ...RDMA_GUEST,
  boot: { shareDir: fileURLToPath(new URL('../../../plugins/rdma/test', import.meta.url)) },
};
const BYTES = 4 * 2 ** 20;
const SEED = 4711;
const WITH_GPU = `modprobe amdgpu; hl-export ${BYTES} amdgpu-import 3 ${BYTES} ${SEED}`;
/** SIZE of dmabuf_sources.py. */
const RDMA_BYTES = 2 ** 20;

/** The command that lets the adapters move bytes to and from HBM. */
async function withAdapters(guest: Guest): Promise<string> {
  await driverReady(guest, 2);
  await portsActive(guest, 2);
  const names = (await rdmaDeviceNames(guest)).join(' ');
  return `hl-window ${RDMA_BYTES} python3 /mnt/share/rdma-dmabuf.py ${names} hbm`;
}

describe('habana peer-to-peer', () => {
  it('latest: GPU and adapter import HBM and move bytes both ways, and exactly those go from peer to peer', async () => {
    await withHabana(
      'latest',
      DEVICES,
      async ({ emulator }, guest) => {
        await passes(guest, WITH_GPU);
        const gpu = (await emulator.stateOf('gpu0')).counters.peers.habana0;
        assert.deepEqual([gpu?.bytesRead, gpu?.bytesWritten], [BYTES, BYTES]);
        const moved = bytesMoved(await sh(guest, await withAdapters(guest)));
        const adapter = emulator.functions.find(({ name }) => name.startsWith('rdma'))!;
        assert.deepEqual((await emulator.stateOf(adapter.name)).counters.peers.habana0, moved);
        await assertCleanKernelLog(guest);
      },
      OPTIONS,
    );
  });

  it('lts: the driver refuses to map its memory for a peer', async () => {
    await withHabana(
      'lts',
      DEVICES,
      async ({ emulator }, guest) => {
        const gpu = await guest.capture(['sh', '-c', WITH_GPU]);
        assert.equal(gpu.exitCode, 2, `${gpu.stdout}${gpu.stderr}`);
        // hl_map_dmabuf returns -EPERM when the importer got no peer-to-peer attachment;
        // ibv_reg_dmabuf_mr() hands it on.
        const adapter = await guest.capture(['sh', '-c', await withAdapters(guest)]);
        assert.equal(adapter.exitCode, 1, `${adapter.stdout}${adapter.stderr}`);
        assert.match(adapter.stderr.toString(), /Failed to register a dma-buf MR.*Errno: 1, Operation not permitted/);
        for (const { name } of emulator.functions) {
          if (name !== 'habana0') assert.equal((await emulator.stateOf(name)).counters.peers.habana0, undefined);
        }
        await assertCleanKernelLog(guest);
      },
      OPTIONS,
    );
  });
});
