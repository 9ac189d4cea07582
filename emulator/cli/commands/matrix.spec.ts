import assert from 'node:assert/strict';
import { UsageError } from '../exit-status.js';
import { chosenNames } from './matrix.js';

describe('ghostbus matrix', () => {
  it('takes everything when nothing is named', () => {
    assert.deepEqual(chosenNames('kernel', undefined), ['lts', 'latest']);
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
