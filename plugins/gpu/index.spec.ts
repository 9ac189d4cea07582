import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { parseOptions } from '../../emulator/device-spec.js';
import gpu from './index.js';
import { PRODUCTS } from './product/product.js';

type Options = Parameters<typeof gpu.create>[0];

const filesOf = (options: Record<string, string>) => {
  const files = gpu.guestFiles?.(parseOptions(gpu, options) as Options) ?? [];
  return new Map(files.map(({ path, contents }) => [path, Buffer.from(contents).toString('latin1')]));
};

describe('gpu plugin', () => {
  const parameters = PRODUCTS['740f'].moduleParameters!;

  it('gives the guest the module parameters of a real id', () => {
    const configuration = filesOf({ id: '740f' }).get('/etc/modprobe.d/ghostbus-amdgpu.conf');
    assert.match(configuration ?? '', new RegExp(`^options amdgpu ${parameters}$`, 'm'));
  });

  it('needs none for the synthetic ASIC', () => {
    assert.deepEqual(
      [...filesOf({}).keys()].filter((path) => !path.startsWith('/usr/lib/firmware/amdgpu/')),
      [],
    );
  });

  it('takes sizes that are powers of two from 256M to 64G', () => {
    assert.equal((parseOptions(gpu, { vram: '64G', bar: '256M' }) as Options).bar, 2 ** 28);
    for (const size of ['128M', '128G', '3G']) assert.throws(() => parseOptions(gpu, { vram: size }), /vram/);
  });
});
