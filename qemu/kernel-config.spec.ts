import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { HostSetupError } from './errors.js';
import { describeUserKernel, parseKernelConfig } from './kernel-config.js';

const RELEASE = '7.3.4-mine';

/** What a guest needs to boot. */
const BOOTS = [
  ...['BLK_DEV_INITRD', 'DEVTMPFS', 'TMPFS', 'MODULES', 'BINFMT_SCRIPT', 'UNIX', 'INOTIFY_USER', 'VIRTIO_PCI'],
  ...['VIRTIO_BLK', 'VIRTIO_CONSOLE', 'SQUASHFS', 'SQUASHFS_LZ4', 'OVERLAY_FS', 'SERIAL_8250_CONSOLE'],
];

function configOf(...options: string[]): string {
  return options.map((option) => `CONFIG_${option}=y\n`).join('');
}

function bzImage(): Buffer {
  const bytes = Buffer.alloc(0x8000);
  bytes.write('HdrS', 0x202, 'latin1');
  bytes.writeUInt16LE(0x3000, 0x20e);
  bytes.write(`${RELEASE} (me@here)`, 0x3200, 'latin1');
  return bytes;
}

describe('a kernel configuration', () => {
  it('has what is built in and what is a module', () => {
    const text =
      'CONFIG_A=y\nCONFIG_B_2=m\n# CONFIG_C is not set\nCONFIG_D="y"\nCONFIG_E=100\nCONFIG_F=n\n#CONFIG_G=y\n';
    assert.deepEqual([...parseKernelConfig(text)], ['A', 'B_2']);
  });
});

describe('a kernel of the user’s own', () => {
  let folder: string;

  async function add(path: string, contents: string | Buffer = ''): Promise<void> {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), contents);
  }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ghostbus-kernel-'));
    await add(`lib/modules/${RELEASE}/modules.order`);
  });

  afterEach(() => rm(folder, { recursive: true }));

  for (const [what, image, config] of [
    ['in its build tree', 'arch/x86/boot/bzImage', '.config'],
    ['in boot, as make dir-pkg leaves it', `boot/vmlinuz-${RELEASE}`, `boot/config-${RELEASE}`],
    ['among its modules', 'bzImage', `lib/modules/${RELEASE}/config`],
  ] as const) {
    it(`has its configuration ${what}`, async () => {
      await add(image, bzImage());
      await add(config, configOf(...BOOTS, 'IOMMUFD'));
      const kernel = await describeUserKernel(folder);
      assert.equal(kernel.release, RELEASE);
      assert.ok(kernel.options.has('IOMMUFD'));
    });
  }

  it('can be given as its bzImage', async () => {
    await add(`boot/vmlinuz-${RELEASE}`, bzImage());
    await add(`boot/config-${RELEASE}`, configOf(...BOOTS, 'VFIO'));
    const kernel = await describeUserKernel(join(folder, `boot/vmlinuz-${RELEASE}`));
    assert.ok(kernel.options.has('VFIO'));
  });

  it('without a configuration is refused, with the places and the remedy', async () => {
    await add('bzImage', bzImage());
    await assert.rejects(describeUserKernel(folder), (error: HostSetupError) => {
      assert.ok(error instanceof HostSetupError);
      for (const place of ['.config', `boot/config-${RELEASE}`, `lib/modules/${RELEASE}/config`]) {
        assert.ok(error.message.includes(join(folder, place)), place);
      }
      assert.match(error.remedy, /config\.gz/);
      return true;
    });
  });

  it('with which no guest boots is refused by the names of the options', async () => {
    await add('bzImage', bzImage());
    await add('.config', configOf(...BOOTS.filter((option) => option !== 'SQUASHFS_LZ4' && option !== 'VIRTIO_BLK')));
    await assert.rejects(describeUserKernel(folder), /without CONFIG_VIRTIO_BLK, CONFIG_SQUASHFS_LZ4, /);
  });

  it('takes modules only in the tree of just this release', async () => {
    await add('arch/x86/boot/bzImage', bzImage());
    await add('.config', configOf(...BOOTS));
    await add('Makefile');
    assert.equal((await describeUserKernel(folder)).buildTree, undefined, 'nothing was made yet');
    await add('Module.symvers');
    await add('include/config/kernel.release', '7.3.5-other\n');
    assert.equal((await describeUserKernel(folder)).buildTree, undefined, 'configured anew since');
    await add('include/config/kernel.release', `${RELEASE}\n`);
    assert.equal((await describeUserKernel(folder)).buildTree, folder);
  });
});
