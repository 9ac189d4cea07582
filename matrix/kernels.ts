/**
 * The kernels of the matrix, by what they have: expectations are rules about these properties, and no rule knows a
 * kernel's name. Of Debian's two they are declared; of a kernel of the user's own they come from its release and its
 * configuration.
 */
import type { KernelFacts, MatrixDriver } from '../emulator/plugin/index.js';
import { type DebianKernel, describeUserKernel, isDebianKernel, type UserKernel } from '../qemu/index.js';

export interface MatrixKernel extends KernelFacts {
  /** What `--kernel` takes: `lts`, `latest`, or a path. */
  readonly choice: string;
  /** The beginning of its cells' names. */
  readonly label: string;
  /** Says that options are lacking, of which at least one is. */
  whyWithout(options: readonly string[]): string;
}

const NO_IOMMUFD = 'Debian builds no kernel with CONFIG_IOMMUFD';

/** Debian's kernels have every option that a driver may need, but these. */
export const debianKernels = {
  lts: debianKernel('lts', '6.12', {
    IOMMUFD: NO_IOMMUFD,
    VFIO_DEVICE_CDEV: NO_IOMMUFD,
    PCI_P2PDMA: 'Debian builds 6.12 without CONFIG_PCI_P2PDMA',
    VFIO_PCI_DMABUF: 'CONFIG_VFIO_PCI_DMABUF came with 6.19',
  }),
  latest: debianKernel('latest', '7.3', { IOMMUFD: NO_IOMMUFD, VFIO_DEVICE_CDEV: NO_IOMMUFD }),
} as const satisfies Record<DebianKernel, MatrixKernel>;

/** @param lacking What it is built without, and how to say so. */
function debianKernel(choice: string, release: string, lacking: Readonly<Record<string, string>>): MatrixKernel {
  return {
    choice,
    label: choice,
    release,
    buildsModules: true,
    has: (option) => lacking[option] === undefined,
    isAtLeast: (major, minor) => isAtLeast(release, major, minor),
    whyWithout: (options) => [...new Set(options.flatMap((option) => lacking[option] ?? []))].join('; '),
  };
}

/** @throws HostSetupError when there is no kernel at a path, or its configuration is not found. */
export async function matrixKernel(choice: string): Promise<MatrixKernel> {
  return isDebianKernel(choice) ? debianKernels[choice] : userKernel(choice, await describeUserKernel(choice));
}

export function userKernel(choice: string, { release, options, buildTree }: UserKernel): MatrixKernel {
  return {
    choice,
    label: release,
    release,
    buildsModules: buildTree !== undefined,
    has: (option) => options.has(option),
    isAtLeast: (major, minor) => isAtLeast(release, major, minor),
    whyWithout: (names) => `${release} is built without ${names.map((name) => `CONFIG_${name}`).join(', ')}`,
  };
}

/** Why a kernel has no use of a driver; undefined: it has. */
export function absenceOf(driver: MatrixDriver, kernel: MatrixKernel): string | undefined {
  const lacking = driver.needs.filter((option) => !kernel.has(option));
  return lacking.length > 0 ? kernel.whyWithout(lacking) : driver.absence?.(kernel);
}

/**
 * Whether dma_buf_dynamic_attach maps at once for a dynamic importer of an exporter that does not pin; later kernels
 * leave it to the importer. Read in 6.12 (it does) and 7.3 (it does not); "dma-buf: drop caching of sg_tables" came in
 * between.
 */
export function mapsAtAttach(kernel: KernelFacts): boolean {
  return !kernel.isAtLeast(6, 16);
}

function isAtLeast(release: string, major: number, minor: number): boolean {
  const [ownMajor = 0, ownMinor = 0] = release.split(/[.-]/).map(Number);
  return ownMajor > major || (ownMajor === major && ownMinor >= minor);
}
