import assert from 'node:assert/strict';
import { ERRNO, errnoName, SystemError } from './errors.js';
import { closeFd, fileIdentity } from './fd.js';

describe('SystemError', () => {
  it('names the call, the errno and its meaning', () => {
    const error = new SystemError('recvmsg on fd 7', 104);
    assert.equal(error.message, 'recvmsg on fd 7 failed: ECONNRESET (Connection reset by peer)');
    assert.deepEqual([error.name, error.code, error.errno], ['SystemError', 'ECONNRESET', 104]);
    assert.equal(error.operation, 'recvmsg on fd 7');
  });

  it('carries advice behind the reason', () => {
    assert.match(
      new SystemError('x', ERRNO.ENOENT, 'make it first').message,
      /\(No such file or directory\); make it first$/,
    );
  });

  it('prefers the usual one of two names', () => {
    assert.equal(errnoName(11), 'EAGAIN');
    assert.equal(errnoName(95), 'ENOTSUP');
  });

  it('does not invent names', () => {
    assert.equal(errnoName(4711), 'errno 4711');
  });

  it('has the Linux numbers that vfio-user replies use', () => {
    const { EPERM, ENOENT, EINVAL, ENOSPC, ENOSYS, ETIMEDOUT } = ERRNO;
    assert.deepEqual([EPERM, ENOENT, EINVAL, ENOSPC, ENOSYS, ETIMEDOUT], [1, 2, 22, 28, 38, 110]);
  });

  it('is what failing calls throw, from libc and from node', () => {
    for (const attempt of [() => closeFd(9999), () => fileIdentity(9999)]) {
      assert.throws(
        attempt,
        (error) => error instanceof SystemError && error.code === 'EBADF' && /9999/.test(error.message),
      );
    }
  });
});
