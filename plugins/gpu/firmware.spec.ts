import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { firmwareFiles } from './firmware.js';

describe('gpu firmware stubs', () => {
  it('are the files the driver requests', () => {
    assert.deepEqual(
      firmwareFiles().map(({ path }) => path.replace('/usr/lib/firmware/amdgpu/', '')),
      [
        'aldebaran_rlc.bin',
        'aldebaran_mec.bin',
        'aldebaran_mec2.bin',
        'green_sardine_sdma.bin',
        'green_sardine_asd.bin',
        'green_sardine_ta.bin',
      ],
    );
  });

  for (const { path, contents } of firmwareFiles()) {
    it(`${path}: header says its size, payload inside`, () => {
      const view = new DataView(contents.buffer);
      assert.equal(view.getUint32(0, true), contents.length);
      const [size, offset] = [view.getUint32(20, true), view.getUint32(24, true)];
      assert.ok(offset + size <= contents.length);
      assert.ok(view.getUint32(4, true) <= offset, 'header ends before the payload');
    });
  }
});
