import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { discoveryTable } from '../product/discovery.js';
import { PRODUCTS, type ProductId } from '../product/product.js';
import { firmwareFiles } from './firmware-stubs.js';

const namesOf = (id: ProductId) => firmwareFiles(id).map(({ path }) => path.replace('/usr/lib/firmware/amdgpu/', ''));

describe('gpu firmware stubs', () => {
  it('are the files the driver requests for the synthetic ASIC', () => {
    assert.deepEqual(namesOf('7af0'), [
      'aldebaran_rlc.bin',
      'aldebaran_mec.bin',
      'aldebaran_mec2.bin',
      'green_sardine_sdma.bin',
      'green_sardine_asd.bin',
      'green_sardine_ta.bin',
    ]);
  });

  it('are those of direct loading, and the discovery table, for an MI210', () => {
    assert.deepEqual(namesOf('740f'), [
      'aldebaran_rlc.bin',
      'aldebaran_mec.bin',
      'aldebaran_mec2.bin',
      'aldebaran_sdma.bin',
      'aldebaran_ip_discovery.bin',
    ]);
    assert.deepEqual(firmwareFiles('740f').at(-1)?.contents, discoveryTable(PRODUCTS['740f'].blocks));
  });

  const stubs = [...firmwareFiles('7af0'), ...firmwareFiles('740f').slice(3, 4)];
  for (const { path, contents } of stubs) {
    it(`${path}: header says its size, payload inside`, () => {
      const view = new DataView(contents.buffer);
      assert.equal(view.getUint32(0, true), contents.length);
      const [size, offset] = [view.getUint32(20, true), view.getUint32(24, true)];
      assert.ok(offset + size <= contents.length);
      assert.ok(view.getUint32(4, true) <= offset, 'header ends before the payload');
    });
  }
});
