import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { parseOptions } from '../../emulator/device-spec.js';
import gpu from './index.js';
import { PRODUCTS } from './product/product.js';

type Options = Parameters<typeof gpu.create>[0];

const moduleOptions = (options: Record<string, string>) =>
  gpu.guest?.moduleOptions?.(parseOptions(gpu, options) as Options);

describe('gpu plugin', () => {
  const parameters = PRODUCTS['740f'].moduleParameters!;

  it('gives the guest the module parameters of a real id', () => {
    assert.deepEqual(moduleOptions({ id: '740f' }), { amdgpu: parameters });
  });

  it('needs none for the synthetic ASIC', () => {
    assert.deepEqual(moduleOptions({}), {});
  });

  it('takes sizes that are powers of two from 256M to 64G', () => {
    assert.equal((parseOptions(gpu, { vram: '64G', bar: '256M' }) as Options).bar, 2 ** 28);
    for (const size of ['128M', '128G', '3G']) assert.throws(() => parseOptions(gpu, { vram: size }), /vram/);
  });
});
