import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { UsageError } from '../../../session/exit-status.js';
import { chosenKernels, chosenNames } from './matrix.js';

describe('ghostbus matrix', () => {
  it('takes everything when nothing is named', () => {
    assert.deepEqual(chosenNames('importer', undefined), ['amdgpu', 'mlx5', 'mlx5-pinned', 'iommufd']);
  });

  it('takes the named ones, with commas between', () => {
    assert.deepEqual(chosenNames('topology', 'switch,acs'), ['switch', 'acs']);
  });

  it('refuses a name that there is not, and lists those there are', () => {
    assert.throws(
      () => chosenNames('importer', 'mlx5,nvidia'),
      (error: Error) => {
        assert.ok(error instanceof UsageError);
        assert.match(error.message, /there is no "nvidia"; there are amdgpu, mlx5/);
        return true;
      },
    );
  });
});

describe('the kernels of ghostbus matrix', () => {
  it('are Debian’s by name, each once', async () => {
    const kernels = await chosenKernels('latest,lts,latest');
    assert.deepEqual(
      kernels.map(({ choice }) => choice),
      ['latest', 'lts'],
    );
  });

  it('are paths otherwise, and an unknown one is the command line’s fault', async () => {
    for (const text of ['stable', 'lts,/no/such/kernel', '', 'lts,']) {
      await assert.rejects(chosenKernels(text), UsageError, text);
    }
  });

  it('need a kernel at the path', async () => {
    await assert.rejects(chosenKernels(tmpdir()), /No kernel in/);
  });
});
