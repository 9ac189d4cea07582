import assert from 'node:assert/strict';
import { loadingOrder, parseKernelRelease, parseModulesDep } from './kernel.js';

describe('parseKernelRelease', () => {
  const header = (text: string): Buffer => {
    const bytes = Buffer.alloc(0x8000);
    bytes.write('HdrS', 0x202, 'latin1');
    bytes.writeUInt16LE(0x3000, 0x20e);
    bytes.write(text, 0x3200, 'latin1');
    return bytes;
  };

  it('takes the first word of the version that the header points at', () => {
    assert.equal(parseKernelRelease(header('7.2.12+deb13-amd64 (someone@somewhere) #1 SMP')), '7.2.12+deb13-amd64');
  });

  it('does not take anything else for a kernel', () => {
    assert.equal(parseKernelRelease(Buffer.alloc(0x8000)), undefined);
    assert.equal(parseKernelRelease(Buffer.from('\x7fELF')), undefined);
    assert.equal(parseKernelRelease(header('')), undefined);
  });
});

describe('module loading order', () => {
  const dependencies = parseModulesDep(
    [
      'kernel/fs/overlayfs/overlay.ko:',
      'kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko',
      'kernel/drivers/virtio/virtio-pci.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/ring.ko',
      '',
    ].join('\n'),
  );

  it('loads what a module needs before it, and nothing twice', () => {
    assert.deepEqual(loadingOrder(['9p', '9p', 'overlay'], dependencies), [
      'kernel/fs/netfs/netfs.ko',
      'kernel/net/9p/9pnet.ko',
      'kernel/fs/9p/9p.ko',
      'kernel/fs/overlayfs/overlay.ko',
    ]);
  });

  it('takes - and _ in names for the same, and leaves out what is built in', () => {
    assert.deepEqual(loadingOrder(['virtio_pci', 'ext4'], dependencies).length, 3);
  });
});
