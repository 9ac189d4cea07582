/**
 * The kernels of the matrix, by what they have: expectations are rules about these properties, and no rule knows a kernel's name.
 * Of Debian's two they are declared; of a kernel of the user's own they come from its release and its configuration.
 */

import { describeUserKernel, type UserKernel } from '../qemu/index.js';
import { hasOpenDefect } from '../session/session.js';

/** Parts of a kernel that export or import. */
export const drivers = [
  'amdgpu',
  'habanalabs',
  'mlx5',
  'vfio-pci',
  'iommufd',
  'udmabuf',
  'dma-heap',
  'intel-iommu',
] as const;
export type DriverName = (typeof drivers)[number];

export interface KernelTraits {
  /** What cannot be used, and why. */
  readonly missing: Readonly<Partial<Record<DriverName, string>>>;
  /** CONFIG_PCI_P2PDMA. */
  readonly p2pdma: boolean;
  /** CONFIG_VFIO_PCI_DMABUF: vfio-pci exports BARs (6.19). */
  readonly vfioDmabuf: boolean;
  /** ib_uverbs has UVERBS_OBJECT_DMABUF (7.0: core/uverbs_std_types_dmabuf.c). */
  readonly uverbsDmabuf: boolean;
  /** dma_buf_dynamic_attach maps at once for a dynamic importer of an exporter that does not pin; later kernels leave it to the importer. */
  readonly mapsAtAttach: boolean;
}

export interface MatrixKernel {
  /** What `--kernel` takes: `lts`, `latest`, or a path. */
  readonly choice: string;
  /** The beginning of its cells' names. */
  readonly label: string;
  readonly traits: KernelTraits;
}

const NO_IOMMUFD = { iommufd: 'Debian builds no kernel with CONFIG_IOMMUFD' } as const;

export const debianKernels = {
  lts: {
    choice: 'lts',
    label: 'lts',
    traits: { missing: NO_IOMMUFD, p2pdma: false, vfioDmabuf: false, uverbsDmabuf: false, mapsAtAttach: true },
  },
  latest: {
    choice: 'latest',
    label: 'latest',
    traits: { missing: NO_IOMMUFD, p2pdma: true, vfioDmabuf: true, uverbsDmabuf: true, mapsAtAttach: false },
  },
} as const satisfies Record<string, MatrixKernel>;
export type DebianKernel = keyof typeof debianKernels;

export function isDebianKernel(choice: string): choice is DebianKernel {
  return Object.hasOwn(debianKernels, choice);
}

/** @throws HostSetupError when there is no kernel at a path, or its configuration is not found. */
export async function matrixKernel(choice: string): Promise<MatrixKernel> {
  if (isDebianKernel(choice)) return debianKernels[choice];
  const kernel = await describeUserKernel(choice);
  return { choice, label: kernel.release, traits: traitsOf(kernel) };
}

/** Options without which a part does not work here. */
const needed: Readonly<Record<DriverName, readonly string[]>> = {
  amdgpu: ['DRM_AMDGPU'],
  habanalabs: ['DRM_ACCEL_HABANALABS'],
  // mlx5_ib_reg_user_mr_dmabuf gives -EOPNOTSUPP without the last (infiniband/hw/mlx5/mr.c).
  mlx5: ['MLX5_CORE_EN', 'MLX5_INFINIBAND', 'INFINIBAND_USER_ACCESS', 'INFINIBAND_ON_DEMAND_PAGING'],
  'vfio-pci': ['VFIO_PCI', 'VFIO_GROUP', 'VFIO_CONTAINER', 'VFIO_IOMMU_TYPE1'],
  iommufd: ['IOMMUFD', 'VFIO_DEVICE_CDEV', 'VFIO_PCI'],
  udmabuf: ['UDMABUF'],
  'dma-heap': ['DMABUF_HEAPS', 'DMABUF_HEAPS_SYSTEM'],
  // vfio refuses a group whose IOMMU does not remap interrupts (vfio_iommu_type1_attach_group, iommufd_device_bind).
  'intel-iommu': ['INTEL_IOMMU', 'IRQ_REMAP'],
};

export function traitsOf(kernel: UserKernel): KernelTraits {
  const missing = drivers.flatMap((name) => {
    const reason = absence(name, kernel);
    return reason === undefined ? [] : [[name, reason] as const];
  });
  return {
    missing: Object.fromEntries(missing),
    p2pdma: kernel.options.has('PCI_P2PDMA'),
    vfioDmabuf: kernel.options.has('VFIO_PCI_DMABUF'),
    uverbsDmabuf: isAtLeast(kernel.release, 7, 0),
    // Read in 6.12 (it does) and 7.3 (it does not); "dma-buf: drop caching of sg_tables" came in between.
    mapsAtAttach: !isAtLeast(kernel.release, 6, 16),
  };
}

function absence(name: DriverName, { release, options, buildTree }: UserKernel): string | undefined {
  const lacking = needed[name].filter((option) => !options.has(option));
  if (lacking.length > 0)
    return `${release} is built without ${lacking.map((option) => `CONFIG_${option}`).join(', ')}`;
  if (name === 'iommufd' && !isAtLeast(release, 6, 19)) {
    return `${release} maps no dma-buf: IOMMU_IOAS_MAP_FILE takes one from 6.19 on (drivers/iommu/iommufd/io_pagetable.c iopt_map_file_pages)`;
  }
  if (name === 'habanalabs' && hasOpenDefect(release)) {
    const why = 'habanalabs cannot be opened from 6.12 on (docs/upstream)';
    if (!options.has('KPROBES')) return `${why}, and our module around it needs CONFIG_KPROBES`;
    if (buildTree === undefined) {
      return `${why}, and our module around it can be built only where the tree is in which ${release} was built`;
    }
  }
  return undefined;
}

function isAtLeast(release: string, major: number, minor: number): boolean {
  const [ownMajor = 0, ownMinor = 0] = release.split(/[.-]/).map(Number);
  return ownMajor > major || (ownMajor === major && ownMinor >= minor);
}
