/** What the Gaudi brings to the dma-buf matrix: HBM as an exporter. Paths are the kernel's, below drivers/accel. */
import type { Exporter, KernelFacts, MatrixDriver, PluginMatrix } from 'ghostbus';
import { hasOpenDefect } from '../guest/open-defect.js';

const EXPORTING = 'habana0';

const habanalabs: MatrixDriver = {
  name: 'habanalabs',
  needs: ['DRM_ACCEL_HABANALABS'],
  absence: whyNotOpened,
  load: 'modprobe habanalabs',
  prepare: () => `until_true 'grep -qsx Operational /sys/class/accel/accel0/device/status'`,
};

function whyNotOpened(kernel: KernelFacts): string | undefined {
  if (!hasOpenDefect(kernel.release)) return undefined;
  const why = 'habanalabs cannot be opened from 6.12 on (docs/upstream)';
  if (!kernel.has('KPROBES')) return `${why}, and our module around it needs CONFIG_KPROBES`;
  if (kernel.buildsModules) return undefined;
  return `${why}, and our module around it can be built only where the tree is in which ${kernel.release} was built`;
}

const hbm: Exporter = {
  name: 'habanalabs-hbm',
  title: 'habanalabs HBM',
  driver: habanalabs,
  functionName: EXPORTING,
  outlives: true,
  command: (_, bytes) => ['export-hbm', '0', String(bytes)],
  notBehindTranslation:
    'gaudi_mmap remaps virt_to_phys() of what dma_alloc_coherent gave, which is a vmalloc address behind ' +
    'a translating IOMMU: the first command buffer that a program touches makes its kernel oops ' +
    '(habanalabs/gaudi/gaudi.c, no _HAS_DMA_MMAP_COHERENT)',
  withoutRoute: { kind: 'refused', errno: 'EPERM', because: 'hl_map_dmabuf gives -EPERM without peer2peer' },
  withoutDevice: { kind: 'no-range', because: 'hl_dmabuf_attach finds no PCI device' },
  // habanalabs/common/memory.c hl_dmabuf_attach.
  reportsRoute: true,
};

export const matrix: PluginMatrix = { instances: [{}], exporters: [hbm] };
