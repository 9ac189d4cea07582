/**
 * What the dma-buf matrix does not show by itself: buffers that move, exporters that die, fences, memory without pages, many at once.
 * One guest for all; a failed test may take those behind it along. On 6.12 much is different: dmabuf-behaviour-lts.spec.ts.
 */
import assert from 'node:assert/strict';
import {
  amdgpu,
  BehaviourGuest,
  fencesAndManyBuffers,
  killedExporter,
  MIB,
  type NamedExporter,
  PATIENCE_S,
  resetGpu,
  structPages,
  udmabuf,
  unboundAmdgpu,
  unboundHabana,
  useGuest,
} from './dmabuf-behaviour.js';

describe('behaviour of dma-bufs, kernel latest, iommu=pt', () => {
  const scene = new BehaviourGuest();
  const gpu = amdgpu(scene);
  const habana: NamedExporter = { name: 'habanalabs', command: () => 'export-hbm 0' };
  const bar: NamedExporter = { name: 'vfio-pci', command: () => `export-bar ${scene.address('example0')} 2` };

  useGuest(scene, 'latest', 'iommu-pt');

  it('move_notify: a memory region faults when its VRAM buffer has moved, is filled again, and no byte is stale', async () => {
    for (let round = 1; round <= 3; round++) {
      const before = await scene.pageFaults();
      const lines = await scene.run(`${gpu.command()} ${4 * MIB} follow-move ${scene.adapters} ${4 * MIB}`);
      assert.deepEqual(
        lines.map(({ step, wrong, finished }) => finished ?? `${step}: ${wrong}`),
        ['before: 0', 'before: 0', 'while it moves: 0', 'after: 0', 'after: 0', true],
      );
      assert.ok((await scene.pageFaults()) > before, 'the buffer did not move');
    }
  });

  fencesAndManyBuffers(scene, { imported: 'VRAM' });

  it('two dma-bufs of the same memory serve two importers at once', async () => {
    const lines = await scene.run(
      `export-hbm --twice 0 1048576 import-twice ${scene.address('gpu1')} ${scene.adapters} 1M 10`,
    );
    assert.deepEqual(lines, [{ step: 'both', bytes: MIB, wrong: 0 }, { finished: true }]);
    assert.deepEqual((await scene.transfer('gpu1', 'habana0'))?.bytesWritten, 10 * MIB);
    assert.deepEqual((await scene.transfer('rdma0p0', 'habana0'))?.bytesRead, 10 * MIB);
  });

  structPages(scene, [
    [gpu, false],
    [habana, false],
    [bar, false],
    [udmabuf, true],
  ]);

  killedExporter(scene, gpu);
  killedExporter(scene, habana);

  it("while an adapter writes, the exporter's process is killed: vfio-pci revokes the BAR, and not one byte follows", async () => {
    const { status } = await scene.disturb(`${bar.command()} 65536`, PATIENCE_S, 'kill -9 $exporter');
    assert.notEqual(status, 'success');
    const written = (await scene.transfer('rdma0p0', 'example0'))!.bytesWritten;
    await scene.sh(`${bar.command()} 65536 true`);
    assert.equal((await scene.transfer('rdma0p0', 'example0'))!.bytesWritten, written);
  });

  resetGpu(scene);

  unboundHabana(scene);
  unboundAmdgpu(scene);
});
