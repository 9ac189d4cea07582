/**
 * What is left of dmabuf-behaviour.spec.ts on 6.12, which Debian builds without CONFIG_PCI_P2PDMA and
 * CONFIG_DMABUF_MOVE_NOTIFY: amdgpu stages its VRAM in system memory, which stays pinned there as long as it is
 * mapped. habanalabs and vfio-pci do not export to these importers at all (matrix/expectation.ts). One guest for all;
 * a failed test may take those behind it along.
 */
import assert from 'node:assert/strict';
import {
  amdgpu,
  BehaviourGuest,
  fencesAndManyBuffers,
  killedExporter,
  MIB,
  resetGpu,
  structPages,
  udmabuf,
  unboundAmdgpu,
  useGuest,
} from './dmabuf-behaviour.js';

describe('behaviour of dma-bufs, kernel lts', () => {
  const scene = new BehaviourGuest();
  const gpu = amdgpu(scene);

  useGuest(scene, 'lts', 'host-bridge');

  afterEach(async () => assert.deepEqual(await scene.pairs(), [], 'bytes went from function to function'));

  // drivers/dma-buf/dma-buf.c dma_buf_map_attachment pins where CONFIG_DMABUF_MOVE_NOTIFY is not set, and
  // amdgpu_dma_buf_pin pins to GTT. That the GTT is full shows in what has to give way in its stead.
  it('no move_notify: a buffer goes to GTT when it is registered, and stays there when all else has to leave', async () => {
    const faults = await scene.pageFaults();
    const { moves, lines } = await scene.movesDuring(
      `export-vram --press-gtt ${scene.address('gpu0')} ${4 * MIB} follow-move ${scene.adapters} ${4 * MIB}`,
    );
    assert.deepEqual(
      lines.map(({ step, wrong, finished }) => finished ?? `${step}: ${wrong}`),
      ['before: 0', 'before: 0', 'while it moves: 0', 'after: 0', 'after: 0', true],
    );
    assert.deepEqual(
      moves.filter(({ bytes }) => bytes === 4 * MIB).map(({ way }) => way),
      ['VRAM to GTT'],
    );
    assert.ok(
      moves.some(({ way }) => way === 'GTT to system'),
      'the GTT was never full',
    );
    assert.equal(await scene.pageFaults(), faults);
  });

  fencesAndManyBuffers(scene, { imported: 'GTT' });

  structPages(scene, [
    [gpu, true],
    [udmabuf, true],
  ]);

  killedExporter(scene, gpu);
  resetGpu(scene);
  unboundAmdgpu(scene);
});
