import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { ensureKernel, loadingOrder, parseKernelRelease, parseModulesDep } from './kernel.js';
import { runCommand } from './run-command.js';

/** The beginning of a bzImage with this version. */
function header(text: string): Buffer {
  const bytes = Buffer.alloc(0x8000);
  bytes.write('HdrS', 0x202, 'latin1');
  bytes.writeUInt16LE(0x3000, 0x20e);
  bytes.write(text, 0x3200, 'latin1');
  return bytes;
}

describe('parseKernelRelease', () => {
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

describe('the configuration of a packed kernel', () => {
  const RELEASE = '7.3.4-mine';
  const { XDG_CACHE_HOME } = process.env;
  let folder: string;

  async function add(path: string, contents: string | Buffer): Promise<void> {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), contents);
  }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ghostbus-kernel-'));
    process.env.XDG_CACHE_HOME = join(folder, 'cache');
    await add('arch/x86/boot/bzImage', header(`${RELEASE} (me@here)`));
    const builtin = ['virtio_pci', 'virtio_blk', 'squashfs', 'overlay'].map((name) => `kernel/${name}.ko\n`).join('');
    await add(`lib/modules/${RELEASE}/modules.builtin`, builtin);
    await add(`lib/modules/${RELEASE}/modules.order`, '');
  });

  afterEach(async () => {
    if (XDG_CACHE_HOME === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = XDG_CACHE_HOME;
    await rm(folder, { recursive: true });
  });

  async function packed(): Promise<string> {
    const { modulesPath } = await ensureKernel(folder);
    return runCommand('unsquashfs', ['-cat', modulesPath, `boot/config-${RELEASE}`]);
  }

  for (const path of ['.config', `boot/config-${RELEASE}`, `lib/modules/${RELEASE}/config`]) {
    it(`comes from ${path} of the user's kernel into the guest's /boot`, async () => {
      await add(path, 'CONFIG_A=y\n');
      assert.equal(await packed(), 'CONFIG_A=y\n');
    });
  }

  it('follows when it is changed', async () => {
    await add('.config', 'CONFIG_A=y\n');
    await packed();
    await add('.config', 'CONFIG_A=m\nCONFIG_B=y\n');
    assert.equal(await packed(), 'CONFIG_A=m\nCONFIG_B=y\n');
  });

  it('is not needed', async () => {
    const { modulesPath } = await ensureKernel(folder);
    assert.doesNotMatch(await runCommand('unsquashfs', ['-l', modulesPath]), /boot/);
  });
});
