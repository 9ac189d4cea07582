/** The Gaudi's memory as a dma-buf of other functions' stock drivers: `npm run test:guest`. */
import assert from 'node:assert/strict';
import { OUR_MODULE, passes, withHabana } from './habana-kit.js';
import { assertCleanKernelLog } from './support.js';

const BYTES = 4 * 2 ** 20;
const SEED = 4711;
const WITH_GPU = `modprobe amdgpu; hl-export ${BYTES} amdgpu-import 3 ${BYTES} ${SEED}`;

describe('habana peer-to-peer', () => {
  it('latest: the GPU imports HBM and copies both ways, and exactly those bytes go from peer to peer', async () => {
    await withHabana('latest', ['habana', 'gpu'], async ({ emulator }, guest) => {
      await passes(guest, WITH_GPU);
      const peers = (await emulator.stateOf('gpu0')).counters.peers.habana0;
      assert.deepEqual([peers?.bytesRead, peers?.bytesWritten], [BYTES, BYTES]);
      await assertCleanKernelLog(guest, [OUR_MODULE]);
    });
  });

  it('lts: the driver refuses to map its memory for a peer', async () => {
    await withHabana('lts', ['habana', 'gpu'], async ({ emulator }, guest) => {
      const { exitCode, stdout, stderr } = await guest.capture(['sh', '-c', WITH_GPU]);
      assert.equal(exitCode, 2, `${stdout}${stderr}`);
      assert.equal((await emulator.stateOf('gpu0')).counters.peers.habana0, undefined);
    });
  });
});
