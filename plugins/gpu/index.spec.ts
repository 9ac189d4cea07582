import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import gpu from './index.js';
import { PRODUCTS } from './product/product.js';

const moduleOptions = (options: Record<string, string>) => gpu.guest?.moduleOptions?.(gpu.options.parse(options));

describe('gpu plugin', () => {
  const parameters = PRODUCTS['740f'].moduleParameters!;

  it('gives the guest the module parameters of a real id', () => {
    assert.deepEqual(moduleOptions({ id: '740f' }), { amdgpu: parameters });
  });

  it('needs none for the synthetic ASIC', () => {
    assert.deepEqual(moduleOptions({}), {});
  });

  it('takes sizes that are powers of two from 256M to 64G', () => {
    assert.equal(gpu.options.parse({ vram: '64G', bar: '256M' }).bar, 2 ** 28);
    for (const size of ['128M', '128G', '3G']) assert.throws(() => gpu.options.parse({ vram: size }), /vram/);
  });
});
